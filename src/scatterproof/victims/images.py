"""Image folders: every file as an upright picture of 8-bit RGB, or refused by name."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from scatterproof.victims.arrays import Split, check_images
from scatterproof.victims.download import DatasetError
from scatterproof.victims.filetype import file_type

FORMATS = ("BMP", "DIB", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
EXPECTED = "expected 1, 2, 4, 8 or 16 bits of grey, or 8 bits of palette, RGB, CMYK or YCbCr; convert it"
PLAIN = ("1", "L", "RGB", "CMYK", "YCbCr")
ALPHA = ("P", "LA", "La", "PA", "RGBA", "RGBa")
GREY16 = ("I;16", "I;16B", "I;16L", "I;16N")
VALIDATION = ("val", "valid", "validation")  # one of these is the test's part where there is no other
UNREAD = ("thumbs.db", "desktop.ini")
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF


def read_folder(path: Path, size: int) -> tuple[Split, Split, str]:
    """Training and test images of `path`/train/<class>/* and `path`/test/<class>/*, uint8 [N,3,size,size].

    Without a folder `test` a single one of validation images is it, and a line is printed.
    Also the sha256 of all names and files. Raises: DatasetError.
    """
    from scatterproof.victims.vision import torchvision

    readers, tested = [], _test_part(path)
    for part in ("train", tested):
        try:
            reader = torchvision.datasets.ImageFolder(path / part)
        except OSError as error:
            line = " ".join(str(error.strerror or error).split())
            raise DatasetError(f"{path / part}: {line}; expected one folder of images per class") from None
        _check_all_read(path / part, {Path(name) for name, _ in reader.samples})
        readers.append(reader)
    train, test = readers
    if train.classes != test.classes:
        odd = ", ".join(sorted(set(train.classes) ^ set(test.classes)))
        raise DatasetError(
            f"{path}: train and {tested} differ in their classes ({odd}), expected the same folders in both"
        )
    if len(train.classes) == 1:
        raise DatasetError(f"{path}: one class alone, {train.classes[0]}, expected at least two folders in train")
    digest = hashlib.sha256()
    splits = [_read_files(path, reader.samples, size, digest) for reader in readers]
    check_images(splits[0], splits[1], f"{path / 'train'}", f"{path / tested}")
    if tested != "test":
        print(f"{path}: {tested} is test")
    return splits[0], splits[1], digest.hexdigest()


def _test_part(path: Path) -> str:
    """The folder of the test images."""
    others = [name for name in VALIDATION if (path / name).is_dir()]
    return others[0] if len(others) == 1 and not (path / "test").is_dir() else "test"


def _check_all_read(folder: Path, read: set[Path]) -> None:
    """No file is passed over, but hidden ones and what file managers leave."""
    for file in sorted(folder.rglob("*")):
        if file in read or file.name.startswith(".") or file.name.lower() in UNREAD or not file.is_file():
            continue
        raise DatasetError(
            f"{file}: would not be read, expected .jpg, .png, .ppm, .pgm, .bmp, .tif or .webp in a folder of its class"
        )


def _read_files(path: Path, samples: list[tuple[str, int]], size: int, digest: "hashlib._Hash") -> Split:
    """Read images as RGB, the short side resized to `size` and the middle square cut out."""
    images = torch.empty(len(samples), 3, size, size, dtype=torch.uint8)
    for i, (name, _) in enumerate(samples):
        try:
            data = Path(name).read_bytes()
            square = ImageOps.fit(read_image(data, name), (size, size), Image.Resampling.BILINEAR)
        except DatasetError:
            raise
        except UnidentifiedImageError:
            what = file_type(Path(name))
            raise DatasetError(
                f"{name}: cannot be decoded as an image: {what}, expected {', '.join(FORMATS)}"
            ) from None
        except Exception as error:  # damage surfaces as any of a dozen types
            line = " ".join(str(error).split())
            raise DatasetError(f"{name}: cannot be decoded as an image ({line})") from None
        images[i] = torch.from_numpy(np.array(square)).permute(2, 0, 1)
        digest.update(f"{Path(name).relative_to(path)}\0{len(data)}\0".encode() + data)
    return Split(images, torch.tensor([label for _, label in samples], dtype=torch.int64))


def read_image(data: bytes, name: str) -> Image.Image:
    """A file's picture as 8-bit RGB, turned upright where its EXIF data say how; colour profiles are not applied.

    16 bits of grey are scaled to 8, v / 257 rounded. Raises: DatasetError where the mode tells no such values, a pixel
    is transparent, or there are several pictures; what Pillow raises where the file is damaged.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_kind(image, data, name)
        inverted = _tag(image, PHOTOMETRIC) == [0]
        image.load()
        _check_opaque(image, name)
        upright = ImageOps.exif_transpose(image)
        if image.mode in PLAIN:
            return upright.convert("RGB")
        if image.mode in ALPHA:
            return upright.convert("LA" if image.mode == "La" else "RGBA").convert("RGB")
        values = np.asarray(upright).astype(np.uint32)
        return Image.fromarray(_to_8_bits(65535 - values if inverted else values, name)).convert("RGB")


def _check_kind(image: Image.Image, data: bytes, name: str) -> None:
    """What the values of the file mean is known. To be called before they are loaded."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a camera's MPO holds its picture first, then previews
        raise DatasetError(f"{name}: holds {frames} pictures, expected one a file")
    bits = data[24] if image.format == "PNG" else max(_tag(image, BITS), default=8)
    grey16 = image.mode in GREY16 or (image.mode == "I" and image.format in ("PNG", "PPM"))
    plain = image.mode in PLAIN + ALPHA and bits <= 8
    if not (plain or (grey16 and bits in (8, 16))):
        raise DatasetError(f"{name}: mode {image.mode} of {bits} bits a channel, {EXPECTED}")
    if any(kind not in (1, 4) for kind in _tag(image, SAMPLE_FORMAT)):
        raise DatasetError(f"{name}: mode {image.mode} of signed or floating-point samples, {EXPECTED}")


def _tag(image: Image.Image, tag: int) -> list[int]:
    """The values of a TIFF's tag; none of another file's."""
    values: Any = image.tag_v2.get(tag, ()) if image.format == "TIFF" else ()  # type: ignore[attr-defined]
    return list(values) if isinstance(values, tuple) else [int(values)]


def _check_opaque(image: Image.Image, name: str) -> None:
    """Every pixel hides what would be behind it: no background is invented."""
    key = image.info.get("transparency")
    if image.mode not in ALPHA and key is None:
        return
    if image.mode in PLAIN + ALPHA:
        alpha = np.asarray(image.convert("LA" if image.mode == "La" else "RGBA"))[..., -1]
    else:
        alpha = np.where(np.asarray(image) == key, 0, 255)
    if alpha.min() < 255:
        y, x = np.unravel_index(int(alpha.argmin()), alpha.shape)
        raise DatasetError(
            f"{name}: mode {image.mode}: the pixel at x {x}, y {y} has alpha {alpha.min()}, expected 255 everywhere: "
            "lay the image over a background"
        )


def _to_8_bits(values: np.ndarray[Any, np.dtype[np.uint32]], name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """0..65535 to 0..255; values that all fit 8 bits would be black, and are no 16-bit picture."""
    if 0 < values.max() < 256:
        raise DatasetError(
            f"{name}: 16 bits of grey whose values end at {values.max()}, expected up to 65535: save 8 bits"
        )
    return ((values + 128) // 257).astype(np.uint8)
