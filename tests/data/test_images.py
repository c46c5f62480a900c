import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aaca.data.images import open_image, read_image, upright_size
from aaca.runtime.errors import DataError


def noise(height: int = 20, width: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is and then ends: what a decoder sees before it unpacks."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "ppm"])
def test_lossless_formats_come_back_exactly(tmp_path: Path, suffix: str) -> None:
    pixels = noise()
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(read_image(path), pixels)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    pixels, path = noise(), tmp_path / "a.png"
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # stored 90° counter-clockwise of upright
    image.save(path, exif=exif)
    assert np.array_equal(read_image(path), np.rot90(pixels, -1))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_from_the_header_is_that_of_the_upright_image(suffix: str, orientation: int, tmp_path: Path) -> None:
    path, exif = tmp_path / f"a.{suffix}", Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise(20, 30)).save(path, exif=exif)
    assert upright_size(path) == open_image(path).size == ((30, 20) if orientation < 5 else (20, 30))


def test_the_size_of_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(DataError, match=r"a\.png: not a readable image"):
        upright_size(tmp_path / "a.png")


def test_16_bit_grey_keeps_its_scale_also_when_dark(tmp_path: Path) -> None:
    values = np.array([[0, 255, 257 * 100, 65535]], dtype=np.uint16)
    path = tmp_path / "a.png"
    Image.fromarray(values).save(path)
    assert read_image(path)[0, :, 0].tolist() == [0, 0, 100, 255]
    Image.fromarray(np.full((4, 4), 200, dtype=np.uint16)).save(path)  # nearly black, not a light grey
    assert read_image(path).max() == 0


@pytest.mark.parametrize(("dtype", "top"), [(np.int32, 255), (np.int32, 65535), (np.float32, 1.0), (np.float32, 255.0)])
def test_other_deep_grey_is_scaled_by_its_range(tmp_path: Path, dtype: type, top: float) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.array([[0, top / 2, top]]).astype(dtype)).save(path)
    assert read_image(path)[0, :, 0].tolist() == [0, 127, 255]


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((2, 2, 4), dtype=np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    expected = np.full((2, 2, 3), 255)
    expected[0, 0] = (10, 20, 30)
    assert np.array_equal(read_image(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.png")
    Image.fromarray(np.full((8, 8, 3), 255, dtype=np.uint8)).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (8, 8, 3) and image.dtype == np.uint8 and image.min() >= 250


@pytest.mark.parametrize(("width", "height"), [(8001, 8000), (20_000, 20_000), (2**31 - 1, 1)])
def test_bombs_are_refused_from_the_header(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(width, height))
    with pytest.raises(DataError, match=r"bomb\.png: .*decompression bomb"):
        open_image(path)


def test_a_tiny_file_that_unpacks_hugely_is_refused_below_the_cap(tmp_path: Path) -> None:
    path = tmp_path / "flat.png"
    path.write_bytes(png_header(5000, 5000))  # 75 MB from some 70 bytes
    with pytest.raises(DataError, match="5000×5000 pixels from"):
        open_image(path)


def test_the_pixel_cap_is_inclusive(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(noise(20, 30)).save(path)
    assert open_image(path, max_pixels=600).size == (30, 20)
    with pytest.raises(DataError, match="expected at most 599"):
        open_image(path, max_pixels=599)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",  # would start Ghostscript
        b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
        b"\xff\xd8\xff\xe0" + bytes(range(200)),
        b"GIF89a" + b"\xff" * 30,
        b"II*\0" + b"\xff" * 60,
        b"BM" + b"\0" * 80,
        b"RIFF\x10\0\0\0WEBPVP8 ",
    ],
)
def test_garbage_raises_one_line_with_the_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        open_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_never_raise_anything_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a"
    exif = Image.Exif()
    exif[0x0112] = 3
    refused = 0
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"):
        Image.fromarray(noise(16, 16)).save(path, format=kind, **({"exif": exif} if kind in ("JPEG", "PNG") else {}))
        whole = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        for _ in range(60):
            bad = whole[: rng.integers(1, len(whole) + 1)].copy()
            bad[rng.integers(0, len(bad), 4)] = rng.integers(0, 256, 4)
            path.write_bytes(bad.tobytes())
            try:
                assert read_image(path).ndim == 3
            except DataError:
                refused += 1
    assert refused > 150


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match="not a regular file"):
        open_image(tmp_path / "pipe.jpg")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        open_image(tmp_path / "gone.png")
    with pytest.raises(DataError, match="not a regular file"):
        open_image(tmp_path)
