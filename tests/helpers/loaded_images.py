"""Checks of whole data sets, and processes that load one at the same time."""

import hashlib
import multiprocessing
from collections.abc import Callable

import pytest
import torch

from hidden_subnet.data.catalog import Images
from hidden_subnet.errors import DataError

UNREACHABLE = "http://127.0.0.1:9/"


def digest(images: Images) -> str:
    sha = hashlib.sha256()
    for part in (images.train, images.train_labels, images.test, images.test_labels):
        sha.update(part.numpy().tobytes())
    return sha.hexdigest()


def assert_sound(images: Images) -> None:
    info = images.info
    for pixels, labels, count in (
        (images.train, images.train_labels, info.train),
        (images.test, images.test_labels, info.test),
    ):
        assert (pixels.shape, pixels.dtype) == ((count, *info.shape), torch.uint8)
        assert (labels.shape, labels.dtype) == ((count,), torch.int64)
        assert sorted(set(labels.tolist())) == list(range(info.classes))
        assert pixels.max() <= info.max_value


def assert_mean_and_std(images: Images, tolerance: float) -> None:
    # By counts, as the pixels of Fashion-MNIST as doubles are 376 MB.
    values = torch.arange(256).double() / images.info.max_value
    for channel, mean, std in zip(images.train.unbind(1), images.info.mean, images.info.std, strict=True):
        share = channel.flatten().bincount(minlength=256).double() / channel.numel()
        found = share @ values
        assert float(found) == pytest.approx(mean, abs=tolerance)
        assert float((share @ (values - found) ** 2).sqrt()) == pytest.approx(std, abs=tolerance)


def assert_message_is_one_line(error: pytest.ExceptionInfo[DataError], *words: str) -> None:
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
