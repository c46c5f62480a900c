"""Packed scene graphs: the samples of a set as memory maps of one folder, written by `pack`; fast to read, whole."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from aaca.data.scenegraph.arrays import json_object
from aaca.data.scenegraph.batch import GraphItem
from aaca.data.scenegraph.columns import Schema, check_columns, read_columns
from aaca.data.scenegraph.graph import Counts, SceneGraph
from aaca.data.scenegraph.nodes import Nodes
from aaca.data.scenegraph.vocabulary import Words
from aaca.runtime.errors import DataError
from aaca.runtime.files import file_sha256

FeatureType = Literal["float16", "float32"]
SCHEMA, ABOUT, NAMES = 1, "graphs.json", "node_names.json"
KINDS = ("object", "attribute", "relationship")
"""What owns a node of each type."""
PARTS = ("nodes", "edges", "flow", "words", "name", "phrase", "region", "references")
"""What a sample has rows or bytes of, each in the column of that name."""


def columns_of(dtype: str, feature_size: int, global_size: int) -> Schema:
    """The columns of a packed set."""
    return {
        "features": (dtype, (feature_size,)),
        "globals": ("float32", (global_size,)),
        # type, order, x1, y1, x2, y2, row of the feature, name, owner's id, attribute's index
        "nodes": ("int64", (10,)),
        "edges": ("int16", (3,)),
        "flow": ("float32", (3,)),  # target, source, weight
        "words": ("int32", ()),
        **{name: ("uint8", ()) for name in PARTS[4:]},
        "index": ("int64", (len(PARTS), 2)),  # of each part: where it begins, how long it is
        "images": ("int64", ()),
        "dropped": ("int64", (3,)),
    }


class PackedGraphs:
    """A set that `pack` wrote: the samples of the `GraphSet` it was made from, features rounded to the stored type.

    Maps are opened at the first read, in each process anew; what is pickled is the folder and its description.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.about = folder, about

    @classmethod
    def open(cls, folder: Path) -> "PackedGraphs":
        """The packed set of a folder. Raises `DataError` where there is none, or where a file of it is incomplete."""
        about = json_object(folder / ABOUT)
        if about.get("schema") != SCHEMA:
            raise DataError(f"{folder / ABOUT}: schema {about.get('schema')}; expected {SCHEMA}")
        try:
            found: Schema = {name: (one["dtype"], tuple(one["shape"][1:])) for name, one in about["columns"].items()}
            (dtype, width), (_, image_width) = found["features"], found["globals"]
            fits = dtype in get_args(FeatureType) and found == columns_of(dtype, *width, *image_width)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{folder / ABOUT}: not the description of packed graphs") from error
        if not fits:
            raise DataError(f"{folder / ABOUT}: describes other columns than those of packed graphs")
        read_columns(folder, about["columns"])
        return cls(folder, about)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "about": self.about}

    def __len__(self) -> int:
        return int(self.about["columns"]["index"]["shape"][0])

    @property
    def global_size(self) -> int:
        """G, the width of an image's feature."""
        return int(self.about["columns"]["globals"]["shape"][1])

    @property
    def feature_size(self) -> int:
        """F, the width of a region's feature."""
        return int(self.about["columns"]["features"]["shape"][1])

    @property
    def length(self) -> int:
        """The most words a caption has, with BOS and EOS."""
        return int(self.about["length"])

    @cached_property
    def words(self) -> Words:
        """The vocabulary of the captions."""
        return Words.load(self.folder)

    def name(self, i: int) -> str:
        """`<image id>_<region id>` of sample `i`."""
        return self._text(i, "name")

    def phrase(self, i: int) -> str:
        """The caption of sample `i`."""
        return self._text(i, "phrase")

    def region(self, i: int) -> dict[str, Any]:
        """The record of sample `i` as its JSON file had it."""
        return dict(json.loads(self._text(i, "region")))

    def graph(self, i: int) -> SceneGraph:
        """The whole scene graph of sample `i`."""
        return SceneGraph.from_region(self.region(i), f"{self.folder}: {self.name(i)}")

    def references(self) -> dict[str, list[str]]:
        """The reference captions of each sample, by name."""
        return {self.name(i): list(json.loads(self._text(i, "references"))) for i in range(len(self))}

    def item(self, i: int) -> GraphItem:
        """Sample `i` as a captioner takes it."""
        columns = self._columns
        (node, nodes), (edge, edges), (flow, flows), (word, words) = columns["index"][i, :4].tolist()
        table = columns["nodes"][node : node + nodes]
        types, order, rows = table[:, 0].copy(), table[:, 1].copy(), table[:, 6]
        steps = columns["flow"][flow : flow + flows]
        matrix = np.zeros((nodes, nodes), np.float32)
        target, origin = steps[:, :2].T.astype(np.int64)
        matrix[target, origin] = steps[:, 2]
        told = self._names
        names, owners = [], []
        for kind, name, owner, k in table[:, [0, 7, 8, 9]].tolist():
            names.append(told[name])
            owners.append((KINDS[kind], owner, k))
        boxes, links = table[:, 2:6].astype(np.int32), columns["edges"][edge : edge + edges].astype(np.int64)
        dropped = Counts(*columns["dropped"][i].tolist())
        return GraphItem(
            Nodes(types, order, tuple(names), boxes, links, matrix, tuple(owners), dropped),
            columns["globals"][columns["images"][i]].astype(np.float32),
            torch.from_numpy(columns["features"][rows]).float().numpy(),  # several times faster than numpy's from half
            columns["words"][word : word + words].astype(np.int64),
            i,
        )

    def verify(self) -> None:
        """Raise `DataError` where a file's bytes are not those that were packed (reads everything)."""
        for name, wanted in self.about["files"].items():
            file = self.folder / name
            if not file.is_file() or file_sha256(file) != wanted:
                raise DataError(f"{file}: its bytes have changed since it was written")
        check_columns(self.folder, self.about["columns"])

    def _text(self, i: int, part: str) -> str:
        start, length = self._columns["index"][i, PARTS.index(part)].tolist()
        return self._columns[part][start : start + length].tobytes().decode("utf-8", "surrogatepass")

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        return read_columns(self.folder, self.about["columns"])

    @cached_property
    def _names(self) -> list[str]:
        return list(json.loads((self.folder / NAMES).read_text(encoding="utf-8")))
