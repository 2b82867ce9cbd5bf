"""Processes that read images: they are silent when their run ends, and destroy none of its objects."""

import gc
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Client, Connection
from multiprocessing.resource_sharer import DupFd
from pathlib import Path
from typing import Any

import pytest

from hidden_subnet.data.reader_process import begin_worker


def _hands_over(begin: Callable[[int], None], pipe: Connection) -> None:
    begin(0)
    pipe.send(DupFd(1))
    pipe.recv()
    sys.excepthook(ValueError, ValueError("another error"), None)
    sys.stderr.flush()
    os._exit(0)


@pytest.mark.skipif(sys.platform != "linux", reason="only there are workers forked, and hand over by sockets")
def test_worker_says_nothing_when_its_run_ends(capfd: pytest.CaptureFixture[str]) -> None:
    """End the run as a kill does, while it fetches images."""
    context = multiprocessing.get_context("fork")
    ours, its = context.Pipe()
    worker = context.Process(target=_hands_over, args=(begin_worker(), its))
    worker.start()
    shared = ours.recv()
    address = shared._id[0]
    Client(address, authkey=multiprocessing.current_process().authkey).close()
    os.close(shared.detach())  # it serves the next one
    ours.send("end")
    worker.join(60)
    assert capfd.readouterr().err == "ValueError: another error\n"


class Holder:
    """Refers to itself, so that only the garbage collector destroys it, and notes in which process."""

    def __init__(self, notes: Path) -> None:
        self.me, self.notes = self, notes

    def __del__(self) -> None:
        with self.notes.open("a") as file:
            print(os.getpid(), file=file)


def _collects(begin: Callable[[int], None]) -> None:
    begin(0)
    gc.collect()
    os._exit(0)


@pytest.mark.skipif(sys.platform != "linux", reason="only there are workers forked")
def test_worker_destroys_no_object_of_its_run(tmp_path: Path) -> None:
    """Objects of torch that own threads abort the process where a fork destroys them."""
    gc.disable()
    try:
        Holder(tmp_path / "notes")
        worker = multiprocessing.get_context("fork").Process(target=_collects, args=(begin_worker(),))
        worker.start()
        worker.join(60)
        gc.collect()
    finally:
        gc.enable()
    assert (tmp_path / "notes").read_text() == f"{os.getpid()}\n"


class _Unsendable:
    def __reduce__(self) -> Any:
        raise OSError("no room in /dev/shm")


def _answers(begin: Callable[[int], None], answers: "multiprocessing.queues.Queue[Any]", pipe: Connection) -> None:
    begin(0)
    answers.put((7, _Unsendable()))
    pipe.recv()


@pytest.mark.skipif(sys.platform != "linux", reason="only there are workers forked")
def test_images_that_cannot_be_handed_over_become_an_error() -> None:
    """Otherwise the run would wait for them for ever."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    ours, its = context.Pipe()
    worker = context.Process(target=_answers, args=(begin_worker(), answers, its))
    worker.start()
    number, message = answers.get(timeout=60)
    ours.send("end")
    worker.join(60)
    assert number == 7
    assert "cannot hand over its images (no room in /dev/shm)" in message
    assert "data.workers=0" in message
