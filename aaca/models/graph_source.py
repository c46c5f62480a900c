"""`GraphSource`, the role of the `graphs` group: captioned scene graphs, always in a released layout."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from aaca.data.graph_writer import VERSION
from aaca.data.scenegraph.arrays import text_array
from aaca.data.scenegraph.layout import Layout
from aaca.data.scenegraph.nodes import BoxMode
from aaca.data.scenegraph.set_files import files_of
from aaca.data.shape_grammar import check_shapes, write_shapes
from aaca.data.stamp_captions import StampCaptions
from aaca.runtime.errors import ConfigError, nearest
from aaca.runtime.files import file_sha256

Embed = Callable[[np.ndarray], np.ndarray]
KINDS = ("coco", "vg", "ega", "path_json")


class GraphSource(ABC):
    """Sets of captioned graphs. `train`, `val`, `test`: their names."""

    train: str
    val: str
    test: str
    embeds: bool = False  # whether region features are made here, by the embedder
    drawn: bool = False  # whether `images/<image id>.png` lie in the folder

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What influences the files of all sets."""

    def set_fingerprint(self, name: str) -> Any:
        """What says that the files of one set are the same, where they are given and not written."""
        return None

    def image_ids(self, name: str) -> set[str]:
        """Those of the samples of a set that is given; none of one that is written."""
        return set()

    @abstractmethod
    def lay_out(self, folder: Path, embed: Embed | None, crop_size: int, features: Mapping[str, Any]) -> None:
        """Write what there is to write into `folder`."""

    @abstractmethod
    def layout(self, folder: Path) -> Layout:
        """Where everything lies, after `lay_out(folder)`."""


class _Written(GraphSource):
    train, val, test = "trn", "val", "tst"
    drawn = True

    def layout(self, folder: Path) -> Layout:
        """See `GraphSource`."""
        own = Layout.ega(folder)
        return replace(own, sets=("trn", "val", "val_sub", "tst"))


class EmbeddedGraphs(_Written):
    """The embedded world's scenes with graphs and captions; arguments as `StampCaptions`."""

    embeds = True

    def __init__(
        self,
        images: dict[str, int] | None = None,
        regions: tuple[int, int] = (4, 6),
        image_size: int = 128,
        test_sources: Literal["train", "test"] = "train",
        seed: int = 0,
    ) -> None:
        self.images, self.regions, self.image_size = images, regions, image_size
        self.test_sources, self.seed = test_sources, seed
        self._writer()

    def _writer(self) -> StampCaptions:
        return StampCaptions(self.images, None, self.regions, self.image_size, self.test_sources, self.seed)

    def fingerprint(self) -> dict[str, Any]:
        """All arguments and the world's versions."""
        return self._writer().fingerprint()

    def lay_out(self, folder: Path, embed: Embed | None, crop_size: int, features: Mapping[str, Any]) -> None:
        """Render, embed and write all sets."""
        assert embed is not None
        self._writer().build(folder, embed, crop_size, features)


class ShapeGraphs(_Written):
    """Coloured shapes with a grammar (V = 19): learnt in a minute. Features are a fixed random layer on pixels."""

    def __init__(self, images: dict[str, int] | None = None, regions: int = 6, seed: int = 0) -> None:
        check_shapes(images, regions, seed)
        self.images, self.regions, self.seed = images, regions, seed

    def fingerprint(self) -> dict[str, Any]:
        """All arguments, and the writer's version."""
        return {"graphs": "shapes", **vars(self), "writer": VERSION}

    def lay_out(self, folder: Path, embed: Embed | None, crop_size: int, features: Mapping[str, Any]) -> None:
        """Draw and write all sets."""
        write_shapes(folder, self.images, self.regions, self.seed)


class ReleasedGraphs(GraphSource):
    """Files in a released layout, read where they lie.

    Args:
        root: the folder MSCOCO or VisualGenome of ASG2Caption, EGA's root, or the file path.json.
        kind: coco | vg | ega | path_json.
        train: and `val`, `test`: names of the sets.
        box_mode: how boxes end, where it is not the layout's own: inclusive | exclusive.

    """

    def __init__(
        self,
        root: str,
        kind: Literal["coco", "vg", "ega", "path_json"],
        train: str = "trn",
        val: str = "val",
        test: str = "tst",
        box_mode: BoxMode | None = None,
    ) -> None:
        if kind not in KINDS:
            raise ConfigError(f"graphs.kind: {kind!r}; {nearest(kind, KINDS)}")
        self.root, self.kind, self.train, self.val, self.test, self.box_mode = root, kind, train, val, test, box_mode
        self._files: dict[str, dict[str, Any]] = {}

    def fingerprint(self) -> dict[str, Any]:
        """Where they lie and how they are read. Raises `ConfigError` where the root is missing.

        Which sets are used is no part of it: another test set needs no other captioner.
        """
        root = Path(self.root)
        if not root.exists():
            raise ConfigError(f"graphs.root: nothing at {self.root}; expected the data of {self.kind}")
        found = {"graphs": "released", "root": str(root.absolute()), "kind": self.kind, "box_mode": self.box_mode}
        if self.kind != "path_json":
            return found
        if not root.is_file():
            raise ConfigError(f"graphs.root: {self.root} is no file; expected path.json itself")
        return {**found, "path_json": file_sha256(root)}

    def set_fingerprint(self, name: str) -> Any:
        """`files_of` the set, as they were when it was first asked. Raises `ConfigError` where there is no such set."""
        if name not in self._files:
            layout = self.layout(Path())
            layout.check(name)
            listed = layout.samples_file(name)
            if not listed.is_file():
                raise ConfigError(f"graphs: set {name!r}: no file {listed}; sets here: {', '.join(layout.sets)}")
            self._files[name] = files_of(layout, name)
        return self._files[name]

    def image_ids(self, name: str) -> set[str]:
        """See `GraphSource`. Raises `DataError` where the set's list is not readable."""
        return set(text_array(self.layout(Path()).samples_file(name), columns=2)[:, 0].tolist())

    def lay_out(self, folder: Path, embed: Embed | None, crop_size: int, features: Mapping[str, Any]) -> None:
        """Nothing: the files are there."""

    def layout(self, folder: Path) -> Layout:
        """See `GraphSource`."""
        root = Path(self.root)
        if self.kind == "path_json":
            return Layout.from_path_json(root, self.box_mode)
        own = {"coco": Layout.coco, "vg": Layout.visual_genome, "ega": Layout.ega}[self.kind](root)
        return own if self.box_mode is None else replace(own, box_mode=self.box_mode)
