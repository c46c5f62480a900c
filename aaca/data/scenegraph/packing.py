"""Packing scene graphs: the samples of a set into one folder of columns, each region's feature once."""

import json
import uuid
from collections import defaultdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
from rich.progress import track

from aaca.data.scenegraph.columns import ColumnWriter
from aaca.data.scenegraph.samples import GraphSet
from aaca.data.scenegraph.store import ABOUT, NAMES, PARTS, SCHEMA, FeatureType, PackedGraphs, columns_of
from aaca.data.scenegraph.vocabulary import INT2WORD, WORD2INT
from aaca.runtime.errors import ConfigError, DataError, nearest
from aaca.runtime.files import file_sha256, remove_tree, write_json
from aaca.runtime.log import console


def pack(graph_set: GraphSet, folder: Path, dtype: FeatureType = "float16") -> "PackedGraphs":
    """Write all samples of `graph_set` into `folder` (made; must not exist), with `dtype` features of the regions.

    Whole regions go in too (`graph`), and the hashes of the files that name samples, images and words and of the
    images' features; of JSON and HDF5 files the contents alone. Raises `ConfigError` for another type, `DataError` as
    `GraphSet.item` does, where `folder` exists, and where a feature does not fit the type; then nothing is left behind.
    """
    if dtype not in get_args(FeatureType):
        raise ConfigError(f"dtype: {dtype!r}; {nearest(dtype, get_args(FeatureType))}")
    if folder.exists():
        raise DataError(f"{folder}: exists; expected a new folder")
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir(parents=True)
    try:
        _Packer(graph_set, temporary, dtype).run()
        temporary.rename(folder)
    finally:
        remove_tree(temporary)
    return PackedGraphs.open(folder)


class _Packer:
    def __init__(self, source: GraphSet, folder: Path, dtype: FeatureType) -> None:
        self.source, self.folder, n = source, folder, len(source)
        self.schema = columns_of(dtype, source.feature_size, source.global_size)
        self.index = np.zeros((n, len(PARTS), 2), np.int64)
        self.images, self.dropped = np.zeros(n, np.int64), np.zeros((n, 3), np.int64)
        self.names: dict[str, int] = {}

    def run(self) -> None:
        source = self.source
        cleaned = source.references() if self._has_references() else None
        of_image: defaultdict[str, list[int]] = defaultdict(list)
        for i, image_id in enumerate(source.samples[:, 0].tolist()):
            of_image[image_id].append(i)
        self.writer = ColumnWriter(self.folder, self.schema)
        try:
            for samples in track(of_image.values(), "pack graphs", console=console, transient=True):
                image, _ = self.writer.add("globals", source.image(samples[0]))
                rows: dict[int, int] = {}
                for i in samples:
                    self.images[i] = image
                    self._add(i, rows, cleaned[source.name(i)] if cleaned else [source.phrase(i)])
            for name in ("index", "images", "dropped"):
                self.writer.add(name, getattr(self, name))
            columns = self.writer.close()
        finally:
            self.writer.abandon()
        source.words.save(self.folder)
        (self.folder / NAMES).write_text(json.dumps(list(self.names)), encoding="utf-8")
        write_json(self.folder / ABOUT, self._about(columns))

    def _add(self, i: int, rows: dict[int, int], references: list[str]) -> None:
        # rows: of this image, where in `features` a row of its HDF5 file went
        source, add, text = self.source, self.writer.add, self.writer.add_text
        graph, placed = source.graph(i), source.placed(i)
        nodes, features = placed.nodes, source.regions(i).features
        for row in placed.rows.tolist():
            if row not in rows:
                rows[row], _ = add("features", features[row])
        named = [self.names.setdefault(name, len(self.names)) for name in nodes.names]
        packed = [rows[row] for row in placed.rows.tolist()]
        try:
            owners = np.array([owner[1:] for owner in nodes.owners], np.int64).reshape(-1, 2)
        except OverflowError as error:
            raise DataError(f"{source.name(i)}: an id of more than 64 bits") from error
        table = np.column_stack([nodes.types, nodes.order, nodes.boxes, packed, named, owners])
        target, origin = np.nonzero(nodes.flow)
        parts = {
            "nodes": add("nodes", table),
            "edges": add("edges", nodes.edges),
            "flow": add("flow", np.column_stack([target, origin, nodes.flow[target, origin]])),
            "words": add("words", source.words.encode(graph.phrase, source.length)),
            "name": text("name", source.name(i)),
            "phrase": text("phrase", graph.phrase),
            "region": text("region", json.dumps(source.region(i))),
            "references": text("references", json.dumps(references)),
        }
        self.index[i] = [parts[name] for name in PARTS]
        self.dropped[i] = (nodes.dropped.objects, nodes.dropped.attributes, nodes.dropped.relationships)

    def _has_references(self) -> bool:
        return self.source.layout.references_file(self.source.set_name).is_file()

    def _about(self, columns: dict[str, dict[str, Any]]) -> dict[str, Any]:
        source, layout = self.source, self.source.layout
        files = [layout.samples_file(source.set_name), layout.images_file(source.set_name)]
        files += [layout.globals_file(source.set_name), layout.words / INT2WORD]
        files += [layout.references_file(source.set_name)] if self._has_references() else []
        return {
            "schema": SCHEMA,
            "set": source.set_name,
            "limit": source.limit,
            "length": source.length,
            "policy": layout.policy,
            "box_mode": layout.box_mode,
            "on_missing_box": source.on_missing_box,
            "report": source.report.summary(),
            "inputs": {str(file): file_sha256(file) for file in files},
            "files": {name: file_sha256(self.folder / name) for name in (NAMES, WORD2INT, INT2WORD)},
            "columns": columns,
        }
