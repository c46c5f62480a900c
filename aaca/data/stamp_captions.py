"""Captioned scene graphs of the embedded world, in EGA's layout: the graph-to-caption task without a download."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import PIL
from rich.progress import track

from aaca.data.graph_writer import VERSION as WRITER
from aaca.data.graph_writer import GraphImage, image_id, write_layout
from aaca.data.region_describer import Embed
from aaca.runtime.errors import ConfigError
from aaca.runtime.files import file_sha256
from aaca.runtime.log import console
from aaca.world.pack import PACK
from aaca.world.render import VERSION
from aaca.world.scenes import Sources, stream
from aaca.world.stamp_graphs import draw_scene, grammar
from aaca.world.stamp_regions import draw_regions

IMAGES = {"trn": 1600, "val": 80, "tst": 80}
UNSEEN = 12  # of a hundred combinations
FOLDERS = {"trn": "train2014", "val": "val2014", "tst": "val2014"}
TST_FROM = 100_000_000_000
"""First image number of tst, which lies in one folder with val."""
SKIPS = 100
"""Images in a row that may show a word which training does not, before the training set counts as too small."""


def is_unseen(first: str, second: str, ground: str) -> bool:
    """Whether this pair of nouns on this ground is kept for the test set."""
    word = hashlib.sha256("/".join([*sorted((first, second)), ground]).encode()).digest()
    return int.from_bytes(word[:4], "little") % 100 < UNSEEN


class StampCaptions:
    """Scenes of two things on a ground, several graphs and captions an image.

    tst shows pairs of nouns on grounds that no other set shows, in words that training has all seen; val shows new
    images of what training shows. Cut-outs and photos are those of training everywhere unless `test_sources` says
    otherwise: the embedded backbone's features tell the names of cut-outs that it has not seen too rarely.

    Args:
        images: how many images trn, val and tst have; None for the demo's 1600, 80, 80.
        val_sub: how many images of val make up val_sub; None for half of them.
        regions: least and most regions an image.
        image_size: pixels a side.
        test_sources: whose cut-outs and photos tst shows.
        seed: of all choices.

    """

    def __init__(
        self,
        images: Mapping[str, int] | None = None,
        val_sub: int | None = None,
        regions: tuple[int, int] = (4, 6),
        image_size: int = 128,
        test_sources: Sources = "train",
        seed: int = 0,
    ) -> None:
        self.images = dict(IMAGES if images is None else images)
        if set(self.images) != set(IMAGES) or min(self.images.values()) < 1:
            raise ConfigError(f"graphs.images: {self.images}; expected 1 or more for each of {', '.join(IMAGES)}")
        self.val_sub = -(-self.images["val"] // 2) if val_sub is None else val_sub
        if not 1 <= self.val_sub <= self.images["val"]:
            raise ConfigError(f"graphs.val_sub: {self.val_sub}; expected 1…{self.images['val']}, the images of val")
        least, most = regions
        if not 1 <= least <= most <= 12:
            raise ConfigError(f"graphs.regions: {regions}; expected two numbers in 1…12, the smaller one first")
        if image_size < 64:
            raise ConfigError(f"graphs.image_size: {image_size}; expected 64 pixels or more")
        if seed < 0:
            raise ConfigError(f"graphs.seed: {seed}; expected 0 or more")
        self.regions, self.image_size, self.test_sources, self.seed = (least, most), image_size, test_sources, seed

    def fingerprint(self) -> dict[str, Any]:
        """All arguments, the pack's manifest, the versions of renderer, writer and Pillow."""
        versions = {"renderer": VERSION, "writer": WRITER, "pillow": PIL.__version__}
        pack = file_sha256(PACK / "manifest.json")
        return {"dataset": "stamp_captions", **vars(self), "pack": pack, **versions}

    def build(self, folder: Path, embed: Embed, crop_size: int, features: Mapping[str, Any]) -> None:
        """Write trn, val, val_sub and tst into `folder`. `features` says what `embed` is, for the record.

        Raises `ConfigError` when the training set is too small to show the words of the others.
        """
        train = list(self._set("trn", None))
        known = {word for image in train for told in image.regions for word in grammar().say(told.said).split()}
        val, test = list(self._set("val", known)), list(self._set("tst", known))
        sets = {"trn": train, "val": val, "val_sub": val[: self.val_sub], "tst": test}
        write_layout(folder, sets, grammar(), embed, crop_size, {**self.fingerprint(), "features": dict(features)})

    def _set(self, name: str, known: set[str] | None) -> Iterator[GraphImage]:
        """The images of a set; those that show a word outside `known` are left away."""
        start = TST_FROM if name == "tst" else 0
        index = 0
        for number in track(range(self.images[name]), f"render {name}", console=console, transient=True):
            for _ in range(SKIPS):
                index += 1
                image = self._image(name, index, image_id(FOLDERS[name], start + number + 1))
                said = {word for told in image.regions for word in grammar().say(told.said).split()}
                if known is None or said <= known:
                    yield image
                    break
            else:
                raise ConfigError(f"graphs.images.trn: {self.images['trn']}; {name} has words that trn does not show")

    def _image(self, name: str, index: int, id_: str) -> GraphImage:
        sources: Sources = self.test_sources if name == "tst" else "train"
        kept = name == "tst"
        scene = draw_scene(self.seed, name, index, self.image_size, sources, lambda *words: is_unseen(*words) == kept)
        rng = stream(self.seed, "regions", name, index)
        count = int(rng.integers(self.regions[0], self.regions[1] + 1))
        return GraphImage(id_, scene.rendered.rgb, tuple(draw_regions(scene, rng, count)))
