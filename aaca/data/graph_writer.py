"""Scene graphs, captions and features of images, written in the layout of EGA's release (ASG2Caption's, extended)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aaca.data.region_describer import Boxed, Embed, RegionDescriber
from aaca.runtime.files import write_json
from aaca.world.phrases import Grammar, Told
from aaca.world.render import Box

SPECIAL = ("<BOS>", "<EOS>", "<UNK>")
REGIONS, SPLITS = Path("annotation/regionfiles"), Path("annotation/public_split")
IMAGE_FEATURES = Path("features/MP/resnet101.ctrl")
REGION_FEATURES = Path("features/SA/X_101_32x8d/objrels")
"""The release's folder names; which network the features are from stands in `ABOUT`."""
ABOUT = "about.json"
FIT = 256
"""Images of the training set whose regions say what mean and deviation features have."""
VERSION = 1
"""Of all that writes graphs: to be raised where the same arguments lead to other files."""
CHUNK = 32  # images whose crops are embedded at once


@dataclass(frozen=True)
class GraphImage:
    """An image `rgb` `[H, W, 3]` uint8 and its regions; `id` has one slash: "train2014/COCO_train2014_000000000001"."""

    id: str
    rgb: np.ndarray
    regions: tuple[Told, ...]


def image_id(split: str, number: int) -> str:
    """An id in the released form, of `split` train2014 or val2014."""
    return f"{split}/COCO_{split}_{number:012d}"


def cleaned_file(set_: str) -> Path:
    """Where the reference captions of a set lie."""
    return Path(f"annotation/cleaned_{set_}_region_descriptions.json")


def write_layout(
    folder: Path,
    sets: Mapping[str, Sequence[GraphImage]],
    grammar: Grammar,
    embed: Embed,
    crop_size: int,
    about: Mapping[str, Any],
) -> None:
    """Write all sets into `folder`; the first is the training set: vocabulary and the features' scale come from it.

    A set may hold images of an earlier one (val_sub of val).
    """
    for part in (REGIONS, SPLITS, IMAGE_FEATURES, REGION_FEATURES, "images"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    train = next(iter(sets.values()))
    describe = RegionDescriber.fit(embed, crop_size, boxed(train[:FIT]))
    _write_words(folder, [grammar.say(told.said) for image in train for told in image.regions])
    vectors: dict[str, np.ndarray] = {}
    for name, images in sets.items():
        new = [image for image in images if image.id not in vectors]
        for start in range(0, len(new), CHUNK):
            vectors |= _write_images(folder, new[start : start + CHUNK], grammar, describe)
        _write_set(folder, name, images, grammar)
        rows = np.stack([vectors[image.id] for image in images]).astype(np.float32)
        np.save(folder / IMAGE_FEATURES / f"{name}_ft.npy", rows)
    write_json(folder / ABOUT, {**about, "grammar": grammar.to_json(), "described": describe.to_json()})


def boxed(images: Sequence[GraphImage]) -> list[Boxed]:
    """Each image with the boxes whose features graphs need."""
    return [(image.rgb, needed_boxes(image)) for image in images]


def region_records(image: GraphImage, grammar: Grammar) -> dict[str, dict[str, Any]]:
    """The content of an image's JSON file: region id to record; each object id is used once."""
    records: dict[str, dict[str, Any]] = {}
    objects = relationships = 0
    for number, told in enumerate(image.regions):
        entries = [
            {"object_id": objects + index, "name": thing.name, "attributes": list(thing.attributes)}
            | dict(zip("xywh", (x1, y1, x2 - x1, y2 - y1), strict=True))
            for index, (thing, (x1, y1, x2, y2)) in enumerate(zip(told.said.things, told.boxes, strict=True))
        ]
        links = [
            {"relationship_id": relationships + index, "subject_id": objects + subject}
            | {"object_id": objects + object_, "name": word}
            for index, (subject, word, object_) in enumerate(told.said.relations)
        ]
        objects, relationships = objects + len(entries), relationships + len(links)
        records[str(number)] = {"objects": entries, "relationships": links, "phrase": grammar.say(told.said)}
    return records


def needed_boxes(image: GraphImage) -> list[Box]:
    """Boxes of all objects and of all related pairs together, each once; right and bottom exclusive."""
    boxes: dict[Box, None] = {}
    for told in image.regions:
        boxes |= dict.fromkeys(told.boxes)
        for subject, _, object_ in told.said.relations:
            one, other = told.boxes[subject], told.boxes[object_]
            boxes[min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])] = None
    return list(boxes)


def _write_images(
    folder: Path, images: Sequence[GraphImage], grammar: Grammar, describe: RegionDescriber
) -> dict[str, np.ndarray]:
    """Each image's picture, JSON and HDF5; its global feature by its id."""
    given = boxed(images)
    described = describe(given)
    for image, (_, boxes), (_, rows) in zip(images, given, described, strict=True):
        for path in (folder / REGIONS / f"{image.id}.json", folder / "images" / f"{image.id}.png"):
            path.parent.mkdir(exist_ok=True)
        write_json(folder / REGIONS / f"{image.id}.json", region_records(image, grammar))
        Image.fromarray(image.rgb).save(folder / "images" / f"{image.id}.png")
        _write_features(folder / REGION_FEATURES, image, boxes, rows)
    return {image.id: row for image, (row, _) in zip(images, described, strict=True)}


def _write_features(folder: Path, image: GraphImage, boxes: Sequence[Box], features: np.ndarray) -> None:
    import h5py  # type: ignore[import-untyped]

    name = f"{image.id.replace('/', '_')}.jpg"
    with h5py.File(folder / f"{name}.hdf5", "w") as file:
        data = file.create_dataset(name, data=features.astype(np.float64))
        # The release's corners are inclusive.
        data.attrs["boxes"] = (np.array(boxes) - [0, 0, 1, 1]).astype(np.int32)
        data.attrs["image_w"], data.attrs["image_h"] = np.int64(image.rgb.shape[1]), np.int64(image.rgb.shape[0])


def _write_words(folder: Path, captions: Sequence[str]) -> None:
    counts = Counter(word for caption in captions for word in caption.split())
    words = [*SPECIAL, *sorted(counts, key=lambda word: (-counts[word], word))]
    np.save(folder / "annotation/int2word.npy", np.array(words))
    write_json(folder / "annotation/word2int.json", {word: index for index, word in enumerate(words)})


def _write_set(folder: Path, name: str, images: Sequence[GraphImage], grammar: Grammar) -> None:
    np.save(folder / SPLITS / f"{name}_names.npy", np.array([f"{image.id}.jpg" for image in images]))
    pairs = [(image.id, str(number)) for image in images for number in range(len(image.regions))]
    np.save(folder / REGIONS / f"{name}_names.npy", np.array(pairs))
    cleaned = {
        image.id: {str(number): {"phrase": grammar.say(told.said)} for number, told in enumerate(image.regions)}
        for image in images
    }
    write_json(folder / cleaned_file(name), cleaned)
