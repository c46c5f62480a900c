"""Intervening on named concepts: choose latents, change their activations or their weights, and draw a control."""

import fnmatch
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy.sparse import csr_array

from aaca.concepts.concept_sets import ConceptSets, Verdict, normal
from aaca.runtime.errors import ConfigError, DataError, nearest

Kind = Literal["mean", "zero", "scale", "set", "mask"]
Style = Literal["shell", "regex"]
NEIGHBOURS = 10  # latents of the nearest density among which the control of one latent is drawn


@dataclass(frozen=True)
class Selection:
    """Latents that belong together: sorted ids, each once. `missing`: wanted concepts that no latent is named after."""

    latents: tuple[int, ...] = ()
    missing: tuple[str, ...] = ()

    @classmethod
    def of(cls, latents: Iterable[int] | np.ndarray, missing: Iterable[str] = ()) -> "Selection":
        """Ids in any order, repeated or not."""
        return cls(tuple(sorted({int(latent) for latent in latents})), tuple(missing))

    def __or__(self, other: "Selection") -> "Selection":
        """The latents of both; what is missing is missing in either."""
        return Selection.of({*self.latents, *other.latents}, dict.fromkeys((*self.missing, *other.missing)))


def by_ids(ids: Iterable[int], latents: int) -> Selection:
    """The latents of these ids, out of `latents`. Raises `ConfigError` for an id out of range."""
    found = Selection.of(ids)
    for latent in found.latents:
        if not 0 <= latent < latents:
            raise ConfigError(f"intervene.latents: {latent}; expected 0…{latents - 1}")
    return found


def by_name(names: Sequence[str], *patterns: str, style: Style = "shell") -> Selection:
    """All latents whose name fits a pattern, upper and lower case alike; every latent of a shared name is taken.

    `shell`: the whole name (`water*`); `regex`: somewhere in the name. Raises `ConfigError` for a pattern that is not
    one, or that fits no name.
    """
    if style not in get_args(Style):
        raise ConfigError(f"intervene.style: {style!r}; {nearest(style, get_args(Style))}")
    found: set[int] = set()
    for pattern in patterns:
        try:
            compiled = re.compile(fnmatch.translate(pattern) if style == "shell" else pattern, re.IGNORECASE)
        except re.error as error:
            raise ConfigError(f"intervene.names: {pattern!r}; not a regular expression ({error})") from error
        fits = compiled.match if style == "shell" else compiled.search  # a translated pattern reaches to the end
        own = {latent for latent, name in enumerate(names) if fits(name)}
        if not own:
            raise ConfigError(f"intervene.names: {pattern!r} fits no concept; {nearest(pattern, names)}")
        found |= own
    return Selection.of(found)


def by_text(
    vectors: np.ndarray,
    query: np.ndarray,
    names: Sequence[str],
    threshold: float | None = None,
    top: int | None = None,
    against: np.ndarray | None = None,
) -> Selection:
    """Latents near a text: cosine of `vectors` `[h, D]` with `query` `[D]`, at least `threshold`, or the `top` highest.

    `vectors`: decoder columns as rows, or the embeddings of the latents' names. `against` `[M, D]`: texts of the other
    kind ("background" for "bird"); the score is then the cosine less the largest of theirs. Vectors of length zero
    (dead latents) are never chosen. Raises `ConfigError` unless one of `threshold` and `top` is given, and where no
    latent reaches it.
    """
    if (threshold is None) == (top is None):
        raise ConfigError("intervene.text: expected one of least_cosine and top")
    score = _cosine(vectors, query[None])[:, 0]
    if against is not None:
        score = score - _cosine(vectors, against).max(axis=1)
    order = np.argsort(-np.nan_to_num(score, nan=-np.inf), kind="stable")
    order = order[np.isfinite(score[order])]
    if top is not None:
        if not 1 <= top <= len(order):
            raise ConfigError(f"intervene.top: {top}; expected 1…{len(order)}")
        return Selection.of(order[:top])
    kept = order[score[order] >= threshold]
    if not len(kept):
        best = ", ".join(f"{names[latent]} {score[latent]:.3f}" for latent in order[:3])
        raise ConfigError(f"intervene.least_cosine: {threshold} is above every concept; nearest valid: {best}")
    return Selection.of(kept)


def by_concepts(sets: ConceptSets, names: Sequence[str], verdict: Verdict = "confounded") -> dict[str, Selection]:
    """Class → the latents that bear the name of one of its concepts of `verdict`, articles and case aside.

    Classes without such a concept are left out. Raises `ConfigError` for a class with concepts of which none is a name.
    """
    named: dict[str, list[int]] = {}
    for latent, name in enumerate(names):
        named.setdefault(normal(name), []).append(latent)
    found = {}
    for label in sets.classes:
        wanted = [concept.name for concept in getattr(sets.of(label), verdict)]
        missing = [name for name in wanted if normal(name) not in named]
        if wanted and len(missing) == len(wanted):
            raise ConfigError(
                f"concept_sets.{label}.{verdict}: {', '.join(wanted)}; no concept has such a name, "
                f"{nearest(normal(wanted[0]), named)}"
            )
        if wanted:
            own = [latent for name in wanted for latent in named.get(normal(name), ())]
            found[label] = Selection.of(own, missing)
    return found


@dataclass(frozen=True)
class Intervention:
    """A change at some latents, without training.

    `zero`, `scale` (by `value`) and `set` (to `value`, in every image) act on codes; `mask` sets weights to zero, of
    all classes or of the rows `classes` alone; `mean` does, and gives each class's bias what the latents gave it on
    average (mean ablation: without it, a class loses what speaks for it everywhere). No latents: nothing changes.
    Raises `ConfigError` for a value that the kind lacks or does not read.
    """

    kind: Kind
    latents: tuple[int, ...]
    value: float | None = None
    classes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"intervene.kind: {self.kind!r}; {nearest(self.kind, get_args(Kind))}")
        if self.kind in ("scale", "set"):
            if self.value is None or not 0 <= self.value < np.inf:
                raise ConfigError(f"intervene.value: {self.value}; expected a number ≥ 0 for {self.kind!r}")
        elif self.value is not None:
            raise ConfigError(f"intervene.value: {self.value}; expected none for {self.kind!r}")
        if self.classes is not None and self.kind != "mask":
            raise ConfigError(f"intervene.classes: read by 'mask' alone; expected none for {self.kind!r}")

    def codes(self, codes: csr_array) -> csr_array:
        """Codes `[N, h]` after it; the given ones are not touched, and come back as they are where nothing changes."""
        if not self.latents or self.kind in ("mask", "mean"):
            return codes
        count = codes.shape[1]
        chosen = _flags(self.latents, count, "latents")
        value = np.asarray(self.value or 0, dtype=codes.dtype)
        kept = value if self.kind == "scale" else np.zeros_like(value)
        data = np.where(chosen[codes.indices], codes.data * kept, codes.data)
        changed = csr_array((data, codes.indices.copy(), codes.indptr.copy()), shape=codes.shape)
        changed.eliminate_zeros()
        if self.kind == "set":
            row = csr_array(np.where(chosen, value, np.zeros_like(value))[None])
            images = len(codes.indptr) - 1
            tiled = (np.tile(row.data, images), np.tile(row.indices, images), np.arange(images + 1) * row.nnz)
            changed = changed + csr_array(tiled, shape=codes.shape)
        return changed

    def weight(self, weight: np.ndarray) -> np.ndarray:
        """Probe weights `[C, h]` after it; the given ones are not touched."""
        if not self.latents or self.kind not in ("mask", "mean"):
            return weight
        columns = _flags(self.latents, weight.shape[1], "latents")
        rows = np.ones(len(weight), dtype=bool)
        if self.classes is not None:
            rows = _flags(self.classes, len(weight), "classes")
        return np.where(rows[:, None] & columns, np.zeros((), weight.dtype), weight)

    def bias(self, weight: np.ndarray, bias: np.ndarray | None, means: np.ndarray) -> np.ndarray | None:
        """The bias `[C]` after it; `weight`: the one before. `means` `[h]`: of the codes of training images."""
        if not self.latents or self.kind != "mean":
            return bias
        chosen = _flags(self.latents, weight.shape[1], "latents")
        given = weight[:, chosen] @ means[chosen]
        return given if bias is None else bias + given


def random_like(
    selection: Selection, live: Collection[int] | np.ndarray, seed: int, density: np.ndarray | None = None
) -> Selection:
    """The control: as many random latents out of the ids `live`, none of them selected.

    `density` `[h]`: share of images at which a latent fires; each draw is then among the nearest in log density to one
    of the selected. Raises `ConfigError` where too few live latents are left.
    """
    pool = np.setdiff1d(np.asarray(sorted(live), dtype=np.int64), selection.latents)
    if len(pool) < len(selection.latents):
        raise ConfigError(
            f"intervene.controls: {len(selection.latents)} latents selected, {len(pool)} others live; expected as many"
        )
    rng = np.random.default_rng(seed)
    if density is None:
        return Selection.of(rng.choice(pool, size=len(selection.latents), replace=False))
    fires = np.log(np.maximum(density, density[density > 0].min(initial=1.0)))
    drawn = []
    for latent in rng.permutation(np.asarray(selection.latents, dtype=np.int64)):
        near = np.argsort(np.abs(fires[pool] - fires[latent]), kind="stable")[:NEIGHBOURS]
        place = rng.choice(near)
        drawn.append(pool[place])
        pool = np.delete(pool, place)
    return Selection.of(drawn)


def keep_top(weight: np.ndarray, k: int) -> np.ndarray:
    """Probe weights `[C, h]` with the `k` of largest magnitude kept a class, the rest zero; ties: the lowest id.

    Protocol of Waterbirds-100 (k = 5). Raises `ConfigError` for k out of range.
    """
    if not 1 <= k <= weight.shape[1]:
        raise ConfigError(f"probe.keep: {k}; expected 1…{weight.shape[1]}")
    kept = np.zeros(weight.shape, dtype=bool)
    np.put_along_axis(kept, np.argsort(-np.abs(weight), axis=1, kind="stable")[:, :k], True, axis=1)
    return np.where(kept, weight, np.zeros((), weight.dtype))


def _flags(chosen: Sequence[int], size: int, what: str) -> np.ndarray:
    flags = np.zeros(size, dtype=bool)
    for index in chosen:
        if not 0 <= index < size:
            raise ConfigError(f"intervene.{what}: {index}; expected 0…{size - 1}")
        flags[index] = True
    return flags


def _cosine(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    # [h, D] with [Q, D] to [h, Q]; NaN for a vector of length zero
    if vectors.ndim != 2 or queries.ndim != 2 or vectors.shape[1] != queries.shape[1]:
        raise DataError(f"text query: vectors {vectors.shape} and queries {queries.shape}; expected [h, D] and [Q, D]")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True), np.linalg.norm(queries, axis=1)
    if not lengths[1].all():
        raise DataError("text query: a vector of length zero; expected the embedding of a text")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(vectors @ queries.T / lengths[0] / lengths[1])
