"""A process that reads images: it lives as long as its run, and leaves signals to it."""

import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType

from hidden_subnet.signals import SIGNALS

PR_SET_PDEATHSIG = 1


def multiprocessing_context() -> str | None:
    # A worker of a fork server would not be this process's child, and not notice its death.
    return "fork" if sys.platform == "linux" else None


def begin_worker() -> Callable[[int], None]:
    """What a DataLoader of this process calls in each of its workers."""
    return partial(_begin, os.getpid())


def _begin(parent: int, number: int) -> None:
    sys.excepthook = _say
    # What lies unreachable in the run is the run's to destroy: a C++ object that owns a thread aborts in a fork.
    gc.freeze()
    if sys.platform != "linux":  # it notices the death of its parent after 5 s at most
        for each in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(each, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that
        os._exit(1)
    threading.Thread(target=_obey, args=(parent,), daemon=True).start()


def _obey(parent: int) -> None:
    """End when the parent says so; Slurm and terminals are not heard."""
    if sys.platform == "linux":
        while True:
            if signal.sigwaitinfo(SIGNALS).si_pid == parent:
                os._exit(0)


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As Python does, but for a run that goes away while it fetches images: it has told, or was killed.

    The thread by which multiprocessing hands them over asks this hook alone (resource_sharer._serve).
    """
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
