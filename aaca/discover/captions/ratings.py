"""Ratings of a caption's words without people: does a trained captioner's own view of the image bear the word out?

Three ways, each 1 (not at all) to 5, as people rate; the words that name a node of the graph are rated, the others are
not. `hold` is a cheap first look: it asks only where the word comes from, not whether it is right.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from aaca.data.scenegraph.batch import GraphItem, collate
from aaca.data.scenegraph.mentions import mentions
from aaca.data.scenegraph.vocabulary import EOS, Words
from aaca.discover.captions.attribution import NodeAttribution, log_probs, repeated
from aaca.discover.captions.mentions import facts_of_nodes, kind_of
from aaca.discover.captions.records import HIGHEST, LOWEST, Record, file_name
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.runtime.errors import ConfigError, DataError, nearest
from aaca.runtime.seeding import purpose_seed

Within = Literal["nodes", "boxes"]


@dataclass(frozen=True)
class Mention:
    """A node that a caption names: words `start` to `end` (without), and the node."""

    node: int
    start: int
    end: int


def caption_ids(item: GraphItem) -> list[int]:
    """The words of a sample's own caption as ids, without BOS and EOS."""
    return [word for word in item.words[1:].tolist() if word != EOS]


def mentions_of(item: GraphItem, vocabulary: Words) -> list[Mention]:
    """Each node's first mention in the sample's own caption; nodes that it does not name have none.

    Of nodes that share a name, the first takes the first mention, the second the second, and so on.
    """
    words = vocabulary.decode(item.words).split()
    named = mentions(words, item.nodes.names)
    free = [set(own) for own in named]
    found = []
    for node, name in enumerate(item.nodes.names):
        length = len(name.split())
        starts = range(len(words) - length + 1 if length else 0)
        start = next((at for at in starts if all(node in free[place] for place in range(at, at + length))), None)
        if start is not None:
            found.append(Mention(node, start, start + length))
            for place in range(start, start + length):
                free[place] = set()
    return found


def hold(
    captioner: GraphCaptioner,
    item: GraphItem,
    vocabulary: Words,
    method: NodeAttribution,
    within: Within = "nodes",
) -> dict[Mention, float]:
    """1 + 4 · the share of a word's attribution that is on the nodes it names, or `within` their boxes.

    Only what speaks for the word counts; a word that no node speaks for has 1. In boxes a node counts by the share of
    its own box that lies in the best of theirs: a colour may be read off the object's node, which has the same box.
    Words of one name are averaged. Raises `ConfigError` for another `within`.
    """
    if within not in get_args(Within):
        raise ConfigError(f"ratings.within: {within!r}; {nearest(within, get_args(Within))}")
    found = mentions_of(item, vocabulary)
    if not found:
        return {}
    named = mentions(vocabulary.decode(item.words).split(), item.nodes.names)
    mass = method(captioner, item, caption_ids(item)).clamp(min=0).double().cpu().numpy()
    inside = np.eye(len(item.nodes)) if within == "nodes" else _inside(item.nodes.boxes)
    shares = []
    for at, nodes in enumerate(named):
        right = inside[:, sorted(nodes)].max(axis=1) if nodes else np.zeros(len(item.nodes))
        shares.append(float((mass[at] * right).sum() / mass[at].sum()) if mass[at].sum() > 0 else 0.0)
    return {one: _rating(float(np.mean(shares[one.start : one.end]))) for one in found}


def choice(
    captioner: GraphCaptioner, item: GraphItem, vocabulary: Words, names: Mapping[str, Sequence[str]]
) -> dict[Mention, float]:
    """1 + 4 · p(name) / Σ p(name') over the `names` of its kind, in the place of the name in the caption.

    Names of several words stand there as a whole, p being the product of their words'; names with a word that the
    vocabulary lacks do not compete. Words that mean nearly the same share the rating: with many of them use `swap`.
    """
    found, ids = mentions_of(item, vocabulary), caption_ids(item)
    kinds = [kind_of(fact) for fact in facts_of_nodes(item.nodes)]
    ratings = {}
    for one in found:
        own = tuple(ids[one.start : one.end])
        rivals = [tuple(vocabulary.ids.get(word, -1) for word in name.split()) for name in names[kinds[one.node]]]
        others = [rival for rival in dict.fromkeys(rivals) if -1 not in rival and rival != own]
        scores = _log_p(captioner, item, ids[: one.start], [own, *others])
        ratings[one] = _rating(float(scores.softmax(dim=0)[0]))
    return ratings


def swap(
    captioner: GraphCaptioner, item: GraphItem, vocabulary: Words, others: Mapping[int, np.ndarray]
) -> dict[Mention, float]:
    """1 + 4 · the share of other nodes of its kind that make a node's words less likely than its own feature does.

    `others`: features `[K, F]` of nodes of other images by type, see `features_of`. An object and its attributes have
    one feature and change it together. Equally likely counts half. A word that the image bears out is likelier with its
    own node than with most; a wrong one is not.
    """
    found, ids = mentions_of(item, vocabulary), caption_ids(item)
    batch, ratings = collate([item]), {}
    device = next(captioner.parameters()).device
    said = torch.tensor(ids, dtype=torch.int64, device=device)
    for one in found:
        pool = torch.from_numpy(others[int(item.nodes.types[one.node])]).to(device)
        many = repeated(batch.to(device), len(pool) + 1)
        same = torch.from_numpy((item.nodes.boxes == item.nodes.boxes[one.node]).all(axis=1)).to(device)
        features = many.features.clone()
        features[1:, same] = pool[:, None]
        with torch.no_grad():
            spoken = log_probs(captioner, replace(many, features=features), said.expand(len(pool) + 1, -1))
        said_by = spoken[:, one.start : one.end].sum(dim=1)
        own, rivals = said_by[:1], said_by[1:]
        wins = (own > rivals).double() + 0.5 * (own == rivals).double()
        ratings[one] = _rating(float(wins.mean()))
    return ratings


def features_of(items: Sequence[GraphItem], count: int, seed: int) -> dict[int, np.ndarray]:
    """`count` features (or all) of random nodes of each type in `items`. Raises `DataError` for no items."""
    if not items:
        raise DataError("ratings: no items to draw other nodes from")
    types = np.concatenate([item.nodes.types for item in items])
    features = np.concatenate([item.features for item in items])
    rng = np.random.default_rng(purpose_seed(seed, "ratings"))
    rows = {int(kind): np.flatnonzero(types == kind) for kind in np.unique(types)}
    return {kind: features[rng.permutation(own)[:count]] for kind, own in rows.items()}


def names_of_kinds(items: Sequence[GraphItem]) -> dict[str, list[str]]:
    """All names of objects, attributes and relationships among `items`, for `choice`."""
    found: dict[str, dict[str, None]] = {"object": {}, "attribute": {}, "relationship": {}}
    for item in items:
        for name, fact in zip(item.nodes.names, facts_of_nodes(item.nodes), strict=True):
            found[kind_of(fact)][name.lower()] = None
    return {kind: list(names) for kind, names in found.items()}


def records_of(ratings: Mapping[Mention, float], item: GraphItem, image_id: str, region: str) -> Iterator[Record]:
    """The ratings as answers, one a node that the caption names, in the order of the caption."""
    facts, image = facts_of_nodes(item.nodes), PurePosixPath(image_id).name
    for one, rating in sorted(ratings.items(), key=lambda entry: (entry[0].start, entry[0].node)):
        fact = facts[one.node]
        yield Record(file_name(image, one.start), image, one.start, kind_of(fact), fact, rating, region)


def _rating(share: float) -> float:
    return LOWEST + (HIGHEST - LOWEST) * min(max(share, 0.0), 1.0)


def _inside(boxes: np.ndarray) -> np.ndarray:
    # [n, n]: share of box i (corners inclusive) that lies in box j
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    both = (high.astype(np.float64) - low + 1).clip(min=0).prod(axis=2)
    return np.asarray(both / (boxes[:, 2:].astype(np.float64) - boxes[:, :2] + 1).prod(axis=1)[:, None])


def _log_p(captioner: GraphCaptioner, item: GraphItem, begin: Sequence[int], ends: Sequence[tuple[int, ...]]) -> Tensor:
    # [E] log p of each way to go on; shorter ones are filled up, and what fills them is not counted
    longest = max(map(len, ends))
    rows = torch.tensor([[*begin, *end, *[EOS] * (longest - len(end))] for end in ends], dtype=torch.int64)
    counts = torch.tensor([[at < len(end) for at in range(longest)] for end in ends])
    device = next(captioner.parameters()).device
    with torch.no_grad():
        spoken = log_probs(captioner, repeated(collate([item]).to(device), len(ends)), rows.to(device))
    return (spoken[:, len(begin) :] * counts.to(device)).sum(dim=1).double()
