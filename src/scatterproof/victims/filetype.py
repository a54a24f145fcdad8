"""What a file holds, told from its first bytes and not from its name, so that an error can say what it is instead."""

import errno
import zipfile
from pathlib import Path

NPZ = "an .npz of arrays"
SAFETENSORS = "a safetensors file"
TORCH = "a file of torch.save"
PICKLE = "a pickle"
DAMAGED_ZIP = "a zip archive that is cut off or damaged"

_HEAD = 1024
_SIGNATURES = (
    (b"version https://git-lfs.github.com/spec/", "a git-LFS pointer and not the file itself: run git lfs pull"),
    (b"\x93NUMPY", "a numpy array (.npy)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"GGUF", "a GGUF file"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"%PDF", "a PDF"),
)


def file_type(path: Path) -> str:
    """What the file holds, as a phrase: one of the constants above, or any other. Raises: OSError."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return "empty"
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:2] == b"PK":
        return _zip_type(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:  # the length of the header, then JSON
        return SAFETENSORS
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5":
        return TORCH if head[2:14] == b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19" else PICKLE  # torch.save before 1.6
    return _text_type(head)


def _zip_type(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except OSError as error:
        if error.errno != errno.EINVAL:  # the disk's fault; a damaged directory asks for a place that is none
            raise
        return DAMAGED_ZIP
    # Of a damaged directory: names that are not UTF-8 (ValueError), a version that is none (NotImplementedError)
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return DAMAGED_ZIP
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript program"
    if any(name.endswith("/data.pkl") for name in names):
        return TORCH
    return NPZ if any(name.endswith(".npy") for name in names) else "a zip archive of other files"


def _text_type(head: bytes) -> str:
    for cut in range(4):  # the last character may have been split
        try:
            text = head[: len(head) - cut].decode("utf-8")
            break
        except UnicodeDecodeError:
            continue
    else:
        return "a file of an unknown type"
    line = " ".join(text.split())
    if not line.isprintable() or not line:
        return "a file of an unknown type"
    if line.lower().startswith(("<!doctype html", "<html", "<head")):
        return "an HTML page, as a failed download leaves it"
    return f"text that begins '{line[:40]}'"
