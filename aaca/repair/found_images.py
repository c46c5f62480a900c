"""`FoundImages`: what discovery blames, shown by the audit images themselves: by masks, or with against without."""

import logging
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from aaca.concepts.concept_sets import ConceptSets, normal
from aaca.concepts.images import ConceptImages, ConceptPair, masked
from aaca.data.benchmark import Benchmark
from aaca.data.table import ImageTable
from aaca.data.transforms import EvalTransform
from aaca.discover.concepts.table import UNKNOWN, ConceptTable
from aaca.repair.pairs import PairSource, Shown, evenly
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.files import file_sha256

log = logging.getLogger(__name__)
How = Literal["cut", "whole"]
LEAST = 10  # images a set, below which a direction is chance
COVERED = 0.003  # share of the image that a mask has to cover, to be cut out


class FoundImages(PairSource):
    """One pair a confounded concept of the concept sets.

    `cut`: what lies below the concept's masks, against what lies below those of other concepts of its kind, both from
    images of all classes as evenly as there are. `whole`:
    audit images with it against audit images without it, as many of each class on both sides, so that the direction is
    not that of a class. A concept that is valid for a class is not held against images of that class.

    Args:
        how: cut | whole.
        images: images a set, at most.
        file: concept sets by hand in the place of a discovery's.

    """

    needs_concepts = True

    def __init__(self, how: How = "cut", images: int = 150, file: str | None = None) -> None:
        if how not in get_args(How):
            raise ConfigError(f"concept_images.how: {how!r}; expected cut or whole")
        if images < LEAST:
            raise ConfigError(f"concept_images.images: {images}; expected {LEAST} or more")
        if file is not None and not Path(file).is_file():
            raise ConfigError(f"concept_images.file: no file {file}")
        self.how, self.images, self.file = how, images, file

    @property
    def needs_sets(self) -> bool:  # type: ignore[override]
        """Where no file gives them."""
        return self.file is None

    @property
    def needs_places(self) -> bool:  # type: ignore[override]
        """Where something is cut out."""
        return self.how == "cut"

    def fingerprint(self) -> dict[str, Any]:
        """The file's content."""
        return {"file": file_sha256(Path(self.file)) if self.file else None}

    def check(self, benchmark: Benchmark) -> None:
        """Raise `DataError` where the file does not fit the classes, or blames nothing."""
        if self.file is not None:
            self._blamed(ConceptSets.load(Path(self.file), benchmark.classes))

    def pairs(self, shown: Shown) -> list[ConceptPair]:
        """The pairs, the concepts in alphabetical order, less those that too few images show (which is said).

        Raises `DataError` where none is left.
        """
        sets = shown.sets if self.file is None else ConceptSets.load(Path(self.file), shown.benchmark.classes)
        assert sets is not None and shown.concepts is not None
        blamed, table = self._blamed(sets), shown.benchmark.split("audit")
        names = {normal(name): name for name in shown.concepts.names}
        found, reasons = [], []
        for name in blamed:
            try:
                if name not in names:
                    raise DataError(f"concept_images: no audit image shows {name!r} by this concept source (concepts=)")
                found.append(self._pair(names[name], sets, table, shown))
            except DataError as error:
                log.warning("left out: %s", error)
                reasons.append(str(error))
        if not found:
            raise DataError(reasons[0])
        return found

    def _blamed(self, sets: ConceptSets) -> list[str]:
        names = sorted({normal(name) for _, name in sets.names("confounded")})
        if not names:
            raise DataError(
                "concept_images: the concept sets blame nothing, so there is nothing to unlearn; expected at least one "
                "confounded concept (concept_images.file= takes sets by hand)"
            )
        return names

    def _pair(self, name: str, sets: ConceptSets, table: ImageTable, shown: Shown) -> ConceptPair:
        assert shown.concepts is not None
        rng = np.random.default_rng([shown.seed, *name.encode()])
        make = self._cut if self.how == "cut" else self._whole
        positive, negative = make(name, table, shown.concepts, shown.size, rng)
        valid = {label for label, concept in sets.names("valid") if normal(concept) == normal(name)}
        classes = None if not valid else tuple(label for label in table.classes if label not in valid)
        return ConceptPair(positive, negative, classes=classes)

    def _whole(
        self, name: str, table: ImageTable, concepts: ConceptTable, size: int, rng: np.random.Generator
    ) -> tuple[ConceptImages, ConceptImages]:
        has = concepts.present([name])[:, 0]
        sides: list[list[np.ndarray]] = [[], []]
        for label in range(len(table.classes)):
            own = table.labels == label
            rows = [rng.permutation(np.flatnonzero(own & (has == shows))) for shows in (True, False)]
            count = min(map(len, rows))
            for side, found in zip(sides, rows, strict=True):
                side.append(found[:count])
        with_it, without = (evenly(side, self.images, np.random.default_rng(0)) for side in sides)
        if len(with_it) < LEAST:
            raise DataError(
                f"concept_images: {len(with_it)} audit images with {name!r} have a fellow of their class without it; "
                f"expected {LEAST} or more (concept_images.how=cut needs none)"
            )
        return (
            ConceptImages(name, _seen(table, with_it, size), "audit images with it"),
            ConceptImages(f"no {name}", _seen(table, without, size), "audit images of the same classes without it"),
        )

    def _cut(
        self, name: str, table: ImageTable, concepts: ConceptTable, size: int, rng: np.random.Generator
    ) -> tuple[ConceptImages, ConceptImages]:
        frame = concepts.frame[(concepts.frame["mask"] >= 0) & (concepts.frame["area"] >= COVERED)]
        own = frame[frame["concept"] == name]
        kind = concepts.kinds()[name]
        others = frame[(frame["kind"] == kind) & ~frame["concept"].isin([name, UNKNOWN])]
        found = []
        for label, part in ((name, own), (f"other {kind}", others)):
            if len(part) < LEAST:
                raise DataError(
                    f"concept_images: {len(part)} masks of {label} in the audit images; expected {LEAST} or more; "
                    "concept_images.how=whole needs no masks"
                )
            labels = table.labels[part["row"]]
            by_class = [np.flatnonzero(labels == own_label) for own_label in range(len(table.classes))]
            taken = part.iloc[evenly(by_class, self.images, rng)]
            images = _seen(table, taken["row"].to_numpy(), size)
            masks = [_enlarged(concepts.masks[mask], size) for mask in taken["mask"]]
            found.append(masked(label, list(images), masks, size))
        return found[0], found[1]


def _seen(table: ImageTable, rows: np.ndarray, size: int) -> np.ndarray:
    view = EvalTransform(size)
    return np.stack([np.asarray(view(table.image(int(row))).permute(1, 2, 0)) for row in rows])


def _enlarged(mask: np.ndarray, size: int) -> np.ndarray:
    grown = Image.fromarray(mask.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR)
    found = np.asarray(grown)
    return np.asarray(found >= min(0.5, float(found.max()) / 2)).astype(np.float32)
