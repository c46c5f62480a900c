"""The samples of one set of a released layout, read from its own files: names, graphs, features, captions."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, get_args

import numpy as np

from aaca.data.scenegraph.arrays import float_matrix, json_object, text_array
from aaca.data.scenegraph.batch import GraphItem
from aaca.data.scenegraph.graph import SceneGraph
from aaca.data.scenegraph.layout import Layout
from aaca.data.scenegraph.placing import OnMissingBox, Placed, place
from aaca.data.scenegraph.regions import RegionFeatures, read_regions, region_file
from aaca.data.scenegraph.vocabulary import Words
from aaca.runtime.errors import ConfigError, DataError, nearest

SHORTEST = 3
"""The least `length` of captions: begin, one word, end."""


class ReadReport:
    """What the samples that were read lacked. A sample counts once, however often it is read."""

    def __init__(self) -> None:
        self.counts: defaultdict[str, dict[int, int]] = defaultdict(dict)

    def note(self, row: int, **counts: int) -> None:
        """Remember the counts of sample `row` that are not 0."""
        for name, count in counts.items():
            if count:
                self.counts[name][row] = count

    def summary(self) -> dict[str, dict[str, int]]:
        """{name: {total, samples}} of all that occurred: missing_boxes, unknown_words, cut_words, dropped_…"""
        return {name: {"total": sum(rows.values()), "samples": len(rows)} for name, rows in sorted(self.counts.items())}


@dataclass(eq=False, repr=False)
class GraphSet:
    """The samples of a set, each read from its JSON and HDF5 file when it is asked for. Begin with `open`."""

    layout: Layout
    set_name: str
    limit: int
    length: int
    on_missing_box: OnMissingBox
    words: Words
    samples: np.ndarray
    """`[n, 2]` text: image id, region id."""
    image_rows: Mapping[str, int]
    """The row of each image id among the images' features."""
    report: ReadReport = field(default_factory=ReadReport)
    """What was wrong with the samples read so far by this process; `survey` reads them all."""
    _globals: np.ndarray | None = field(default=None, init=False)
    _records: tuple[str, dict[str, Any]] | None = field(default=None, init=False)
    _regions: tuple[str, RegionFeatures] | None = field(default=None, init=False)

    @classmethod
    def open(
        cls, layout: Layout, set_name: str, limit: int = 10, length: int = 25, on_missing_box: OnMissingBox = "error"
    ) -> "GraphSet":
        """The set `set_name`: graphs of at most `limit` nodes, captions of at most `length` words with BOS and EOS.

        Raises `ConfigError` for a wrong argument, `DataError` where files are missing, are not what they should be or
        do not fit each other (as many images as rows of features; every sample's image among them; no name twice), and
        where an image id would lead out of its folder.
        """
        for key, value, least in (("limit", limit, 1), ("length", length, SHORTEST)):
            if value < least:
                raise ConfigError(f"{key}: {value}; expected {least} or more")
        if on_missing_box not in get_args(OnMissingBox):
            raise ConfigError(f"on_missing_box: {on_missing_box!r}; {nearest(on_missing_box, get_args(OnMissingBox))}")
        layout.check(set_name)
        image_rows = _image_rows(layout.images_file(set_name))
        file = layout.globals_file(set_name)
        rows = len(float_matrix(file))
        if rows != len(image_rows):
            raise DataError(
                f"{file}: {rows} rows, but {layout.images_file(set_name)} names {len(image_rows)} images; "
                "expected one row an image, in that order"
            )
        samples = _samples(layout.samples_file(set_name), image_rows)
        words = Words.load(layout.words)
        return cls(layout, set_name, limit, length, on_missing_box, words, samples, image_rows)

    def __len__(self) -> int:
        return len(self.samples)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_globals": None, "_records": None, "_regions": None}

    @property
    def global_size(self) -> int:
        """G, the width of an image's feature."""
        return int(self._images().shape[1])

    @property
    def feature_size(self) -> int:
        """F, the width of a region's feature (that of the first sample). Raises `DataError` for a set without any."""
        if len(self) == 0:
            raise DataError(f"{self.layout.samples_file(self.set_name)}: no samples")
        return int(self.regions(0).features.shape[1])

    def name(self, i: int) -> str:
        """`<image id>_<region id>` of sample `i`."""
        return "_".join(self.samples[i].tolist())

    def image_id(self, i: int) -> str:
        """The image of sample `i`; it may have a slash in it."""
        return str(self.samples[i, 0])

    def region(self, i: int) -> dict[str, Any]:
        """The record of sample `i` as its JSON file has it. Raises `DataError` where it has none."""
        image_id, region_id = self.samples[i].tolist()
        file = self._json_file(image_id)
        if self._records is None or self._records[0] != image_id:
            self._records = (image_id, json_object(file))
        record = self._records[1].get(region_id)
        if not isinstance(record, dict):
            raise DataError(f"{file}: no region {region_id!r}; {nearest(region_id, self._records[1])}")
        return record

    def graph(self, i: int) -> SceneGraph:
        """The whole scene graph of sample `i`."""
        image_id, region_id = self.samples[i].tolist()
        return SceneGraph.from_region(self.region(i), f"{self._json_file(image_id)}: region {region_id}")

    def phrase(self, i: int) -> str:
        """The caption of sample `i`."""
        return self.graph(i).phrase

    def regions(self, i: int) -> RegionFeatures:
        """All region features of the image of sample `i`."""
        image_id = self.image_id(i)
        if self._regions is None or self._regions[0] != image_id:
            self._regions = (image_id, read_regions(region_file(self.layout.objects, image_id)))
        return self._regions[1]

    def image(self, i: int) -> np.ndarray:
        """The feature `[G]` float32 of the image of sample `i`. Raises `DataError` where it is not finite."""
        image_id = self.image_id(i)
        values = np.array(self._images()[self.image_rows[image_id]], np.float32)
        if not np.isfinite(values).all():
            raise DataError(f"{self.layout.globals_file(self.set_name)}: features of {image_id} that are not finite")
        return values

    def placed(self, i: int) -> Placed:
        """The nodes of sample `i`, and their rows among `regions(i)`; notes in `report` what was missing."""
        return self._placed(i, self.graph(i))

    def _placed(self, i: int, graph: SceneGraph) -> Placed:
        layout, words = self.layout, graph.phrase.split()
        found = place(
            graph, self.regions(i), self.limit, layout.policy, layout.box_mode, self.on_missing_box, self.name(i)
        )
        dropped = found.nodes.dropped
        self.report.note(
            i,
            missing_boxes=found.missing,
            unknown_words=self.words.unknown(graph.phrase),
            cut_words=max(0, len(words) - (self.length - 2)),
            dropped_objects=dropped.objects,
            dropped_attributes=dropped.attributes,
            dropped_relationships=dropped.relationships,
            empty_graphs=int(len(found.nodes.types) == 0),
        )
        return found

    def item(self, i: int) -> GraphItem:
        """Sample `i` as a captioner takes it. Raises `DataError` for a missing or wrong file, region or box."""
        graph = self.graph(i)
        placed, words = self._placed(i, graph), self.words.encode(graph.phrase, self.length)
        return GraphItem(placed.nodes, self.image(i), self.regions(i).features[placed.rows], words, i)

    def survey(self) -> dict[str, dict[str, int]]:
        """Read all samples but the images' features, and return the report: what a job may print before it begins."""
        for i in range(len(self)):
            self.placed(i)
        return self.report.summary()

    def references(self) -> dict[str, list[str]]:
        """The reference captions of each sample by name, those of the cleaned file where there is one, else its phrase.

        Raises `DataError` where the cleaned file lacks a sample.
        """
        file = self.layout.references_file(self.set_name)
        if not file.is_file():
            return {self.name(i): [self.phrase(i)] for i in range(len(self))}
        cleaned = json_object(file)
        found = {}
        for image_id, region_id in self.samples.tolist():
            region = cleaned.get(image_id, {}).get(region_id)
            if not isinstance(region, dict) or not isinstance(region.get("phrase"), str):
                raise DataError(f"{file}: no phrase of region {region_id!r} of {image_id!r}; expected every sample's")
            found[f"{image_id}_{region_id}"] = [region["phrase"]]
        return found

    def _images(self) -> np.ndarray:
        if self._globals is None:
            self._globals = float_matrix(self.layout.globals_file(self.set_name))
        return self._globals

    def _json_file(self, image_id: str) -> Path:
        return self.layout.regions / f"{image_id}.json"


def _image_rows(file: Path) -> dict[str, int]:
    names = text_array(file).tolist()
    rows = {name.split(".")[0]: row for row, name in enumerate(names)}
    if len(rows) != len(names):
        counts = Counter(name.split(".")[0] for name in names)
        raise DataError(f"{file}: image {counts.most_common(1)[0][0]!r} comes twice; expected each image once")
    for image_id in rows:
        path = PurePosixPath(image_id)
        # an id has no dot, so that `..` cannot be a part of it; it is empty where a name begins with one
        odd = any(sign in image_id for sign in "\\\0:")
        if path.is_absolute() or not path.name or str(path) != image_id or odd:
            raise DataError(f"{file}: image {image_id!r} leads out of its folder, or has no name")
    return rows


def _samples(file: Path, image_rows: Mapping[str, int]) -> np.ndarray:
    samples = text_array(file, columns=2)
    names: Counter[str] = Counter()
    for image_id, region_id in samples.tolist():
        if image_id not in image_rows:
            raise DataError(f"{file}: image {image_id!r} is not among the {len(image_rows)} images of the set's split")
        names[f"{image_id}_{region_id}"] += 1
    twice = [name for name, count in names.most_common(1) if count > 1]
    if twice:
        raise DataError(f"{file}: sample {twice[0]!r} comes twice; expected each name once")
    return samples
