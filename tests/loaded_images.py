"""What tests of data sets share."""

import hashlib
import multiprocessing
from collections.abc import Callable

import pytest

from hidden_subnet.data.info import DataError
from hidden_subnet.data.load import Images

UNREACHABLE = "http://127.0.0.1:9/"


def digest(images: Images) -> str:
    sha = hashlib.sha256()
    for part in (images.train, images.train_labels, images.test, images.test_labels):
        sha.update(part.numpy().tobytes())
    return sha.hexdigest()


def one_line(error: pytest.ExceptionInfo[DataError], *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def in_processes(count: int, work: Callable[[], None]) -> list[multiprocessing.process.BaseProcess]:
    fork = multiprocessing.get_context("fork")
    processes: list[multiprocessing.process.BaseProcess] = [fork.Process(target=work) for _ in range(count)]
    for process in processes:
        process.start()
    return processes


def exit_codes(processes: list[multiprocessing.process.BaseProcess]) -> list[int | None]:
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]
