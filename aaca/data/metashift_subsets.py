"""MetaShift's list of subsets ("dog(water)" → image ids): a pickle that may hold nothing but sets of text, or JSON."""

import pickle
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from aaca.data.confounded import Rows
from aaca.data.listing import stat_files
from aaca.data.splits import stable_ranks
from aaca.runtime.errors import ConfigError, DataError, nearest
from aaca.runtime.files import read_json

NAME = "full-candidate-subsets"
FOLDERS = ("dataset/meta_data", "")
"""Where in `root` the list may lie: as MetaShift has it, as CCE has it. Of a pickle and JSON the pickle counts."""

_BUILTINS = [(module, name) for module in ("builtins", "__builtin__") for name in ("set", "frozenset", "list", "dict")]
ALLOWED = frozenset([("collections", "defaultdict"), *_BUILTINS])
"""What the pickle may name (text needs no name): everything else could run code. The underscores are old protocols'."""

IMAGES = ("data/allImages/images", "allImages/images")
"""Where in `root` the images may lie, as before. The first found counts."""

SCENARIO = re.compile(r"([^:()]+):([^:()]+)\(([^()]+)\)")
EXAMPLE = "bear-bird-cat-dog-elephant:dog(water)"

Subsets = dict[str, frozenset[str]]


class Scenario(NamedTuple):
    """Which classes there are, in label order, and which of them is trained on one context alone."""

    classes: tuple[str, ...]
    shifted: str
    context: str


class _Plain(pickle.Unpickler):
    """An unpickler of containers and text alone."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}; expected sets of text and nothing else")
        return super().find_class(module, name)


def find_subsets(root: Path, given: str | None) -> Subsets:
    """The subsets in the file `given` (from `root` on), or in the published place. Raises `DataError`."""
    published = [root / at / f"{NAME}{suffix}" for at in FOLDERS for suffix in (".pkl", ".json")]
    paths = published if given is None else [root / Path(given).expanduser()]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        key = "root" if given is None else "subsets"
        raise DataError(f"dataset.{key}: no {paths[0]}; expected MetaShift's list of subsets, as .pkl or .json")
    return read_subsets(path)


def read_subsets(path: Path) -> Subsets:
    """Subset name → ids. Raises `DataError` where the file is broken or holds, or would make, anything else."""
    try:
        if path.suffix == ".json":
            found = read_json(path)
        else:
            with path.open("rb") as stream:
                found = _Plain(stream).load()
    except Exception as error:  # broken bytes make the unpickler fail in any way it likes
        raise DataError(f"{path}: not a list of subsets ({' '.join(str(error).split())})") from error
    if not isinstance(found, Mapping) or not found:
        raise DataError(f"{path}: not a list of subsets; expected subset → image ids")
    for name, ids in found.items():
        texts = isinstance(ids, set | frozenset | list) and all(isinstance(one, str) for one in ids)
        if not isinstance(name, str) or not texts:
            raise DataError(f"{path}: subset {name!r} is not a set of image ids as text")
    return {name: frozenset(ids) for name, ids in found.items()}


def contexts(subsets: Subsets, classes: Collection[str]) -> dict[str, Subsets]:
    """Of each class its contexts, "dog(water)" → dog: water. Raises `ConfigError` where there is no such class."""
    known: dict[str, Subsets] = {}
    for name, ids in subsets.items():
        label, bracket, context = name.partition("(")
        if bracket and context.endswith(")"):
            known.setdefault(label, {})[context[:-1]] = ids
    for label in classes:
        if label not in known:
            raise ConfigError(f"dataset.scenario: MetaShift has no class {label!r}; {nearest(label, known)}")
    return {label: known[label] for label in classes}


def read_scenario(text: str) -> Scenario:
    """What "<class>-<class>:<shifted class>(<context>)" says. Raises `ConfigError` where the text is no scenario."""
    match = SCENARIO.fullmatch(text)
    classes = tuple(match[1].split("-")) if match else ()
    if match is None or "" in classes or len(set(classes)) < max(2, len(classes)):
        raise ConfigError(f"dataset.scenario: {text!r}; expected at least 2 classes and the shift, as in {EXAMPLE}")
    if match[2] not in classes:
        raise ConfigError(f"dataset.scenario: the shifted {match[2]!r} is no class of it; {nearest(match[2], classes)}")
    return Scenario(classes, match[2], match[3])


def list_subsets(root: Path, scenario: Scenario, given: str | None, seed: int) -> Rows:
    """Images of the scenario's classes with group and source; what is missing is left out.

    The split is "train" where the shifted class has its context, else "". An image of several classes goes to a
    pseudo-random one of them. Raises `DataError` where folder or list is missing, `ConfigError` on an unknown class or
    context.
    """
    images = next((name for name in IMAGES if (root / name).is_dir()), None)
    if images is None:
        raise DataError(f"dataset.root: no folder {' or '.join(IMAGES)} in {str(root)!r}")
    classes, shifted, context = scenario
    known = contexts(find_subsets(root, given), classes)
    if context not in known[shifted]:
        raise ConfigError(
            f"dataset.scenario: {shifted!r} has no context {context!r}; {nearest(context, known[shifted])}"
        )
    of_class = {name: frozenset().union(*own.values()) for name, own in known.items()}
    ids = sorted(frozenset().union(*of_class.values()))
    rows = []
    for name, rank in zip(ids, stable_ranks(ids, seed).tolist(), strict=True):
        labels = [label for label, one in enumerate(classes) if name in of_class[one]]
        label = labels[rank % len(labels)]
        inside = name in known[classes[label]].get(context, frozenset())
        group = f"{classes[label]}|{'' if inside else 'no '}{context}"
        rows.append((f"{images}/{name}.jpg", name, label, group, "train" if group == f"{shifted}|{context}" else ""))
    frame = pd.DataFrame(rows, columns=["path", "id", "label", "group", "split"])
    listing = stat_files(root, frame["path"].tolist())
    found = listing.frame.merge(frame, on="path", validate="one_to_one")
    return found.assign(source=found["id"]), listing.refused
