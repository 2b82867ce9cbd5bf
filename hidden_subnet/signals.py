"""The signals that ask a run to save and stop, and who hears them: a run's own process, or the worker that has it."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
"""Ctrl-C, and what Slurm and closing terminals send; all of them reach every process of a run."""


@contextmanager
def signals_held() -> Iterator[None]:
    """Within it new processes begin with the signals blocked; what comes for this one waits for the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def heeded() -> list[signal.Signals]:
    """The signals that ask to save and stop: not those that we were started to ignore (nohup, a shell's &)."""
    return [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]


@contextmanager
def stop_signals(*, insist: bool = True) -> Iterator[Callable[[], bool]]:
    """Within it the first INT, TERM, HUP or USR2 asks the run to save and stop.

    With `insist` a second one acts at once as ever. Without, it changes nothing: Slurm signals every process of a
    step, and a worker its runs, so that one wish comes twice.
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
