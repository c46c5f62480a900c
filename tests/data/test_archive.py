"""Archives: a good one becomes a benchmark; a hostile one is refused by the member's name and leaves nothing."""

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from aaca.data.archive import FREE_BYTES, unpack
from aaca.data.benchmark import Benchmark
from aaca.data.imagefolder import ImageFolder
from aaca.runtime.errors import DataError
from tests.toys import picture_folder


def packed(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
            for name, goal in (links or {}).items():
                info = zipfile.ZipInfo(name)
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
                archive.writestr(info, goal)
        return path
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, goal in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = (tarfile.LNKTYPE if goal == "hard" else tarfile.SYMTYPE), goal
            tar.addfile(info)
    return path


KINDS = ("a.zip", "a.tar", "a.tar.gz")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a/../../x.png", "a\\..\\x.png", "C:/x.png", ".."])
def test_names_that_lead_out_are_refused(kind, name, tmp_path):
    archive = packed(tmp_path / kind, {"fine.png": b"1", name: b"2"})
    with pytest.raises(DataError, match="leads out of the archive"):
        unpack(archive, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("goal", ["/etc/passwd", "fine.png", "hard"])
def test_links_are_refused(kind, goal, tmp_path):
    archive = packed(tmp_path / kind, {"fine.png": b"1"}, {"link": goal})
    with pytest.raises(DataError, match="'link' is a link or a device"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["a.zip", "a.tar.gz"])
def test_a_ratio_of_one_to_ten_thousand_is_refused_while_unpacking(kind, tmp_path):
    archive = packed(tmp_path / kind, {"zeros.png": bytes(FREE_BYTES + 1)})
    if kind == "a.zip":  # a header that lies about the size changes nothing
        data = archive.read_bytes().replace((FREE_BYTES + 1).to_bytes(4, "little"), (99).to_bytes(4, "little"))
        archive.write_bytes(data)
    assert archive.stat().st_size * 900 < FREE_BYTES
    with pytest.raises(DataError, match=r"an archive bomb|not a readable archive"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_twice_the_same_name_devices_and_damage_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("x", "1")
        archive.writestr("x", "2")
    with pytest.raises(DataError, match="'x' occurs twice"):
        unpack(tmp_path / "b.zip", tmp_path / "out")
    with tarfile.open(tmp_path / "c.tar", "w") as tar:
        info = tarfile.TarInfo("dev")
        info.type = tarfile.CHRTYPE
        tar.addfile(info)
    with pytest.raises(DataError, match="'dev' is a link or a device"):
        unpack(tmp_path / "c.tar", tmp_path / "out")
    whole = packed(tmp_path / "d.tar.gz", {"x": np.random.default_rng(0).bytes(10_000)}).read_bytes()
    (tmp_path / "d.tar.gz").write_bytes(whole[:5_000])
    for name in ("d.tar.gz", "e.zip"):
        (tmp_path / "e.zip").write_bytes(b"PK no zip")
        with pytest.raises(DataError, match="not a readable archive"):
            unpack(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
def test_a_flipped_byte_anywhere_is_seen(mode, tmp_path):
    with tarfile.open(tmp_path / f"a.tar.{mode}", f"w:{mode}") as tar:  # type: ignore[call-overload]
        info = tarfile.TarInfo("x.png")
        info.size = 50_000
        tar.addfile(info, io.BytesIO(np.random.default_rng(0).bytes(50_000)))
    whole = (tmp_path / f"a.tar.{mode}").read_bytes()
    for share in (0.2, 0.5, 0.9):
        data = bytearray(whole)
        data[int(share * len(data))] ^= 4
        (tmp_path / f"b.tar.{mode}").write_bytes(bytes(data))
        with pytest.raises(DataError, match="not a readable archive"):
            unpack(tmp_path / f"b.tar.{mode}", tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("top", ["", "pictures/"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_of_pictures_is_the_same_benchmark_as_their_folder(kind, top, tmp_path):
    root = picture_folder(tmp_path / "pictures", per_class=12)
    files = {top + str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.png"))}
    source = ImageFolder(str(packed(tmp_path / kind, files)))
    assert source.fingerprint()["archive"]
    folder = tmp_path / "work"
    folder.mkdir()
    source.build(folder).save(folder)
    moved = folder.rename(tmp_path / "published")  # as a stage is
    built, plain = Benchmark.load(moved), ImageFolder(str(root)).build(tmp_path)
    assert list(built.table.ids) == list(plain.table.ids)
    assert list(built.table.frame["split"]) == list(plain.table.frame["split"])
    for row in (0, len(plain.table) - 1):
        np.testing.assert_array_equal(built.table.image(row), plain.table.image(row))
