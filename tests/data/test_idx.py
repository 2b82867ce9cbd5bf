"""MNIST and Fashion-MNIST: read, found and downloaded; small ones are made here in the real format."""

import gzip
import hashlib
import http.server
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from helpers.loaded_images import (
    UNREACHABLE,
    assert_mean_and_std,
    assert_message_is_one_line,
    assert_sound,
    digest,
    exit_codes,
    in_processes,
)
from helpers.other_kinds import pipe
from helpers.time_limit import within
from torch import Tensor

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.config.registries import DATA
from hidden_subnet.data import idx
from hidden_subnet.data.catalog import load, prepare, taken_from
from hidden_subnet.errors import DataError

TINY = DataInfo((1, 3, 2), 10, 12, 10, (0.5,), (0.25,))


def idx_bytes(array: np.ndarray[Any, Any]) -> bytes:
    magic = 0x0800 + array.ndim
    return b"".join(n.to_bytes(4, "big") for n in (magic, *array.shape)) + array.astype(np.uint8).tobytes()


def tiny_arrays(name: str) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.RandomState(0)
    return {
        "train-images-idx3-ubyte": random.randint(0, 256, (12, 3, 2)),
        "train-labels-idx1-ubyte": np.arange(12) % 10,
        "t10k-images-idx3-ubyte": random.randint(0, 256, (10, 3, 2)),
        "t10k-labels-idx1-ubyte": np.frombuffer(idx.FIRST_TEST_LABELS[name], np.uint8),
    }


def write_idx(folder: Path, name: str, zipped: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, array in tiny_arrays(name).items():
        if zipped:
            (folder / f"{file}.gz").write_bytes(gzip.compress(idx_bytes(array)))
        else:
            (folder / file).write_bytes(idx_bytes(array))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few images of three by two pixels in the place of mnist and fashion_mnist, no package, no network."""
    for name in ("mnist", "fashion_mnist"):
        small = replace(DATA[name], info=TINY, read=partial(idx.read, name, info=TINY))
        monkeypatch.setitem(DATA, name, small)
    monkeypatch.setattr(idx, "PACKAGED", {})
    for source in (torchvision.datasets.MNIST, torchvision.datasets.FashionMNIST):
        monkeypatch.setattr(source, "mirrors", [UNREACHABLE])


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("name", "below"),
    [("mnist", ""), ("mnist", "MNIST/raw"), ("fashion_mnist", ""), ("fashion_mnist", "FashionMNIST/raw")],
)
def test_idx_files_are_read(tmp_path: Path, name: str, below: str, zipped: bool) -> None:
    write_idx(tmp_path / below, name, zipped)
    before = sorted(tmp_path.rglob("*"))
    images = load(name, tmp_path)
    arrays = list(tiny_arrays(name).values())
    expected: list[Tensor] = [torch.from_numpy(np.array(array)).long() for array in arrays]
    assert images.train[:, 0].long().equal(expected[0])
    assert images.train_labels.equal(expected[1])
    assert images.test[:, 0].long().equal(expected[2])
    assert images.test_labels.equal(expected[3])
    assert images.train.shape == (12, 1, 3, 2)
    # Nothing is written where the files are: the root may be read-only.
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("tiny")
def test_packaged_files_are_found_without_being_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path / "package", "fashion_mnist", zipped=True)
    monkeypatch.setattr(idx, "PACKAGED", {"fashion_mnist": tmp_path / "package"})
    (tmp_path / "file").touch()
    for root in (tmp_path / "unused", tmp_path / "file"):
        assert len(load("fashion_mnist", root).train) == 12
    assert not (tmp_path / "unused").exists()
    line = (
        f"data=fashion_mnist: {tmp_path / 'unused'} does not have its files; they are read from {tmp_path / 'package'}"
    )
    assert taken_from("fashion_mnist", tmp_path / "unused") == line
    assert taken_from("fashion_mnist", Path("data")) == ""  # the default, which nobody named
    write_idx(tmp_path / "given", "fashion_mnist", zipped=True)
    assert taken_from("fashion_mnist", tmp_path / "given") == ""


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("file", list(idx.FILES))
@pytest.mark.parametrize(
    ("damage", "zipped"),
    [
        (lambda raw: raw[:-1], True),
        (lambda raw: raw[: len(raw) // 2], True),
        (lambda raw: raw[:15] + bytes([raw[15] ^ 255]) + raw[16:], True),
        (lambda raw: b"", True),
        (lambda raw: b"no gzip at all", True),
        (lambda raw: raw[:-1], False),
        (lambda raw: raw + b"\0", False),
        (lambda raw: raw[:3], False),
        (lambda raw: b"\0\0\x09" + raw[3:], False),
        (lambda raw: raw[:7] + b"\x0b" + raw[8:], False),
    ],
    ids=["end", "half", "bit", "empty", "text", "short", "long", "header", "type", "count"],
)
def test_a_damaged_file_is_named(tmp_path: Path, file: str, damage: Callable[[bytes], bytes], zipped: bool) -> None:
    write_idx(tmp_path, "mnist", zipped)
    path = tmp_path / (f"{file}.gz" if zipped else file)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as error:
        load("mnist", tmp_path)
    assert_message_is_one_line(error, str(path))


@pytest.mark.usefixtures("tiny")
def test_a_label_beyond_the_classes_is_refused(tmp_path: Path) -> None:
    write_idx(tmp_path, "mnist", zipped=False)
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0a")
    with pytest.raises(DataError) as error:
        load("mnist", tmp_path)
    assert_message_is_one_line(error, str(path), "label 10 of 10 classes")


@pytest.mark.usefixtures("tiny")
def test_fashion_is_not_taken_for_mnist(tmp_path: Path) -> None:
    write_idx(tmp_path, "fashion_mnist", zipped=True)
    assert len(load("fashion_mnist", tmp_path).test) == 10
    with pytest.raises(DataError) as error:
        load("mnist", tmp_path)
    assert_message_is_one_line(error, "t10k-labels-idx1-ubyte.gz", "data.root")


@pytest.mark.skipif(
    idx.find("fashion_mnist", Path("nowhere")) is None,
    reason="Debian's dataset-fashion-mnist is not installed",
)
def test_debians_fashion_mnist(tmp_path: Path) -> None:
    images = load("fashion_mnist", tmp_path / "unused")
    assert_sound(images)
    assert_mean_and_std(images, 0.0001)
    assert digest(images) == "ece172613115fb18b120bec8f6c02271af90b8b8f0a5af5c51cbd5ceed68e619"
    assert not (tmp_path / "unused").exists()
    assert len(load("fashion_mnist", idx.PACKAGED["fashion_mnist"]).train) == 60_000


class Server(socketserver.TCPServer):
    """A web server on a free port of this machine; it listens from the start and answers in `serving`."""

    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    @contextmanager
    def serving(self) -> Iterator[None]:
        thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        file = self.path.lstrip("/")
        # torchvision looks for redirections with a GET that has a header "Method: HEAD".
        if "Method" not in self.headers:
            self.server.asked.append(file)
        self.send_response(200)
        self.send_header("Content-Length", str(len(tiny_download("mnist")[file])))
        self.end_headers()
        self.wfile.write(self.server.files[file])

    def log_message(self, format: str, *args: Any) -> None:
        pass


def tiny_download(name: str) -> dict[str, bytes]:
    return {f"{file}.gz": gzip.compress(idx_bytes(array), mtime=0) for file, array in tiny_arrays(name).items()}


@pytest.fixture
def offered(tiny: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files of a tiny mnist, with torchvision's list of digests made theirs."""
    files = tiny_download("mnist")
    sums = [(file, hashlib.md5(content).hexdigest()) for file, content in files.items()]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", sums)
    monkeypatch.setenv("no_proxy", "*")
    return files


def test_four_processes_download_each_file_once(
    tmp_path: Path, offered: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(offered)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [UNREACHABLE, server.url])
    processes = in_processes(4, lambda: prepare("mnist", tmp_path))
    with server.serving():
        assert exit_codes(processes) == [0, 0, 0, 0]
    assert server.asked == list(offered)
    raw = tmp_path / "MNIST/raw"
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == offered
    assert len(load("mnist", tmp_path).train) == 12


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>please log in</html>", gzip.compress(b"another file")],
    ids=["empty", "portal", "another"],
)
def test_a_bad_download_is_not_taken_for_good(
    tmp_path: Path, offered: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    last = "t10k-labels-idx1-ubyte.gz"
    bad = Server({**offered, last: content})
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [bad.url])
    with bad.serving(), pytest.raises(DataError) as error:
        prepare("mnist", tmp_path)
    assert_message_is_one_line(error, "the download failed", "data=digits")
    assert not (tmp_path / "MNIST/raw" / last).exists()
    good = Server(offered)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [good.url])
    with good.serving():
        assert len(load("mnist", tmp_path).test) == 10
    assert good.asked == [last]


def test_a_small_file_that_holds_gigabytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(2 << 20)))
    with pytest.raises(DataError, match="it holds more than 1 MB, and no file of these data does"):
        idx.unpacked(tmp_path / "train-images-idx3-ubyte.gz", 1 << 20)


def test_a_file_of_another_kind_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    pipe(path)  # after `find` has looked
    with pytest.raises(DataError, match=r"cannot be read .*is not a regular file"), within(10):
        idx.unpacked(path)


@pytest.mark.parametrize("make", [pipe, None], ids=["pipe", "link"])
def test_what_another_user_puts_in_the_place_of_the_lock_is_named(
    tmp_path: Path, offered: dict[str, bytes], make: Callable[[Path], None] | None
) -> None:
    root, private = tmp_path / "data", tmp_path / "private"
    root.mkdir()
    private.write_text("mine")
    make(root / ".mnist.lock") if make else (root / ".mnist.lock").symlink_to(private)
    with pytest.raises(DataError, match=r"/\.mnist\.lock is (not a regular file|a symbolic link)"), within(30):
        prepare("mnist", root)
    assert private.read_text() == "mine"


def test_a_download_is_not_written_through_a_link(
    tmp_path: Path, offered: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    private, raw = tmp_path / "private", tmp_path / "data" / "MNIST" / "raw"
    private.mkdir()
    raw.mkdir(parents=True)
    (private / "train-labels-idx1-ubyte.gz").write_text("mine")
    (raw / "unfinished").symlink_to(private)
    (raw / "train-labels-idx1-ubyte.gz").symlink_to(private / "train-labels-idx1-ubyte.gz")
    seen = private.stat().st_mtime_ns
    server = Server(offered)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [server.url])
    with server.serving():
        prepare("mnist", tmp_path / "data")
    assert len(load("mnist", tmp_path / "data").train) == 12
    assert (private / "train-labels-idx1-ubyte.gz").read_text() == "mine"
    assert private.stat().st_mtime_ns == seen
