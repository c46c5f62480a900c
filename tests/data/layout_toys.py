"""What the tests of graph data sets share: an honest reader of the layout in plain json, numpy and h5py."""

import json
from pathlib import Path

import h5py
import numpy as np


def load(folder: Path, name: str):
    """(image id, region id) pairs, records by pair, boxes and features by image."""
    pairs = [tuple(pair) for pair in np.load(folder / f"annotation/regionfiles/{name}_names.npy").tolist()]
    files = {image: json.loads((folder / f"annotation/regionfiles/{image}.json").read_text()) for image, _ in pairs}
    return pairs, {pair: files[pair[0]][pair[1]] for pair in pairs}, {image: regions(folder, image) for image in files}


def regions(folder: Path, image: str):
    name = image.replace("/", "_") + ".jpg"
    with h5py.File(folder / f"features/SA/X_101_32x8d/objrels/{name}.hdf5") as file:
        assert list(file) == [name]
        data = file[name]
        assert data.dtype == np.float64
        assert data.attrs["boxes"].dtype == np.int32
        assert data.attrs["image_w"].dtype == data.attrs["image_h"].dtype == np.int64
        boxes = [tuple(box) for box in data.attrs["boxes"].tolist()]
        assert len(set(boxes)) == len(boxes) == len(data)
        return {
            "size": (int(data.attrs["image_w"]), int(data.attrs["image_h"])),
            **dict(zip(boxes, data[:], strict=True)),
        }


def boxes_of(record):
    """Inclusive corners of every object and of every related pair, from the record alone."""
    corners = {
        entry["object_id"]: (entry["x"], entry["y"], entry["x"] + entry["w"] - 1, entry["y"] + entry["h"] - 1)
        for entry in record["objects"]
    }
    pairs = [(corners[link["subject_id"]], corners[link["object_id"]]) for link in record["relationships"]]
    unions = [(min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])) for a, b in pairs]
    return [*corners.values(), *unions]


def check_layout(folder: Path, sets: tuple[str, ...], image_size: int, vector: int) -> None:
    """Assert what the specification says of every file."""
    words = np.load(folder / "annotation/int2word.npy")
    ids = json.loads((folder / "annotation/word2int.json").read_text())
    assert words[:3].tolist() == ["<BOS>", "<EOS>", "<UNK>"]
    assert [ids[word] for word in words] == list(range(len(words)))
    for name in sets:
        names = np.load(folder / f"annotation/public_split/{name}_names.npy")
        images = np.load(folder / f"features/MP/resnet101.ctrl/{name}_ft.npy")
        assert names.ndim == 1 and len(names) == len(set(names.tolist())) == len(images)
        assert images.dtype == np.float32 and np.isfinite(images).all()
        pairs, records, features = load(folder, name)
        assert list(dict.fromkeys(image for image, _ in pairs)) == [str(file).split(".")[0] for file in names]
        cleaned = json.loads((folder / f"annotation/cleaned_{name}_region_descriptions.json").read_text())
        for (image, region), record in records.items():
            assert cleaned[image][region] == {"phrase": record["phrase"]}
            assert set(record["phrase"].split()) <= set(words.tolist())
            assert set(boxes_of(record)) <= set(features[image])
            assert features[image]["size"] == (image_size, image_size)
            for entry in record["objects"]:
                assert list(entry) == ["object_id", "name", "attributes", "x", "y", "w", "h"]
                assert entry["x"] >= 0 and entry["x"] + entry["w"] <= image_size and entry["w"] > 0
                assert entry["y"] >= 0 and entry["y"] + entry["h"] <= image_size and entry["h"] > 0
            for link in record["relationships"]:
                assert list(link) == ["relationship_id", "subject_id", "object_id", "name"]
        for image, rows in features.items():
            needed = {box for pair, record in records.items() if pair[0] == image for box in boxes_of(record)}
            assert needed == set(rows) - {"size"}
            objects = [entry["object_id"] for pair in pairs if pair[0] == image for entry in records[pair]["objects"]]
            assert len(set(objects)) == len(objects)
            assert {len(row) for box, row in rows.items() if box != "size"} == {vector}
