"""Wrong annotations planted in a graph data set, and what people who rate its words would answer.

The records have the released form of the human answers: a file name with image and caption word, content type, content,
relevance 1…5. Which regions are wrong stands in a file of its own, for scoring only.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd

from aaca.data.graph_writer import ABOUT, REGIONS, cleaned_file
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.files import atomic_path, read_json, write_json
from aaca.runtime.seeding import purpose_seed
from aaca.world.phrases import ON, Grammar, Said, Thing

Unit = Literal["image", "region"]
Kind = Literal["object", "relationship", "attribute"]
T = TypeVar("T")
COLUMNS = ("file", "region", "content_type", "content", "relevance")
TRUTH = "planted.json"
WORKERS = 3
FITS, MISFITS = (4, 5), (1, 2)
"""Ratings of an attentive person."""


@dataclass(frozen=True)
class Word:
    """A word of a caption that is rated: its position in the caption, what it is, what the record says, is it right."""

    position: int
    kind: Kind
    content: str
    fits: bool


def plant_noise(
    folder: Path, set_: str, share: float, seed: int, noise: float = 0.1, unit: Unit = "image"
) -> tuple[Path, Path]:
    """Corrupt a share of the annotations of `set_` in place; returns the files of the records and of the truth.

    A corrupted region has one wrong object name, relation or attribute, in its graph and its caption alike. `unit`:
    whole images (all their regions) or single regions are corrupted. `noise`: how often a rating is any number. The
    records are `annotation/<set>_records.csv`, every region's content words rated by three simulated people, averaged;
    the truth is `annotation/<set>_planted.json`: `{image_id: {region_id: what was done}}`. Raises `ConfigError` for a
    share or noise outside 0…1, `DataError` for a folder that `write_layout` has not written and where images of the
    set were corrupted before. Sets that share an image share its corruption; a graph that has no word for which the
    vocabulary has another stays as it is, and the truth does not list it.
    """
    for name, value in (("share", share), ("noise", noise)):
        if not 0 <= value <= 1:
            raise ConfigError(f"plant_noise: {name} {value}; expected 0…1")
    records_file, truth_file = (folder / f"annotation/{set_}_{name}" for name in ("records.csv", TRUTH))
    grammar, pairs = _open(folder, set_)
    rng = np.random.default_rng(purpose_seed(seed, "plant_noise", set_))
    chosen = _choose(rng, pairs, share, unit)
    files = {image: read_json(folder / REGIONS / f"{image}.json") for image, _ in pairs}
    truth: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for image, region in pairs:
        record = files[image][region]
        said = now = _said(record)
        if (image, region) in chosen:
            now = _corrupt(rng, grammar, said)
        if now != said:
            truth.setdefault(image, {})[region] = {"was": grammar.say(said), "is": grammar.say(now)}
            _rewrite(record, now, grammar)
        for word in rated_words(grammar, now, said):
            rows.append(_record(image, region, word) | {"relevance": _rate(rng, word.fits, noise)})
    # The truth first: what was cut off half-way is then refused, not corrupted twice.
    write_json(truth_file, truth)
    for image in truth:
        write_json(folder / REGIONS / f"{image}.json", files[image])
    _update_references(folder, truth)
    with atomic_path(records_file) as temporary:
        pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(temporary, index=False)
    return records_file, truth_file


def _open(folder: Path, set_: str) -> tuple[Grammar, list[tuple[str, str]]]:
    """The grammar's words that the vocabulary has, and the (image, region) pairs of a set without planted noise."""
    if not (folder / ABOUT).is_file():
        raise DataError(f"{folder / ABOUT}: no such file; expected a folder whose captions follow a known grammar")
    known = read_json(folder / "annotation/word2int.json")
    words = read_json(folder / ABOUT)["grammar"]
    grammar = Grammar.from_json(
        {name: [word for word in some if set(word.split()) <= set(known)] for name, some in words.items()}
    )
    pairs = [(str(image), str(region)) for image, region in np.load(folder / REGIONS / f"{set_}_names.npy")]
    for truth in sorted((folder / "annotation").glob(f"*_{TRUTH}")):
        if set(read_json(truth)) & {image for image, _ in pairs} or truth.name == f"{set_}_{TRUTH}":
            raise DataError(f"{truth}: noise was planted in images of {set_} already; expected a fresh folder")
    return grammar, pairs


def rated_words(grammar: Grammar, said: Said, true: Said) -> list[Word]:
    """The content words of a caption in their order (no articles), each with whether it holds in the `true` graph."""
    words = grammar.say(said).split()
    return sorted(_words(grammar, said, true, words), key=lambda word: word.position)


def _words(grammar: Grammar, said: Said, true: Said, words: list[str]) -> Iterator[Word]:
    """A thing occurs once in a caption of these worlds, and relations follow their subject's noun."""
    for thing, right in zip(said.things, true.things, strict=True):
        at = words.index(thing.name)
        yield Word(at, "object", thing.name, thing.name == right.name)
        for attribute in thing.attributes:
            here = max(index for index in range(at) if words[index] == attribute)
            yield Word(here, "attribute", f"({thing.name}, {attribute})", attribute in right.attributes)
    for (subject, word, object_), right_relation in zip(said.relations, true.relations, strict=True):
        content = f"({said.things[subject].name}, {word}, {said.things[object_].name})"
        start = words.index(said.things[subject].name)
        parts = word.split()
        here = next(index for index in range(start, len(words)) if words[index : index + len(parts)] == parts)
        yield Word(here, "relationship", content, word == right_relation[1])


def _choose(
    rng: np.random.Generator, pairs: list[tuple[str, str]], share: float, unit: Unit
) -> frozenset[tuple[str, str]]:
    images = list(dict.fromkeys(image for image, _ in pairs))
    if unit == "region":
        picked = rng.permutation(len(pairs))[: round(share * len(pairs))]
        return frozenset(pairs[index] for index in picked.tolist())
    some = {images[index] for index in rng.permutation(len(images))[: round(share * len(images))].tolist()}
    return frozenset(pair for pair in pairs if pair[0] in some)


def _said(record: dict[str, Any]) -> Said:
    position = {entry["object_id"]: index for index, entry in enumerate(record["objects"])}
    things = tuple(Thing(entry["name"], tuple(entry["attributes"])) for entry in record["objects"])
    relations = [(position[r["subject_id"]], r["name"], position[r["object_id"]]) for r in record["relationships"]]
    return Said(things, tuple(relations))


def _corrupt(rng: np.random.Generator, grammar: Grammar, said: Said) -> Said:
    """The same graph with one wrong word: of the kinds that it has, each is equally likely; itself where none is."""
    kinds = [
        some
        for some in (_wrong_names(grammar, said), _wrong_attributes(grammar, said), _wrong_links(grammar, said))
        if some
    ]
    if not kinds:
        return said
    some = kinds[rng.integers(len(kinds))]
    return some[rng.integers(len(some))]


def _wrong_names(grammar: Grammar, said: Said) -> list[Said]:
    """Every graph with one other noun, which the graph has not yet."""
    taken = {thing.name for thing in said.things}
    return [
        _with_thing(said, index, replace(thing, name=name))
        for index, thing in enumerate(said.things)
        for name in (grammar.grounds if thing.name in grammar.grounds else grammar.nouns)
        if name not in taken
    ]


def _wrong_attributes(grammar: Grammar, said: Said) -> list[Said]:
    """Every graph with one other colour or size."""
    return [
        _with_thing(said, index, replace(thing, attributes=_exchanged(thing.attributes, place, word)))
        for index, thing in enumerate(said.things)
        for place, old in enumerate(thing.attributes)
        for word in (grammar.sizes if old in grammar.sizes else grammar.colours)
        if word != old
    ]


def _wrong_links(grammar: Grammar, said: Said) -> list[Said]:
    """Every graph with one other relation between two things."""
    return [
        replace(said, relations=_exchanged(said.relations, place, (subject, word, object_)))
        for place, (subject, old, object_) in enumerate(said.relations)
        for word in grammar.links
        if old not in (ON, word)
    ]


def _with_thing(said: Said, index: int, thing: Thing) -> Said:
    return replace(said, things=_exchanged(said.things, index, thing))


def _exchanged(values: tuple[T, ...], place: int, value: T) -> tuple[T, ...]:
    return (*values[:place], value, *values[place + 1 :])


def _rewrite(record: dict[str, Any], said: Said, grammar: Grammar) -> None:
    for entry, thing in zip(record["objects"], said.things, strict=True):
        entry["name"], entry["attributes"] = thing.name, list(thing.attributes)
    for entry, (_, word, _) in zip(record["relationships"], said.relations, strict=True):
        entry["name"] = word
    record["phrase"] = grammar.say(said)


def _record(image: str, region: str, word: Word) -> dict[str, Any]:
    name = re.sub(r".*/", "", image)
    file = f"p1_{name}__caption_{word.position}_attr_result.jpg"
    return {"file": file, "region": region, "content_type": word.kind, "content": word.content}


def _rate(rng: np.random.Generator, fits: bool, noise: float) -> float:
    low, high = FITS if fits else MISFITS
    attentive, any_ = rng.integers(low, high + 1, WORKERS), rng.integers(1, 6, WORKERS)
    return round(float(np.where(rng.random(WORKERS) < noise, any_, attentive).mean()), 1)


def _update_references(folder: Path, truth: dict[str, dict[str, Any]]) -> None:
    """The captions as they are now, in the cleaned descriptions of every set that has these images."""
    for path in sorted(folder.glob(str(cleaned_file("*")))):
        cleaned = read_json(path)
        for image in truth.keys() & cleaned.keys():
            for region, change in truth[image].items():
                cleaned[image][region]["phrase"] = change["is"]
        write_json(path, cleaned)
