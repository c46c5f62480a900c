"""A tiny tree of scene graphs in each of the three released layouts, its files as the real ones are."""

import json
import zlib
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from aaca.data.scenegraph.layout import Layout
from aaca.data.scenegraph.samples import GraphSet
from aaca.data.scenegraph.vocabulary import Words

WIDTH, HEIGHT, F, G = 120, 90, 8, 6
Kind = Literal["coco", "visual_genome", "ega"]
FOLDERS = {"coco": "MSCOCO", "visual_genome": "VisualGenome", "ega": "EGA"}
THINGS, LOOKS, LINKS = ("boy", "dog", "kite", "field"), ("red", "small", "old"), ("near", "fly", "on")


def region_feature(image_id: str, box: tuple[int, ...], width: int = F) -> np.ndarray:
    """What the tree holds for a box of an image: not negative, mostly zeros, as fc7 is."""
    rng = np.random.default_rng([zlib.crc32(image_id.encode()), *box])
    return np.where(rng.random(width) < 0.8, 0.0, 12 * rng.random(width))


def image_feature(image_id: str, width: int = G) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(image_id.encode())).random(width).astype(np.float32)


def thing(number: int, name: str, box: tuple[int, int, int, int], *looks: str) -> dict[str, Any]:
    return {"object_id": number, "name": name, "attributes": list(looks), **dict(zip("xywh", box, strict=True))}


def link(number: int, subject: int, name: str, target: int) -> dict[str, Any]:
    return {"relationship_id": number, "subject_id": subject, "object_id": target, "name": name}


def region(rng: np.random.Generator, first: int, objects: int) -> dict[str, Any]:
    """A graph of `objects` things, ids from `first`, each related to the next but the last, which is not located."""
    listed, said = [], []
    for k in range(objects):
        x, y = (int(value) for value in rng.integers(0, 60, 2))
        box = (x, y, int(rng.integers(5, 50)), int(rng.integers(5, 30))) if k < objects - 1 else (0, 0, WIDTH, HEIGHT)
        looks = rng.permutation(LOOKS)[: rng.integers(0, 3)].tolist()
        listed.append(thing(first + k, str(rng.choice(THINGS)), box, *looks))
        said.append(" ".join(["a", *looks, listed[-1]["name"]]))
    links = [link(first + k, first + k, str(rng.choice(LINKS)), first + k + 1) for k in range(objects - 2)]
    words = [it["name"] for it in links] + ["and"]
    phrase = " ".join(part for pair in zip(said, [*words, ""], strict=False) for part in pair).strip()
    return {"objects": listed, "relationships": links, "phrase": phrase}


def corners(record: dict[str, Any], extra: int) -> list[tuple[int, int, int, int]]:
    """Boxes x1, y1, x2, y2 of a region's objects and relationships; `extra` is 1 where corners are inclusive."""
    own = {
        it["object_id"]: (it["x"], it["y"], it["x"] + it["w"] - extra, it["y"] + it["h"] - extra)
        for it in record["objects"]
    }
    pairs = [(own[it["subject_id"]], own[it["object_id"]]) for it in record["relationships"]]
    unions = [(min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])) for a, b in pairs]
    return [*own.values(), *unions]


def write_regions(file: Path, image_id: str, boxes: list[tuple[int, int, int, int]], width: int = F) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as opened:
        rows = np.array([region_feature(image_id, box, width) for box in boxes], np.float64).reshape(-1, width)
        dataset = opened.create_dataset(file.name.removesuffix(".hdf5"), data=rows)
        dataset.attrs["boxes"] = np.array(boxes, np.int32).reshape(-1, 4)
        dataset.attrs["image_w"], dataset.attrs["image_h"] = np.int64(WIDTH), np.int64(HEIGHT)


def region_path(layout: Layout, image_id: str) -> Path:
    name = f"{image_id.replace('/', '_')}.jpg.hdf5"
    return next(folder / name for folder in layout.objects if (folder / name).is_file())


def write_array(file: Path, values: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, np.array(values), allow_pickle=False)


def layout_of(kind: Kind, root: Path) -> Layout:
    return {"coco": Layout.coco, "visual_genome": Layout.visual_genome, "ega": Layout.ega}[kind](root / FOLDERS[kind])


NEAR = {
    "objects": [
        thing(1, "boy", (10, 10, 20, 20), "red"),
        thing(2, "dog", (40, 10, 20, 20)),
        thing(3, "kite", (0, 60, 9, 9)),
    ],
    "relationships": [link(1, 1, "near", 2), link(2, 1, "on", 3)],
    "phrase": "a red boy near a dog",
}

NEAR_BOXES = [(10, 10, 29, 29), (40, 10, 59, 29), (0, 60, 8, 68), (10, 10, 59, 29), (0, 10, 29, 68)]


def write_tree(
    root: Path,
    kind: Kind = "ega",
    images: int = 3,
    regions: int = 3,
    seed: int = 0,
    objects: int = 4,
    sizes: tuple[int, int] = (F, G),
) -> Layout:
    """Every set of a layout with its own images, each with some regions of at most `objects` things."""
    layout = layout_of(kind, root)
    rng, phrases = np.random.default_rng(seed), []
    for number, set_name in enumerate(layout.sets):
        ids = [_image_id(kind, set_name, 100 * number + k) for k in range(images)]
        records = {
            image_id: {str(7000 + k): region(rng, 50 * k, int(rng.integers(2, objects + 1))) for k in range(regions)}
            for image_id in ids
        }
        for at, image_id in enumerate(ids):
            file = layout.regions / f"{image_id}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(records[image_id]))
            extra = 1 if layout.box_mode == "inclusive" else 0
            boxes = sorted({box for record in records[image_id].values() for box in corners(record, extra)})
            folder = layout.objects[at % len(layout.objects)]
            write_regions(folder / f"{image_id.replace('/', '_')}.jpg.hdf5", image_id, boxes, sizes[0])
        write_array(layout.images_file(set_name), [f"{image_id}.jpg" for image_id in ids])
        write_array(layout.samples_file(set_name), [(key, one) for key in ids for one in records[key]])
        write_array(layout.globals_file(set_name), np.stack([image_feature(key, sizes[1]) for key in ids]))
        if set_name not in ("trn", "val"):
            cleaned = {
                key: {one: {"phrase": f"{record['phrase']} indeed"} for one, record in of.items()}
                for key, of in records.items()
            }
            layout.references_file(set_name).write_text(json.dumps(cleaned))
        phrases += [record["phrase"] for of in records.values() for record in of.values()]
    Words.from_counts(phrases, 1).save(layout.words)
    return layout


def one_region(layout: Layout, record: dict, boxes: list | None = None) -> GraphSet:
    """The set val with a single sample: `record`, and the features of `boxes` (those it needs)."""
    image_id = GraphSet.open(layout, "val").image_id(0)
    (layout.regions / f"{image_id}.json").write_text(json.dumps({"1": record}))
    write_array(layout.samples_file("val"), [(image_id, "1")])
    extra = 1 if layout.box_mode == "inclusive" else 0
    write_regions(region_path(layout, image_id), image_id, corners(record, extra) if boxes is None else boxes)
    return GraphSet.open(layout, "val")


def _image_id(kind: Kind, set_name: str, number: int) -> str:
    if kind == "visual_genome":
        return str(2315 + number)
    folder = "train2014" if set_name == "trn" else "val2014"
    return f"{folder}/COCO_{folder}_{number:012d}"
