"""Setup of a reader process: it ends with its run and obeys the run's signals only."""

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.queues import Queue
from types import TracebackType
from typing import Any

from hidden_subnet.errors import DataError
from hidden_subnet.signals import SIGNALS
from hidden_subnet.store.posix import reader_start_method

PR_SET_PDEATHSIG = 1


def require_semaphores(workers: int) -> None:
    """Raise DataError where the machine has no semaphores, through which reader processes get their requests."""
    try:
        multiprocessing.get_context(reader_start_method()).Queue()
    except (ImportError, OSError) as error:
        raise DataError(
            cannot_read(workers, f"the machine has no semaphores, which are files in /dev/shm: {error}")
        ) from None


def cannot_read(workers: int, why: str) -> str:
    """Return the message for reader processes that cannot work, in one line."""
    return (
        f"data.workers={workers}: reader processes cannot be started ({' '.join(why.split())}); choose fewer, or, "
        "to read the images in the run's own process, type: data.workers=0"
    )


def begin_worker() -> Callable[[int], None]:
    """Return the worker_init_fn of a DataLoader of this process."""
    return partial(_begin, os.getpid())


def _begin(parent: int, number: int) -> None:
    sys.excepthook = _say
    Queue._on_queue_feeder_error = _answer_with_error  # type: ignore[attr-defined]
    # Garbage that the run has not collected yet must not be destroyed here: C++ objects that own a thread would abort.
    gc.freeze()
    if sys.platform != "linux":  # there, torch's workers notice the death of their parent within 5 s
        for each in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(each, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before prctl
        os._exit(1)
    try:
        threading.Thread(target=_obey, args=(parent,), daemon=True).start()
    except RuntimeError:  # no thread can be started; then only the signal itself can end this process
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        raise


def _obey(parent: int) -> None:
    """End the process at a signal from the parent, and ignore those from Slurm and terminals."""
    if sys.platform == "linux":
        while True:
            if signal.sigwaitinfo(SIGNALS).si_pid == parent:
                os._exit(0)


def _answer_with_error(queue: "Queue[Any]", error: Exception, answer: Any) -> None:
    """Send the error in place of images that cannot be handed over; else the run would wait for them for ever."""
    if not isinstance(answer, tuple):  # not even the error would arrive
        os._exit(1)
    number, _ = answer
    queue.put(
        (
            number,
            f"a reader process cannot hand over its images ({' '.join(str(error).split())[:200]}); choose fewer "
            "data.workers or a smaller train.batch_size, or data.workers=0, which needs neither sockets nor /dev/shm",
        )
    )


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught error as Python does, unless the connection ended because the run ended.

    multiprocessing's thread that sends the images (resource_sharer._serve) calls this hook directly.
    """
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
