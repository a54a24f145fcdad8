"""CIFAR-100 from the network: one archive, fetched so that an interrupted download goes on where it stopped."""

import hashlib
import http.client
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from scatterproof.errors import UserError

ATTEMPTS = 5
PAUSE = 1.0  # seconds before the second attempt; each later pause is longer by as much
TIMEOUT = 30.0  # seconds without a byte that end an attempt
CHUNK = 1 << 18


class DatasetError(UserError):
    """A dataset that can't be used, said in one line: file, key or array, value, what was expected."""


class _Interrupted(Exception):
    """An attempt ended before the file was whole; another may go on."""


def download_cifar100(root: Path | str, url: str | None = None) -> Path:
    """Make torchvision's CIFAR-100 stand complete under `root`; without any network access if it does already.

    `url` is a mirror of the archive. What has arrived stays in `<archive>.part`, and the next call goes on from there.
    Returns the folder of the extracted files.
    Raises: DatasetError (network down, wrong checksum, damaged archive); OSError where `root` can't be written.
    """
    from scatterproof.victims.vision import torchvision

    dataset: Any = torchvision.datasets.CIFAR100
    root = Path(root)
    folder = root / str(dataset.base_folder)
    if is_complete(root):
        return folder
    archive = root / str(dataset.filename)
    if _md5(archive) != dataset.tgz_md5:
        root.mkdir(parents=True, exist_ok=True)
        _fetch(url or str(dataset.url), archive, dataset.tgz_md5)
    try:
        dataset(root, train=True, download=True)
        dataset(root, train=False, download=True)
    except (RuntimeError, tarfile.TarError, EOFError) as error:
        raise DatasetError(f"{archive}: cannot be extracted: {error}") from None
    return folder


def is_complete(root: Path) -> bool:
    """Whether torchvision's CIFAR-100 stands under `root`, every file as it should be."""
    from scatterproof.victims.vision import torchvision

    dataset: Any = torchvision.datasets.CIFAR100
    members = [*dataset.train_list, *dataset.test_list, (dataset.meta["filename"], dataset.meta["md5"])]
    return all(_md5(root / str(dataset.base_folder) / name) == md5 for name, md5 in members)


def _md5(path: Path) -> str | None:
    """The checksum of a file, none where there is no file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _fetch(url: str, target: Path, md5: str) -> None:
    """Fetch `url` to `target`, in several attempts if need be, and put it there only if its checksum is right."""
    part = target.with_name(target.name + ".part")
    if not url.startswith(("http://", "https://")):
        raise DatasetError(f"dataset.url '{url}': expected http:// or https://")
    if _md5(part) != md5:
        _receive_all(url, part, target)
    checksum = _md5(part)
    if checksum != md5:
        part.unlink()
        raise DatasetError(
            f"{url}: the checksum (md5) of what was received is {checksum}, expected {md5}; it was deleted"
        )
    part.replace(target)


def _receive_all(url: str, part: Path, target: Path) -> None:
    """Receive into `part` until the server has no more, with pauses between the attempts."""
    problem = ""
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE * attempt)
        try:
            return _receive(url, part)
        except _Interrupted as error:
            problem = str(error)
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code} {error.reason}"
            if error.code == 416 and part.exists():  # what stands there is longer than the file: start again
                part.unlink()
            elif error.code < 500:
                break
    raise DatasetError(
        f"{url}: {problem}; run again to go on where it stopped, or put the archive at {target}, "
        f"or the arrays x_train, y_train, x_test, y_test at {target.parent / 'cifar100.npz'}"
    )


def _receive(url: str, part: Path) -> None:
    """One request: append what `part` lacks, or start from zero if the server sends the whole file."""
    offset = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "scatterproof"} | ({"Range": f"bytes={offset}-"} if offset else {})
    with _open(urllib.request.Request(url, headers=headers)) as reply:
        resumed = reply.status == 206
        if resumed and not reply.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            part.unlink()
            raise _Interrupted("the server sent another range than was asked for")
        announced = reply.headers.get("Content-Length")
        done = offset if resumed else 0
        total = done + int(announced) if announced else None
        bar = tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=part.stem, disable=None)
        with bar, part.open("ab" if resumed else "wb") as file:
            for chunk in _chunks(reply):
                file.write(chunk)
                done += len(chunk)
                bar.update(len(chunk))
    if total is not None and done < total:
        raise _Interrupted(f"the connection ended after {done:,} of {total:,} bytes")


def _open(request: urllib.request.Request) -> Any:
    """The reply to a request. Raises: HTTPError; _Interrupted for every other failure on the way."""
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        raise _Interrupted(f"cannot be reached ({error.reason})") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(f"no proper reply ({error!r})") from None


def _chunks(reply: Any) -> Iterator[bytes]:
    """The body of a reply in pieces. Errors of the network only: those of the disk are the caller's."""
    while True:
        try:
            chunk: bytes = reply.read(CHUNK)
        except http.client.IncompleteRead as error:
            yield error.partial
            raise _Interrupted("the connection ended early") from None
        except (OSError, http.client.HTTPException) as error:
            raise _Interrupted(f"the connection broke ({error})") from None
        if not chunk:
            return
        yield chunk
