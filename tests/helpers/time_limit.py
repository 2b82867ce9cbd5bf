"""A limit for what might wait without end, as for a pipe."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail the test, past every `except Exception`, if the context takes longer."""

    def too_late(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"it takes longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
