"""`Bffhq`: faces whose gender gives their age away (or the other way round), as published with DFA."""

import re
from pathlib import PurePosixPath
from typing import Literal, get_args

import pandas as pd

from aaca.data.confounded import ConfoundedFiles, Rows
from aaca.data.listing import Listing, folders_in, list_files
from aaca.runtime.errors import ConfigError, DataError, nearest

Label = Literal["age", "gender"]
AGES = ("young", "old")
GENDERS = ("woman", "man")
NAME = re.compile(r".+_(\d+)_(\d+)")
FORM = "<id>_<age>_<gender>, the latter two 0 or 1"


class Bffhq(ConfoundedFiles):
    """BFFHQ: of FFHQ's faces, nearly all of train are young women or old men (Lee et al., NeurIPS 2021).

    `root` holds `<percent>pct/{align,conflict}/{0,1}/*.png`, `valid/` and `test/`, files named id_age_gender. A train
    file with such a name must agree with its folders; one without is what its folders say (its age, and whether the
    gender has the same number). Nothing tells which person a photo shows, so no `source` is known.

    Args:
        root: the folder.
        label: age (of DFA's authors; gender is the bias) | gender (of Concept Distillation's; age is the bias).
        percent: share of conflicting images in train, in %: which of the folders `<percent>pct`.
        ages: what the age numbers 0 and 1 mean.
        genders: the same of gender; an image is aligned where both numbers are equal.
        pool_share: share of each group of `valid` that becomes the pool; the rest is audit.
        per_class: images a class of each split; null: all.
        seed: of the division and of what `per_class` leaves out.

    """

    name = "bffhq"

    def __init__(
        self,
        root: str,
        label: Label = "age",
        percent: float = 0.5,
        ages: list[str] | None = None,
        genders: list[str] | None = None,
        pool_share: float = 0.5,
        per_class: dict[str, int | None] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(root, pool_share, per_class, seed)
        if label not in get_args(Label):
            raise ConfigError(f"dataset.label: {label!r}; {nearest(label, get_args(Label))}")
        names = {"age": tuple(AGES if ages is None else ages), "gender": tuple(GENDERS if genders is None else genders)}
        for key, given in names.items():
            if len(given) != 2 or len(set(given)) != 2:
                raise ConfigError(f"dataset.{key}s: {list(given)}; expected 2 different names, of number 0 and of 1")
        self.label, self.percent = label, percent
        self.kind = "gender" if label == "age" else "age"
        self.classes, self.values = names[label], names[self.kind]

    def _group(self, label: int, value: int) -> str:
        class_, other = self.classes[label], self.values[value]
        return f"{class_} {other}" if self.label == "age" else f"{other} {class_}"

    def _list(self) -> Rows:
        folders, _ = folders_in(self.root)
        train = f"{self.percent:g}pct"
        for key, name in (("percent", train), ("root", "valid"), ("root", "test")):
            if name not in folders:
                raise DataError(f"dataset.{key}: no folder {name!r} in {str(self.root)!r}; {nearest(name, folders)}")
        parts = [self._train(f"{train}/{kind}/{age}") for kind in self._kinds() for age in (0, 1)]
        parts += [self._named("valid", "val"), self._named("test", "test")]
        frame = pd.concat([frame for frame, _ in parts], ignore_index=True)
        frame = frame.assign(id=frame["path"], label=frame[self.label], value=frame[self.kind])
        return frame.drop(columns=["age", "gender"]), [row for _, refused in parts for row in refused]

    def _kinds(self) -> tuple[str, ...]:
        return ("align", "conflict") if self.percent else ("align",)

    def _train(self, folder: str) -> Rows:
        # one of 0.5pct/{align,conflict}/{0,1}
        if not (self.root / folder).is_dir():
            raise DataError(f"dataset.root: no folder {folder!r} in {str(self.root)!r}")
        listing = list_files(self.root, folder)
        _, kind, number = folder.split("/")
        own = (int(number), int(number) if kind == "align" else 1 - int(number))
        said = [self._numbers(path) or own for path in listing.frame["path"]]
        for path, numbers in zip(listing.frame["path"], said, strict=True):
            if numbers != own:
                raise DataError(
                    f"dataset.root: {self.root / path} says age {numbers[0]}, gender {numbers[1]}, "
                    f"its folders say {own[0]}, {own[1]}; expected the same of both"
                )
        if listing.frame.empty:
            raise DataError(f"dataset.root: no image in {str(self.root / folder)!r} ({len(listing.refused)} refused)")
        return _with(listing, said, "train"), listing.refused

    def _named(self, folder: str, split: str) -> Rows:
        listing = list_files(self.root, folder)
        said = [self._numbers(path) for path in listing.frame["path"]]
        known = [numbers is not None for numbers in said]
        strange = listing.frame["path"][[not one for one in known]]
        refused = [{"path": str(self.root / path), "reason": f"the name is not {FORM}"} for path in strange]
        kept = Listing(listing.frame[known].reset_index(drop=True), [*listing.refused, *refused])
        return _with(kept, [numbers for numbers in said if numbers is not None], split), kept.refused

    def _numbers(self, path: str) -> tuple[int, int] | None:
        """Age and gender in a file's name, None where it carries none. Raises `DataError` for other numbers."""
        match = NAME.fullmatch(PurePosixPath(path).stem)
        if match is None:
            return None
        if not {*match.groups()} <= {"0", "1"}:
            raise DataError(f"dataset.root: {self.root / path} has age {match[1]}, gender {match[2]}; expected {FORM}")
        return int(match[1]), int(match[2])


def _with(listing: Listing, said: list[tuple[int, int]], split: str) -> pd.DataFrame:
    numbers = pd.DataFrame(said, columns=["age", "gender"], dtype="int64")
    return listing.frame.assign(age=numbers["age"], gender=numbers["gender"], split=split)
