"""Images out of tars: in order, resumed, shared out; what is hostile or broken is left out and listed."""

import io
import tarfile
import zlib

import numpy as np
import pytest
from PIL import Image

from aaca.data import webdataset_tars
from aaca.data.webdataset_tars import list_tars, tar_images
from aaca.runtime.errors import DataError


def encoded(value: int, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (6, 4), (value, 0, 255 - value)).save(stream, kind, **options)
    return stream.getvalue()


def noise() -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def bomb(side: int = 7000) -> bytes:
    """A PNG of 49 million black pixels in 6 kB, by hand: encoding one takes seconds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    rows = zlib.compress(bytes((side + 7) // 8 + 1) * side, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def write(path, members: list[tuple[str, bytes]]):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def samples(number: int, count: int = 3) -> list[tuple[str, bytes]]:
    members = []
    for index in range(count):
        key = f"{number:05d}{index:04d}"
        members += [(f"{key}.jpg", encoded(10 * index)), (f"{key}.txt", b"a caption"), (f"{key}.json", b"{}")]
    return members


@pytest.fixture
def folder(tmp_path):
    for number in (2, 0, 1, 10, 3):
        write(tmp_path / f"{number:05d}.tar", samples(number))
    (tmp_path / "00000_stats.json").write_text("{}")
    return tmp_path


ALL = [f"{number:05d}/{number:05d}{index:04d}" for number in (0, 1, 2, 3, 10) for index in range(3)]


def keys(*arguments, **options) -> list[str]:
    refused: list = []
    found = [key for key, _ in tar_images(*arguments, refused, **options)]
    assert refused == []
    return found


def test_samples_come_tar_by_tar_in_order_of_names(folder):
    assert keys(folder) == ALL and keys(folder / "*.tar") == ALL
    assert keys(folder / "0000[12].tar") == ALL[3:9] and keys(folder / "00010.tar") == ALL[12:]
    for index, (_, image) in enumerate(tar_images(folder, [])):
        assert (image.mode, image.size, image.getpixel((0, 0))) == (
            "RGB",
            (6, 4),
            (10 * (index % 3), 0, 255 - 10 * (index % 3)),
        )
    for where in (folder / "none", folder / "*.tgz"):
        with pytest.raises(DataError, match=r"no \.tar file"):
            list_tars(where)


@pytest.mark.parametrize("done", [1, 3, 7, 14, 15])
def test_a_pass_goes_on_after_the_last_key_without_decoding_what_is_done(folder, monkeypatch, done):
    decoded = []
    plain = webdataset_tars._decode
    monkeypatch.setattr(webdataset_tars, "_decode", lambda *given: (decoded.append(1), plain(*given))[1])
    assert keys(folder, after=ALL[done - 1]) == ALL[done:] and len(decoded) == len(ALL) - done


def test_ranks_take_every_other_tar(folder):
    found = [keys(folder, rank=rank, world=2) for rank in range(2)]
    assert found == [ALL[:3] + ALL[6:9] + ALL[12:], ALL[3:6] + ALL[9:12]]
    assert keys(folder, after=ALL[7], rank=0, world=2) == [ALL[8], *ALL[12:]]
    for after in (ALL[3], "00000/none"):
        with pytest.raises(DataError, match=f"{after!r} to go on after"):
            keys(folder, after=after, rank=0, world=2)


def test_what_is_broken_or_hostile_is_left_out_and_listed(tmp_path):
    jpeg = noise()
    bad = {
        "b.jpg": (jpeg[: len(jpeg) // 2], "truncated: "),
        "c.jpg": (b"GIF but not really", "not_an_image: starts with b'GIF but not"),
        "k.png": (encoded(5)[:43] + bytes(9) + encoded(5)[52:], "undecodable: "),
        "d.png": (bomb(), "bomb: 7000×7000 pixels from"),
        "e.exe": (b"MZ", "not_an_image: of suffix '.exe'"),
        "f.jpg": (b"", "empty: 0 bytes"),
        "a.png": (encoded(9), "repeated: "),
        "g.eps": (b"%!PS-Adobe-3.0 EPSF-3.0", "not_an_image: of suffix '.eps'"),
    }
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for name, content in [("a.jpg", encoded(1)), *((name, content) for name, (content, _) in bad.items())]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, kind in (("h.jpg", tarfile.SYMTYPE), ("i.jpg", tarfile.LNKTYPE), ("j.jpg", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        folder = tarfile.TarInfo("sub")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        info = tarfile.TarInfo("../../etc/z.jpg")
        info.size = len(jpeg)
        tar.addfile(info, io.BytesIO(jpeg))
    refused: list = []
    found = [key for key, _ in tar_images(tmp_path, refused)]
    assert found == ["00000/a", "00000/../../etc/z"]
    wanted = {name: reason for name, (_, reason) in bad.items()} | dict.fromkeys(
        ["h.jpg", "i.jpg", "j.jpg"], "not_a_file"
    )
    assert [row["path"] for row in refused] == [f"{tmp_path}/00000.tar/{name}" for name in wanted]
    for row, reason in zip(refused, wanted.values(), strict=True):
        assert row["reason"].startswith(reason) and "\n" not in row["reason"]


def test_sizes_are_bounded(tmp_path, monkeypatch):
    write(tmp_path / "0.tar", samples(0, 2))
    refused: list = []
    assert not list(tar_images(tmp_path, refused, max_pixels=23))
    assert [row["reason"] for row in refused] == ["bomb: 6×4 pixels; expected at most 23 (a decompression bomb?)"] * 2
    monkeypatch.setattr(webdataset_tars, "MAX_BYTES", 20)
    assert not list(tar_images(tmp_path, refused)) and "expected 1…20" in refused[-1]["reason"]


def test_a_name_that_is_no_text_is_refused(tmp_path):
    write(tmp_path / "0.tar", [("a.jpg", encoded(1)), ("b\udcff.jpg", encoded(2))])
    refused: list = []
    assert [key for key, _ in tar_images(tmp_path, refused)] == ["0/a"]
    assert refused[0]["reason"].endswith("its name is not UTF-8") and refused[0]["path"].encode()


def test_images_come_upright_and_without_transparency(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    clear = io.BytesIO()
    Image.new("RGBA", (2, 2), (9, 9, 9, 0)).save(clear, "PNG")
    write(tmp_path / "0.tar", [("a.jpg", encoded(1, "JPEG", exif=exif)), ("b.png", clear.getvalue())])
    turned, flat = (image for _, image in tar_images(tmp_path, []))
    assert turned.size == (4, 6) and flat.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("damage", ["cut in a member", "cut in a header", "a broken header", "no tar", "empty"])
def test_a_damaged_tar_is_listed_and_the_next_one_is_read(folder, damage):
    path = folder / "00001.tar"
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        third = tar.getmembers()[6]
    cuts = {"cut in a member": third.offset_data + 20, "cut in a header": third.offset + 100}
    if damage in cuts:
        del content[cuts[damage] :]
    elif damage == "a broken header":
        content[third.offset + 148 : third.offset + 156] = b"9999999\0"
    else:
        content = bytearray(b"no tar at all" * 100 if damage == "no tar" else b"")
    path.write_bytes(content)
    refused: list = []
    found = [key for key, _ in tar_images(folder, refused)]
    before = 0 if damage in {"no tar", "empty"} else 2
    assert found == ALL[:3] + ALL[3 : 3 + before] + ALL[6:]
    assert len(refused) == 1 and refused[0]["path"] == str(path) and refused[0]["reason"].startswith("a damaged tar: ")
