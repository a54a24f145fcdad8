"""Files of an image folder: the pixel values of every kind of picture are right, or one line refuses it."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scatterproof.config.dataset import DatasetConfig
from scatterproof.victims.data import DatasetError, read_dataset
from scatterproof.victims.images import read_image

GREY = np.array([[0, 1, 100], [128, 200, 255]], np.uint8)
GREY16 = np.array([[0, 1000, 32768], [40000, 65534, 65535]], np.uint16)
COLOURS = np.stack([GREY, 255 - GREY, GREY // 2], -1)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(read_image(data, "a.png"))


def refusal(data: bytes) -> str:
    with pytest.raises(DatasetError) as error:
        read_image(data, "pets/a.png")
    message = str(error.value)
    assert message.startswith("pets/a.png: ") and "\n" not in message
    return message


def with_tag(data: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF with a short tag set to another value."""
    entry = data.index(struct.pack("<HHI", tag, 3, 1))
    return data[: entry + 8] + struct.pack("<H", value) + data[entry + 10 :]


def palette(transparency: bytes | None = None) -> bytes:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 200, 100, 0, 255, 255, 255])
    return saved(image, "PNG", **({} if transparency is None else {"transparency": transparency}))


# Values


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "BMP"])
def test_8_bits_of_grey_and_colour_are_kept(kind: str) -> None:
    assert np.array_equal(pixels(saved(Image.fromarray(GREY), kind)), np.stack([GREY] * 3, -1))
    assert np.array_equal(pixels(saved(Image.fromarray(COLOURS), kind)), COLOURS)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "BMP"])
def test_1_bit_is_black_and_white(kind: str) -> None:
    assert pixels(saved(Image.fromarray(GREY).point(lambda v: 255 * (v > 99), "1"), kind))[..., 1].tolist() == [
        [0, 0, 255], [255, 255, 255],
    ]  # fmt: skip


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_of_grey_span_black_to_white(bits: int) -> None:
    """A PNG of one row, written by hand: Pillow writes no grey of 2 or 4 bits."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 8 // bits, 1, bits, 0, 0, 0, 0)
    row = b"\0" + bytes([0b11100100 if bits == 2 else 0b11110000])
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    expected = {1: [255] * 4 + [0] * 4, 2: [255, 170, 85, 0], 4: [255, 0]}
    assert pixels(data)[0, :, 0].tolist() == expected[bits]


@pytest.mark.parametrize(
    ("kind", "options", "big"),
    [
        ("PNG", {}, False),
        ("TIFF", {}, False),
        ("TIFF", {}, True),
        ("TIFF", {"compression": "tiff_lzw"}, False),
        ("PPM", {}, False),
    ],
)
def test_16_bits_of_grey_are_scaled(kind: str, options: dict[str, Any], big: bool) -> None:
    image = Image.frombytes("I;16B", (3, 2), GREY16.astype(">u2").tobytes()) if big else Image.fromarray(GREY16)
    data = saved(image, kind, **options)
    if big:
        assert Image.open(io.BytesIO(data)).mode == "I;16B"
    assert np.array_equal(pixels(data), np.stack([np.rint(GREY16 / 257).astype(np.uint8)] * 3, -1))


@given(st.lists(st.integers(0, 65535), min_size=2, max_size=2).filter(lambda values: max(values) > 255))
def test_every_16_bit_value_is_within_half_a_level(values: list[int]) -> None:
    read = pixels(saved(Image.fromarray(np.array([values], np.uint16)), "PNG"))[0, :, 0]
    assert np.abs(read * 257.0 - values).max() <= 128


def test_grey_whose_zero_is_white_is_inverted() -> None:
    data = with_tag(saved(Image.fromarray(GREY16), "TIFF"), 262, 0)
    assert np.array_equal(pixels(data)[..., 0], np.rint((65535 - GREY16.astype(int)) / 257))
    data = with_tag(saved(Image.fromarray(GREY), "TIFF"), 262, 0)
    assert np.array_equal(pixels(data)[..., 0], 255 - GREY)


def test_a_palette_gives_its_colours() -> None:
    expected = [[[10, 20, 30], [200, 100, 0]], [[255, 255, 255], [200, 100, 0]]]
    assert pixels(palette()).tolist() == expected
    assert pixels(palette(b"\xff\xff\xff")).tolist() == expected


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_and_ycbcr_become_rgb(kind: str) -> None:
    flat = np.broadcast_to(np.array([0, 128, 255, 51], np.uint8), (16, 16, 4))
    near = np.array([255 * 0.8, 127 * 0.8, 0])
    assert np.abs(pixels(saved(Image.fromarray(flat, "CMYK"), kind)).astype(int) - near).max() <= 2
    colour = Image.new("RGB", (16, 16), (200, 100, 40))
    assert np.abs(pixels(saved(colour.convert("YCbCr"), kind)).astype(int) - [200, 100, 40]).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_opaque_alpha_is_dropped(kind: str) -> None:
    image = Image.fromarray(COLOURS)
    image.putalpha(255)
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(pixels(saved(image, kind, **options)), COLOURS)
    if kind != "WEBP":
        grey = Image.fromarray(GREY)
        grey.putalpha(255)
        assert grey.mode == "LA"
        assert np.array_equal(pixels(saved(grey, kind))[..., 0], GREY)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize("grey", ["L", "I;16"])
def test_a_picture_taken_sideways_is_turned_upright(kind: str, grey: str) -> None:
    if kind == "JPEG" and grey == "I;16":
        grey = "RGB"
    lying = np.zeros((8, 16), np.uint8)
    lying[:, 8:] = 255
    image = Image.fromarray(lying.astype(np.uint16) * 257) if grey == "I;16" else Image.fromarray(lying).convert(grey)
    exif = Image.Exif()
    exif[274] = 6  # to be shown turned right by 90 degrees
    read = pixels(saved(image, kind, exif=exif))[..., 0]
    assert read.shape == (16, 8)
    assert (read[:7] < 20).all() and (read[9:] > 235).all()


# Refusals


def transparent(mode: str) -> bytes:
    alpha = Image.fromarray(np.array([[255, 255, 254], [255, 0, 255]], np.uint8))
    image = Image.fromarray(GREY if mode == "LA" else COLOURS)
    image.putalpha(alpha)
    return saved(image, "PNG")


KEYS: list[tuple[Image.Image, Any]] = [
    (Image.fromarray(GREY), 200),
    (Image.fromarray(COLOURS), (200, 55, 100)),
    (Image.fromarray(GREY16), 65534),
]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_refused(mode: str) -> None:
    assert f"mode {mode}: the pixel at x 1, y 1 has alpha 0, expected 255 everywhere" in refusal(transparent(mode))


def test_transparent_colours_are_refused() -> None:
    assert "mode P: the pixel at x 1, y 0 has alpha 7, expected 255" in refusal(palette(b"\xff\x07"))
    for image, colour in KEYS:
        line = refusal(saved(image, "PNG", transparency=colour))
        assert f"mode {image.mode}: the pixel at x 1, y 1 has alpha 0, expected 255" in line


def test_a_transparent_colour_that_no_pixel_has_is_fine() -> None:
    assert np.array_equal(pixels(saved(Image.fromarray(GREY), "PNG", transparency=17))[..., 0], GREY)
    assert pixels(saved(Image.fromarray(GREY16), "PNG", transparency=17))[1, 2, 0] == 255


def png_16_bit_colour() -> bytes:
    data = bytearray(saved(Image.fromarray(COLOURS), "PNG"))
    data[24] = 16
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


REFUSED: dict[str, tuple[bytes, str]] = {
    "float": (saved(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"), "mode F of 32 bits a channel, expected"),
    "int": (saved(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "mode I of 32 bits a channel, expected"),
    "16-bit colour": (png_16_bit_colour(), "mode RGB of 16 bits a channel, expected"),
    "lab": (saved(Image.new("LAB", (2, 2)), "TIFF"), "mode LAB of 8 bits a channel, expected"),
    "8 bits in 16": (saved(Image.fromarray(GREY.astype(np.uint16)), "PNG"), "values end at 255, expected up to 65535"),
    "frames": (
        saved(Image.fromarray(GREY), "TIFF", save_all=True, append_images=[Image.fromarray(GREY)]),
        "holds 2 pictures, expected one a file",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_values_of_unknown_meaning_are_refused(case: str) -> None:
    data, named = REFUSED[case]
    assert named in refusal(data)


def test_signed_samples_are_refused() -> None:
    data = saved(Image.fromarray(GREY), "TIFF", tiffinfo={339: 1})
    assert np.array_equal(pixels(data)[..., 0], GREY)
    assert "mode L of signed or floating-point samples, expected" in refusal(with_tag(data, 339, 2))


# Folders


def folder(root: Path, data: bytes) -> DatasetConfig:
    """Two classes of two pictures each in both parts, and a further file of this content."""
    for part in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (4, 4), (100 * label, i, 7)).save(root / part / name / f"{i}.png")
    (root / "train" / "cat" / "odd.png").write_bytes(data)
    return DatasetConfig(kind="folder", path=str(root), image_size=4, pirate=0)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "mode F of 32 bits"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a git-LFS pointer and not the file"),
        (b"<!DOCTYPE html><html>", "an HTML page, as a failed download leaves it, expected BMP"),
        (b"", "cannot be decoded as an image: empty, expected BMP"),
        (saved(Image.fromarray(GREY), "GIF"), "cannot be decoded as an image: a GIF image, expected BMP"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, data: bytes, named: str) -> None:
    with pytest.raises(DatasetError) as error:
        read_dataset(folder(tmp_path, data))
    assert str(error.value).startswith(f"{tmp_path}/train/cat/odd.png: ")
    assert named in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("stray", ["train/cat/x.gif", "train/cat/x.npy", "test/x.png"])
def test_no_file_is_passed_over(tmp_path: Path, stray: str) -> None:
    config = folder(tmp_path, saved(Image.fromarray(GREY), "PNG"))
    (tmp_path / "train" / "cat" / ".hidden").touch()
    (tmp_path / "train" / "cat" / "Thumbs.db").touch()
    assert read_dataset(config).classes == 2
    (tmp_path / stray).touch()
    with pytest.raises(DatasetError, match=f"^{tmp_path}/{stray}: would not be read, expected .jpg"):
        read_dataset(config)


def test_a_folder_of_one_picture_again_and_again_is_refused(tmp_path: Path) -> None:
    config = folder(tmp_path, saved(Image.fromarray(GREY), "PNG"))
    for file in (tmp_path / "test").rglob("*.png"):
        Image.new("RGB", (4, 4)).save(file)
    with pytest.raises(DatasetError, match=f"^{tmp_path}/test: all 4 images are the same, expected images that differ"):
        read_dataset(config)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_images_are_the_test_where_there_are_no_others(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = folder(tmp_path, saved(Image.fromarray(GREY), "PNG"))
    expected = read_dataset(config)
    assert capsys.readouterr().out == ""
    (tmp_path / "test").rename(tmp_path / name)
    assert np.array_equal(read_dataset(config).test.images, expected.test.images)
    assert capsys.readouterr().out == f"{tmp_path}: {name} is test\n"
    (tmp_path / "test").mkdir()
    with pytest.raises(DatasetError, match=f"^{tmp_path}/test: .*expected one folder of images per class"):
        read_dataset(config)


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    config = folder(tmp_path, saved(Image.fromarray(GREY), "PNG"))
    for part in ("train", "test"):
        for file in (tmp_path / part / "dog").iterdir():
            file.unlink()
        (tmp_path / part / "dog").rmdir()
    with pytest.raises(DatasetError, match="one class alone, cat, expected at least two folders"):
        read_dataset(config)
