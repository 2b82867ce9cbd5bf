"""CIFAR's archives: unpacked once, read, mended or named, and nothing else unpickled."""

import hashlib
import http.server
import io
import pickle
import tarfile
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from helpers.loaded_images import UNREACHABLE, assert_message_is_one_line, digest, exit_codes, in_processes

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.config.registries import DATA
from hidden_subnet.data import cifar
from hidden_subnet.data.catalog import load, prepare
from hidden_subnet.errors import DataError


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


TINY_CIFAR = DataInfo((3, 32, 32), 10, 5, 2, (0.5,) * 3, (0.25,) * 3)


def pickled(n: int, key: str, seed: int) -> bytes:
    random = np.random.RandomState(seed)
    pixels = random.randint(0, 256, (n, 3072)).astype(np.uint8)
    return pickle.dumps({"data": pixels, key: random.randint(0, 10, n).tolist()}, protocol=2)


@pytest.fixture
def tiny_cifar(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Seven images in CIFAR's own format in the place of each of the two sets; the archives, by name."""
    archives = {}
    for name, source, key, train in (
        ("cifar10", torchvision.datasets.CIFAR10, "labels", {"data_batch_1": 3, "data_batch_2": 2}),
        ("cifar100", torchvision.datasets.CIFAR100, "fine_labels", {"train": 5}),
    ):
        test = "test_batch" if name == "cifar10" else "test"
        batches = {file: pickled(n, key, seed) for seed, (file, n) in enumerate({**train, test: 2}.items())}
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for file, content in batches.items():
                member = tarfile.TarInfo(f"{source.base_folder}/{file}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        sums = [[file, hashlib.md5(content).hexdigest()] for file, content in batches.items()]
        monkeypatch.setattr(source, "train_list", sums[:-1])
        monkeypatch.setattr(source, "test_list", sums[-1:])
        monkeypatch.setattr(source, "tgz_md5", hashlib.md5(packed.getvalue()).hexdigest())
        monkeypatch.setattr(source, "url", UNREACHABLE + source.filename)
        small = replace(DATA[name], info=TINY_CIFAR, read=partial(cifar.read, name, info=TINY_CIFAR))
        monkeypatch.setitem(DATA, name, small)
        archives[name] = packed.getvalue()
    return archives


CIFAR = [
    ("cifar10", "cifar-10-python.tar.gz", "cifar-10-batches-py/data_batch_2", "labels"),
    ("cifar100", "cifar-100-python.tar.gz", "cifar-100-python/train", "fine_labels"),
]


@pytest.mark.parametrize(("name", "archive", "batch", "key"), CIFAR)
def test_cifar_is_read_from_its_archive(
    tmp_path: Path, tiny_cifar: dict[str, bytes], name: str, archive: str, batch: str, key: str
) -> None:
    (tmp_path / archive).write_bytes(tiny_cifar[name])
    images = load(name, tmp_path)
    assert (images.train.shape, images.test.shape) == ((5, 3, 32, 32), (2, 3, 32, 32))
    last = pickle.loads((tmp_path / batch).read_bytes())
    n = len(last[key])
    # A row of a batch is 1,024 red values, then green, then blue, each row by row.
    assert images.train[-1, 1, 2].tolist() == last["data"][-1, 1024 + 64 : 1024 + 96].tolist()
    assert images.train[-n:].numpy().tobytes() == last["data"].tobytes()
    assert images.train_labels[-n:].tolist() == last[key]
    assert images.train_labels.dtype == torch.int64


@pytest.mark.parametrize(("name", "archive", "batch", "key"), CIFAR)
def test_cifar_damage_is_mended_or_named(
    tmp_path: Path, tiny_cifar: dict[str, bytes], name: str, archive: str, batch: str, key: str
) -> None:
    (tmp_path / archive).write_bytes(tiny_cifar[name])
    whole = digest(load(name, tmp_path))
    (tmp_path / batch).write_bytes((tmp_path / batch).read_bytes()[:-7])
    assert digest(load(name, tmp_path)) == whole
    (tmp_path / batch).write_bytes((tmp_path / batch).read_bytes()[:-7])
    (tmp_path / archive).unlink()
    with pytest.raises(DataError) as error:
        load(name, tmp_path)
    assert_message_is_one_line(error, Path(batch).name, archive, str(tmp_path), "has damaged files", "data=digits")
    assert "lacks" not in str(error.value)


def test_a_pickle_that_is_not_cifars_is_never_opened(tmp_path: Path, tiny_cifar: dict[str, bytes]) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(tiny_cifar["cifar10"])
    prepare("cifar10", tmp_path)
    (tmp_path / "cifar-10-python.tar.gz").unlink()
    (tmp_path / "cifar-10-batches-py/data_batch_1").write_bytes(pickle.dumps(Bomb(tmp_path / "sprung")))
    with pytest.raises(DataError):
        load("cifar10", tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_that_is_exchanged_after_it_was_checked_is_not_opened(
    tmp_path: Path, tiny_cifar: dict[str, bytes]
) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(tiny_cifar["cifar10"])
    prepare("cifar10", tmp_path)
    path, bomb = tmp_path / "cifar-10-batches-py/data_batch_1", tmp_path / "sprung"
    path.write_bytes(pickle.dumps(Bomb(bomb)))
    with pytest.raises(DataError, match="is not the authors' file"):
        cifar.read("cifar10", tmp_path, TINY_CIFAR)
    assert not bomb.exists()
    pickle.loads(path.read_bytes())  # the control
    assert bomb.exists()


@pytest.mark.parametrize(("name", "archive", "batch", "key"), CIFAR)
def test_nothing_is_written_through_links_in_the_place_of_its_files(
    tmp_path: Path,
    tiny_cifar: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    archive: str,
    batch: str,
    key: str,
) -> None:
    root, private = tmp_path / "data", tmp_path / "private"
    (root / batch).parent.mkdir(parents=True)
    private.write_text("mine")
    for planted in (archive, batch):
        (root / planted).symlink_to(private)
    (tmp_path / archive).write_bytes(tiny_cifar[name])
    source = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[name]
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr(source, "url", f"http://127.0.0.1:{server.server_address[1]}/{archive}")
        assert len(load(name, root).train) == 5
        server.shutdown()
    assert private.read_text() == "mine"


def test_four_processes_unpack_the_same_archive(tmp_path: Path, tiny_cifar: dict[str, bytes]) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(tiny_cifar["cifar10"])
    said = tmp_path / "said"

    def work() -> None:
        import sys

        with said.open("a") as sys.stderr:
            prepare("cifar10", tmp_path)

    assert exit_codes(in_processes(4, work)) == [0, 0, 0, 0]
    assert said.read_text().splitlines() == [f"downloads cifar10 to {tmp_path}"]
    assert len(load("cifar10", tmp_path).train) == 5
