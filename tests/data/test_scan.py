import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from aaca.data.benchmark import Benchmark, BenchmarkSource
from aaca.data.duplicates import digest_columns, duplicate_findings
from aaca.data.imagefolder import ImageFolder
from aaca.data.scan import scan_table, verify
from aaca.data.scan_report import SEVERITY, ScanReport
from aaca.data.table import ImageTable
from aaca.runtime.errors import ConfigError, DataError


def picture(seed: int, size: int = 24) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def cut(path: Path, kind: str, share: float = 0.5) -> None:
    picture(1, 64).save(path, format=kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


def bomb(path: Path, width: int, height: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b""))


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    picture(2).save(path, exif=exif)


def deep_rgb(path: Path) -> None:
    """A 16-bit RGB PNG by hand: Pillow reads such files as 8-bit and cannot write them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + os.urandom(4 * 6) for _ in range(4))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def broken_png(path: Path) -> None:
    picture(3).save(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 40
    data[at : at + 20] = bytes(20)
    path.write_bytes(bytes(data))


def animation(path: Path) -> None:
    picture(4).save(path, save_all=True, append_images=[picture(5)])


BAD: dict[str, tuple[str, Callable[[Path], object]]] = {
    "cut.jpg": ("truncated", lambda path: cut(path, "JPEG")),
    "cut.png": ("truncated", lambda path: cut(path, "PNG")),
    "cut.webp": ("undecodable", lambda path: cut(path, "WEBP")),
    "zero.jpg": ("empty", lambda path: path.write_bytes(b"")),
    "text.jpg": ("not_an_image", lambda path: path.write_text("I am not a picture.\n" * 9)),
    "script.png": ("not_an_image", lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")),
    "cmyk.jpg": ("cmyk", lambda path: picture(6).convert("CMYK").save(path)),
    "deep.png": ("deep", lambda path: Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 999).save(path)),
    "deep_rgb.png": ("deep", deep_rgb),
    "deep.tif": ("deep", lambda path: Image.fromarray(np.ones((8, 8), dtype=np.uint16)).save(path)),
    "turned.jpg": ("exif_rotated", rotated),
    "bomb.png": ("bomb", lambda path: bomb(path, 60_000, 60_000)),
    "flat.png": ("bomb", lambda path: bomb(path, 7_000, 7_000)),
    "really_a_png.jpg": ("wrong_suffix", lambda path: picture(7).save(path, format="PNG")),
    "moving.gif": ("animated", animation),
    "broken.png": ("undecodable", broken_png),
    "gone.jpg": ("missing", lambda path: None),
    "pipe.jpg": ("not_a_file", os.mkfifo),
    "folder.jpg": ("not_a_file", Path.mkdir),
}


def table_of(folder: Path, names: list[str], **columns: object) -> ImageTable:
    rows = {"id": names, "path": names, "split": "train", "label": 0, **columns}
    return ImageTable.build(pd.DataFrame(rows), ["cat", "dog"], folder)


def kinds(report: ScanReport) -> dict[str, set[str]]:
    return {str(name): set(rows["kind"]) for name, rows in report.findings.groupby("id")}


@pytest.fixture(scope="module")
def bad_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    for name, (_, make) in BAD.items():
        make(folder / name)
    for seed, name in enumerate(("fine.jpg", "fine.png", "fine.bmp", "fine.webp"), start=50):
        picture(seed).save(folder / name)
    return folder


def test_every_kind_of_bad_file_is_named_and_good_ones_are_not(bad_folder: Path) -> None:
    fine = ["fine.jpg", "fine.png", "fine.bmp", "fine.webp"]
    report = scan_table(table_of(bad_folder, [*BAD, *fine]), workers=2, progress=False)
    assert kinds(report) == {name: {kind} for name, (kind, _) in BAD.items()}
    assert report.images == len(BAD) + 4
    severity = dict(zip(report.findings["kind"], report.findings["severity"], strict=True))
    warnings = {"cmyk", "deep", "exif_rotated", "wrong_suffix", "animated"}
    assert {kind for kind, level in severity.items() if level == "warning"} == warnings


def test_clean_removes_exactly_what_training_cannot_read(bad_folder: Path) -> None:
    table = table_of(bad_folder, list(BAD))
    report = scan_table(table, progress=False)
    kept = report.clean(table)
    for position in range(len(kept)):
        assert kept.image(position).shape[-1] == 3
    dropped = set(table.ids) - set(kept.ids)
    for name in dropped:
        with pytest.raises(DataError):
            table.image(list(table.ids).index(name))
    assert sum(report.counts("refused").values()) == len(dropped) == len(report.refused)
    assert report.refused[0].keys() == {"path", "reason"}


def test_workers_do_not_change_the_report(bad_folder: Path) -> None:
    table = table_of(bad_folder, list(BAD))
    one, four = (scan_table(table, workers=n, progress=False).findings for n in (1, 4))
    pd.testing.assert_frame_equal(one, four)


def test_save_and_load(bad_folder: Path, tmp_path: Path) -> None:
    report = scan_table(table_of(bad_folder, list(BAD)), progress=False)
    report.save(tmp_path / "scan")
    again = ScanReport.load(tmp_path / "scan")
    pd.testing.assert_frame_equal(again.findings, report.findings)
    assert (again.images, again.splits, again.counts()) == (report.images, report.splits, report.counts())
    assert len(pd.read_csv(tmp_path / "scan" / "findings.csv")) == len(BAD)
    with pytest.raises(DataError, match=r"scan\.json is missing"):
        ScanReport.load(tmp_path)


def test_a_clean_table_gives_an_empty_report_that_survives_saving(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    table = table_of(tmp_path, ["a.png"])
    report = scan_table(table, progress=False)
    report.save(tmp_path / "scan")
    again = ScanReport.load(tmp_path / "scan")
    assert again.counts() == {} and len(again.clean(table)) == 1 and "nothing unusual" in again.summary()


def test_the_summary_counts_and_cannot_steer_a_terminal(tmp_path: Path) -> None:
    names = [f"\x1b[31m{k}\n.jpg" for k in range(5)]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    text = scan_table(table_of(tmp_path, names), progress=False).summary()
    assert "refused: 5 × empty" in text and "… and 2 more" in text
    assert "\x1b" not in text and len(text.splitlines()) == 6


def copies(folder: Path, places: list[tuple[str, int]]) -> ImageTable:
    """One image under several names: (split, label) each; and a different one of the same size."""
    names = [f"{k}.bmp" for k in range(len(places))]
    for name in names:
        picture(0).save(folder / name)
    picture(1).save(folder / "other.bmp")
    splits, labels = zip(*places, ("test", 0), strict=True)
    return table_of(folder, [*names, "other.bmp"], split=list(splits), label=list(labels))


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([("train", 0), ("test", 0)], {"0.bmp": {"leak"}}),
        ([("test", 0), ("pool", 0), ("audit", 0)], {"1.bmp": {"leak"}, "2.bmp": {"leak"}}),
        ([("test_seen", 0), ("train", 0)], {"1.bmp": {"leak"}}),
        ([("pool", 0), ("train", 0)], {"0.bmp": {"in_two_splits"}}),
        ([("train", 0), ("audit", 0)], {"0.bmp": {"in_two_splits"}}),
        ([("train", 0), ("train", 0)], {"1.bmp": {"repeated"}}),
        ([("train", 0), ("train", 1)], {"0.bmp": {"in_two_classes"}, "1.bmp": {"in_two_classes"}}),
        ([("train", 1), ("test", 0)], {"0.bmp": {"leak"}, "1.bmp": {"in_two_classes"}}),
    ],
)
def test_equal_files(tmp_path: Path, places: list[tuple[str, int]], expected: dict[str, set[str]]) -> None:
    table = copies(tmp_path, places)
    report = scan_table(table, progress=False)
    assert kinds(report) == expected
    left = report.clean(table)
    digests = [left.file(k).read_bytes() for k in range(len(left))]
    for data in set(digests):  # after cleaning no image is in two splits
        assert len({left.frame["split"].iat[k] for k, other in enumerate(digests) if other == data}) == 1


def test_unreadable_files_do_not_count_as_equal(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"no image, twice")
    report = scan_table(table_of(tmp_path, ["a.jpg", "b.jpg"], split=["train", "test"]), progress=False)
    assert report.counts() == {"not_an_image": 2}


def test_duplicates_against_brute_force() -> None:
    rng = np.random.default_rng(0)
    n = 400
    contents = rng.integers(0, 150, n)
    frame = pd.DataFrame(
        {
            "id": [str(k) for k in range(n)],
            "split": rng.choice(["train", "pool", "audit", "test"], n),
            "label": rng.integers(0, 2, n),
        }
    )
    digests = digest_columns([int(c).to_bytes(32, "little") for c in contents])
    found = {position: kind for position, kind, _ in duplicate_findings(frame, np.arange(n), digests)}
    order = ["test", "audit", "train", "pool"]
    for at in range(n):
        same = [k for k in range(n) if contents[k] == contents[at]]
        best = min(order.index(frame["split"][k]) for k in same)
        if len(same) == 1:
            expected = None
        elif order.index(frame["split"][at]) > best:
            expected = "leak" if best == 0 else "in_two_splits"
        elif len({frame["label"][k] for k in same}) > 1:
            expected = "in_two_classes"
        else:
            expected = None if at == min(k for k in same if frame["split"][k] == order[best]) else "repeated"
        assert found.get(at) == expected


def test_array_rows_are_checked(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3), dtype=np.uint8)
    images[3] = images[0]
    np.save(tmp_path / "train.npy", images)
    np.save(tmp_path / "float.npy", images.astype(np.float32))
    np.save(tmp_path / "grey.npy", images[..., 0])
    np.save(tmp_path / "objects.npy", np.array([{}, "run me"], dtype=object), allow_pickle=True)
    (tmp_path / "noise.npy").write_bytes(b"what")
    rows = [
        ("train.npy", 0, "train"),
        ("train.npy", 1, "train"),
        ("train.npy", 9, "train"),
        ("train.npy", 3, "test"),
        *((f"{name}.npy", 0, "train") for name in ("float", "grey", "objects", "noise", "missing")),
    ]
    frame = pd.DataFrame(rows, columns=["path", "row", "split"]).assign(label=0)
    table = ImageTable.build(frame.assign(id=[f"r{k}" for k in range(len(rows))]), ["cat", "dog"], tmp_path)
    report = scan_table(table, progress=False)
    assert kinds(report) == {"r0": {"leak"}, "r2": {"bad_array"}, **{f"r{k}": {"bad_array"} for k in range(4, 9)}}
    assert report.clean(table).ids.tolist() == ["r1", "r3"]


def test_verify_lays_a_source_out_and_lists_what_it_left_out(tmp_path: Path) -> None:
    for place, folder in enumerate(("train/cat", "train/dog", "val/cat", "val/dog")):
        (tmp_path / folder).mkdir(parents=True)
        for k in range(6):
            picture(10 * place + k).save(tmp_path / folder / f"{k}.png")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("hello")
    shutil.copy(tmp_path / "val" / "dog" / "0.png", tmp_path / "train" / "dog" / "leak.png")
    report = verify(ImageFolder(str(tmp_path)), progress=False)
    assert report.counts("refused") == {"left_out": 1, "leak": 1}
    assert report.images == 25
    built = ImageFolder(str(tmp_path)).build(tmp_path)
    pd.testing.assert_frame_equal(verify(built, progress=False).findings, report.findings)


def test_verify_of_a_source_that_writes_arrays(tmp_path: Path) -> None:
    class Made(BenchmarkSource):
        def fingerprint(self) -> dict[str, object]:
            return {}

        def build(self, folder: Path) -> Benchmark:
            np.save(folder / "a.npy", np.zeros((3, 4, 4, 3), dtype=np.uint8))
            rows = pd.DataFrame(
                {"id": list("abc"), "path": "a.npy", "row": range(3), "split": ["train", "pool", "test"]}
            )
            return Benchmark("made", ImageTable.build(rows, ["cat", "dog"], folder))

    assert verify(Made(), progress=False).counts() == {"leak": 2}


def test_wrong_workers() -> None:
    with pytest.raises(ConfigError, match=r"scan\.workers"):
        scan_table(table_of(Path(), []), workers=-1)


def test_every_kind_has_a_severity() -> None:
    assert set(SEVERITY.values()) == {"refused", "warning"}
    assert {kind for kind, _ in BAD.values()} | {"leak", "in_two_splits", "in_two_classes", "repeated"} | {
        "bad_array",
        "left_out",
    } == set(SEVERITY)
