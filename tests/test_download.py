"""CIFAR-100 from a server that cuts, ignores, breaks or vanishes; all on this machine."""

import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scatterproof.config.dataset import DatasetConfig
from scatterproof.victims import download
from scatterproof.victims.data import DatasetError, read_dataset
from scatterproof.victims.download import download_cifar100

NAME = "tiny.tar.gz"
TRAIN, TEST = 30, 10


@dataclass
class Server:
    """What it sends, how it misbehaves, and which Range each request carried."""

    body: bytes
    url: str = ""
    cut: list[int] = field(default_factory=list)
    ranges: bool = True
    status: int = 200
    asked: list[str | None] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges else 0
        if self.status != 200 or start >= len(self.body):
            handler.send_error(self.status if self.status != 200 else 416)
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        handler.send_header("Content-Length", str(len(self.body) - start))
        handler.end_headers()
        sent = self.body[start:]
        handler.wfile.write(sent[: self.cut.pop(0)] if self.cut else sent)


def pickled(content: Any) -> bytes:
    return pickle.dumps(content)


def pack(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(f"cifar-100-python/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@pytest.fixture(scope="module")
def members() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    content: dict[str, bytes] = {"meta": pickled({"fine_label_names": ["a", "b", "c"]})}
    for name, size in (("train", TRAIN), ("test", TEST)):
        pixels = rng.integers(0, 256, (size, 3072), dtype=np.uint8)
        content[name] = pickled({"data": pixels, "fine_labels": [i % 3 for i in range(size)]})
    return content


@pytest.fixture
def server(members: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    from scatterproof.victims.vision import torchvision

    state = Server(pack(members))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{listener.server_port}/{NAME}"
    cifar = torchvision.datasets.CIFAR100
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE", 0.0)
    for key, value in {
        "url": state.url,
        "filename": NAME,
        "tgz_md5": md5(state.body),
        "train_list": [["train", md5(members["train"])]],
        "test_list": [["test", md5(members["test"])]],
        "meta": {"filename": "meta", "key": "fine_label_names", "md5": md5(members["meta"])},
    }.items():
        monkeypatch.setattr(cifar, key, value)
    yield state
    listener.shutdown()
    listener.server_close()
    thread.join()


def part(root: Path) -> Path:
    return root / f"{NAME}.part"


def complete(root: Path, server: Server) -> bool:
    return (root / NAME).read_bytes() == server.body and (root / "cifar-100-python" / "test").exists()


def test_a_download_is_read_as_torchvision_reads_it(tmp_path: Path, server: Server, members: dict[str, bytes]) -> None:
    data = read_dataset(DatasetConfig(kind="cifar100", root=str(tmp_path / "data"), pirate=6))
    assert server.asked == [None]
    assert complete(tmp_path / "data", server)
    assert not part(tmp_path / "data").exists()
    assert (data.name, data.classes, len(data.victim), len(data.pirate), len(data.test)) == ("cifar100", 3, 24, 6, 10)
    test = pickle.loads(members["test"])
    assert np.array_equal(data.test.images.numpy().reshape(TEST, -1), test["data"])
    assert data.test.labels.tolist() == test["fine_labels"]
    assert hashlib.sha256(members["train"]).hexdigest() in data.source


def test_what_is_complete_is_not_asked_for_again(tmp_path: Path, server: Server) -> None:
    download_cifar100(tmp_path)
    (tmp_path / NAME).unlink()
    download_cifar100(tmp_path, "http://127.0.0.1:1/nobody")
    assert server.asked == [None]


def test_an_archive_put_there_by_hand_is_extracted_without_network(tmp_path: Path, server: Server) -> None:
    (tmp_path / NAME).write_bytes(server.body)
    assert download_cifar100(tmp_path, "http://127.0.0.1:1/nobody") == tmp_path / "cifar-100-python"
    assert complete(tmp_path, server)


def test_a_damaged_member_is_extracted_again(tmp_path: Path, server: Server) -> None:
    folder = download_cifar100(tmp_path)
    (folder / "train").write_bytes(b"half")
    download_cifar100(tmp_path)
    assert complete(tmp_path, server)
    assert server.asked == [None]


def test_a_truncated_body_is_gone_on_with_where_it_stopped(tmp_path: Path, server: Server) -> None:
    server.cut = [1000, 500]
    download_cifar100(tmp_path)
    assert server.asked == [None, "bytes=1000-", "bytes=1500-"]
    assert complete(tmp_path, server)


def test_a_server_that_ignores_range_sends_all_again(tmp_path: Path, server: Server) -> None:
    server.cut, server.ranges = [1000], False
    download_cifar100(tmp_path)
    assert server.asked == [None, "bytes=1000-"]
    assert complete(tmp_path, server)


def test_a_killed_download_goes_on_in_the_next_run(tmp_path: Path, server: Server) -> None:
    part(tmp_path).write_bytes(server.body[:2000])
    download_cifar100(tmp_path)
    assert server.asked == ["bytes=2000-"]
    assert complete(tmp_path, server)


def test_killed_between_the_last_byte_and_the_renaming(tmp_path: Path, server: Server) -> None:
    part(tmp_path).write_bytes(server.body)
    download_cifar100(tmp_path)
    assert server.asked == []
    assert complete(tmp_path, server)


def test_a_part_longer_than_the_archive_is_started_again(tmp_path: Path, server: Server) -> None:
    part(tmp_path).write_bytes(server.body + b"more")
    download_cifar100(tmp_path)
    assert server.asked == [f"bytes={len(server.body) + 4}-", None]
    assert complete(tmp_path, server)


def test_a_wrong_checksum_leaves_nothing(tmp_path: Path, server: Server) -> None:
    good, server.body = server.body, bytes(len(server.body))
    with pytest.raises(DatasetError, match=f"is {md5(server.body)}, expected {md5(good)}") as error:
        download_cifar100(tmp_path)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_always_cuts_is_given_up_but_what_came_is_kept(tmp_path: Path, server: Server) -> None:
    server.cut = [100] * 10
    with pytest.raises(DatasetError, match=r"the connection ended after 500 of [\d,]+ bytes; run again to go on"):
        download_cifar100(tmp_path)
    assert part(tmp_path).stat().st_size == 500
    assert not (tmp_path / NAME).exists()


def test_no_server_says_what_to_do(tmp_path: Path, server: Server) -> None:
    with pytest.raises(DatasetError, match="cannot be reached") as error:
        download_cifar100(tmp_path, "http://127.0.0.1:1/tiny.tar.gz")
    assert str(tmp_path / NAME) in str(error.value)
    assert str(tmp_path / "cifar100.npz") in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (503, download.ATTEMPTS)])
def test_a_refusal_is_final_and_an_overload_is_not(tmp_path: Path, server: Server, status: int, requests: int) -> None:
    server.status = status
    with pytest.raises(DatasetError, match=f"HTTP {status}"):
        download_cifar100(tmp_path)
    assert len(server.asked) == requests


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "file:///etc/hosts", "data"])
def test_only_http_is_spoken(tmp_path: Path, server: Server, url: str) -> None:
    with pytest.raises(DatasetError, match=r"dataset\.url '.*': expected http"):
        download_cifar100(tmp_path, url)


def test_arrays_beside_it_make_the_download_needless(tmp_path: Path, server: Server) -> None:
    x, y = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8), np.arange(4)
    np.savez(tmp_path / "cifar100.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    data = read_dataset(DatasetConfig(kind="cifar100", root=str(tmp_path), pirate=1))
    assert (data.name, data.classes) == ("cifar100", 4)
    assert "cifar100.npz (sha256" in data.source
    assert server.asked == []
