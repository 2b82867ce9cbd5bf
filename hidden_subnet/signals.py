"""The signals that ask a run to save and stop; the run's own process handles them, or the worker that executes it."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
if sys.platform != "win32":
    SIGNALS += (signal.SIGHUP, signal.SIGUSR2)
"""Ctrl-C, and what Slurm and closing terminals send; all of them reach every process of a run."""


@contextmanager
def signals_held() -> Iterator[None]:
    """Block the signals within the context: new processes start with them blocked, and this one gets them after it."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def heeded() -> list[signal.Signals]:
    """Return the SIGNALS that this process obeys: all but those it was started to ignore (by nohup, or a shell's &)."""
    return [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]


@contextmanager
def stop_signals(*, insist: bool = True) -> Iterator[Callable[[], bool]]:
    """Give a function that returns whether one of SIGNALS has arrived within the context, to save and stop then.

    With `insist` a second signal has its usual effect at once. Without, it has none: Slurm signals every process of a
    job step, and a worker signals its runs, so that one request arrives twice.
    """
    received: list[int] = []
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if insist:
            for each, handler in before.items():
                signal.signal(each, handler)
            print("stops at the next step and saves; once more to stop at once", file=sys.stderr)

    for each in heeded():
        before[each] = signal.signal(each, note)
    try:
        yield lambda: bool(received)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def interrupt_held() -> Iterator[None]:
    """Raise KeyboardInterrupt for one of SIGNALS at the end of the context, not amid it.

    For imports. An interrupt amid its import makes scipy or matplotlib raise AttributeError or ImportError, and leaves
    torch without a working numpy. Signals come to the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with stop_signals(insist=False) as stopped:
        yield
    if stopped():
        raise KeyboardInterrupt
