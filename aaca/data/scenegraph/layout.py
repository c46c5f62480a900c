"""The three layouts in which scene graphs for captioning were released (ASG2Caption's COCO and Visual Genome, EGA)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aaca.data.scenegraph.arrays import json_object
from aaca.data.scenegraph.nodes import BoxMode, Policy
from aaca.data.scenegraph.vocabulary import INT2WORD, WORD2INT
from aaca.runtime.errors import ConfigError, DataError, nearest

GLOBAL, REGION = Path("MP", "resnet101.ctrl"), Path("SA", "X_101_32x8d")
"""Folders of the released features: of whole images, and of regions."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the files of a data set lie, and how its boxes count; every field can be set by hand."""

    annotation: Path
    """Folder of `cleaned_<set>_region_descriptions.json`."""
    words: Path
    """Folder of word2int.json and int2word.npy."""
    regions: Path
    """Folder of `<set>_names.npy` (the samples) and `<image id>.json` (their graphs)."""
    split: Path
    """Folder of `<set>_names.npy` (the images, in the order of their feature rows)."""
    globals: Path
    """Folder of `<set>_ft.npy` (features of whole images)."""
    objects: tuple[Path, ...]
    """Folders of `<image id with _ for />.jpg.hdf5` (features of regions); an image's file lies in one of them."""
    sets: tuple[str, ...]
    """Names of the sets."""
    box_mode: BoxMode = "inclusive"
    """inclusive: x2 = x + w - 1 (COCO, EGA); exclusive: x2 = x + w (Visual Genome)."""
    policy: Policy = "objects_first"
    """Which nodes stay where a graph has too many (`nodes_of`)."""

    @classmethod
    def coco(cls, root: Path) -> "Layout":
        """ASG2Caption's folder MSCOCO; its region features lie in two folders."""
        annotation, features = root / "annotation" / "controllable", root / "ordered_feature"
        return cls(
            annotation=annotation,
            words=annotation,
            regions=annotation / "regionfiles",
            split=annotation / "public_split",
            globals=features / GLOBAL,
            objects=(features / REGION / "objrels", features / REGION / "o2" / "objrels"),
            sets=("trn", "val", "tst"),
        )

    @classmethod
    def visual_genome(cls, root: Path) -> "Layout":
        """ASG2Caption's folder VisualGenome; its boxes end beyond their last pixel."""
        annotation, features = root / "annotation", root / "ordered_feature"
        return cls(
            annotation=annotation,
            words=annotation,
            regions=annotation / "regionfiles",
            split=root / "public_split",
            globals=features / GLOBAL,
            objects=(features / REGION / "objrels", features / REGION / "o2" / "objrels"),
            sets=("trn", "val", "tst"),
            box_mode="exclusive",
        )

    @classmethod
    def ega(cls, root: Path) -> "Layout":
        """The root of EGA (SA3)."""
        annotation, features = root / "annotation", root / "features"
        return cls(
            annotation=annotation,
            words=annotation,
            regions=annotation / "regionfiles",
            split=annotation / "public_split",
            globals=features / GLOBAL,
            objects=(features / REGION / "objrels",),
            sets=("trn", "val", "val_sub", "val_sub_opt"),
        )

    @classmethod
    def from_path_json(cls, file: Path, box_mode: BoxMode | None = None) -> "Layout":
        """The layout that upstream's path.json describes; paths in it that are not absolute start at its folder.

        Without `box_mode`, boxes are exclusive where the path of the names has "VisualGenome" in it, as upstream.
        obj_ft_dir may list several folders a set. Raises `DataError` where a key is missing, or where sets lie in
        different folders or under other names than `<set>_names.npy` and `<set>_ft.npy`.
        """
        paths = _PathJson(file)
        split = paths.folder("name_file", "{}_names.npy")
        regions = paths.folder("region_anno_dir")
        words = {paths.plain("word2int_file", WORD2INT), paths.plain("int2word_file", INT2WORD)}
        if len(words) > 1:
            raise DataError(f"{file}: word2int_file and int2word_file lie in different folders; expected one")
        return cls(
            annotation=regions.parent,
            words=words.pop(),
            regions=regions,
            split=split,
            globals=paths.folder("mp_ft_file", "{}_ft.npy"),
            objects=paths.all_folders("obj_ft_dir"),
            sets=paths.sets,
            box_mode=box_mode or ("exclusive" if "VisualGenome" in str(split) else "inclusive"),
        )

    def check(self, set_name: str) -> None:
        """Raise `ConfigError` where there is no such set, `DataError` where a folder of the layout is missing."""
        if set_name not in self.sets:
            raise ConfigError(f"set: {set_name!r}; {nearest(set_name, self.sets)}")
        for folder in (self.words, self.regions, self.split, self.globals):
            if not folder.is_dir():
                raise DataError(f"{folder}: no such folder")
        if not any(folder.is_dir() for folder in self.objects):
            raise DataError(f"{' or '.join(map(str, self.objects))}: no such folder")

    def samples_file(self, set_name: str) -> Path:
        """The samples `[n, 2]` (image id, region id) of a set."""
        return self.regions / f"{set_name}_names.npy"

    def images_file(self, set_name: str) -> Path:
        """The image files `[images]` of a set, one a row of `globals_file`."""
        return self.split / f"{set_name}_names.npy"

    def globals_file(self, set_name: str) -> Path:
        """The features `[images, G]` of a set's images."""
        return self.globals / f"{set_name}_ft.npy"

    def references_file(self, set_name: str) -> Path:
        """The reference captions of a set; only test sets have them."""
        return self.annotation / f"cleaned_{set_name}_region_descriptions.json"


class _PathJson:
    def __init__(self, file: Path) -> None:
        self.file, self.config = file, json_object(file)
        keys = ("word2int_file", "int2word_file", "mp_ft_file", "name_file", "region_anno_dir", "obj_ft_dir")
        lacking = [key for key in keys if key not in self.config]
        if lacking:
            raise DataError(f"{file}: no {', '.join(lacking)}; expected upstream's path.json")
        names = self.config["name_file"]
        self.sets = tuple(names) if isinstance(names, dict) else ()
        if not self.sets:
            raise DataError(f"{file}: name_file has no sets; expected {{set: path}}")

    def plain(self, key: str, name: str) -> Path:
        return self._parent(key, self._path(key, self.config[key]), name)

    def folder(self, key: str, name: str | None = None) -> Path:
        folders = set()
        for set_name in self.sets:
            path = self._path(key, self._of_set(key, set_name))
            folders.add(path if name is None else self._parent(key, path, name.format(set_name)))
        if len(folders) > 1:
            raise DataError(
                f"{self.file}: {key}: {', '.join(sorted(map(str, folders)))}; expected one folder for all sets"
            )
        return folders.pop()

    def all_folders(self, key: str) -> tuple[Path, ...]:
        found: dict[Path, None] = {}
        for set_name in self.sets:
            value = self._of_set(key, set_name)
            found.update((self._path(key, one), None) for one in (value if isinstance(value, list) else [value]))
        return tuple(found)

    def _of_set(self, key: str, set_name: str) -> Any:
        of_sets = self.config[key]
        if not isinstance(of_sets, dict) or set_name not in of_sets:
            raise DataError(f"{self.file}: {key}: nothing for set {set_name!r}; expected {{set: path}}")
        return of_sets[set_name]

    def _path(self, key: str, value: Any) -> Path:
        if not isinstance(value, str) or not value:
            raise DataError(f"{self.file}: {key}: {value!r}; expected a path")
        return self.file.parent / value

    def _parent(self, key: str, path: Path, name: str) -> Path:
        if path.name != name:
            raise DataError(f"{self.file}: {key}: {path.name}; expected {name}")
        return path.parent
