"""The time that a single run has left, in lines for where no bar shows it: a file, or the log of a job."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hidden_subnet.sweep.console import clock

FIRST, EVERY = 5.0, 60.0
"""Seconds from the first step to the first line, and between two lines."""


@dataclass
class TimeLeft:
    """Asked after each step; it knows when the first of this process was, at whatever step a run resumes.

    A step before the last one is that of the next run, in a chain of them.
    """

    epochs: int
    now: Callable[[], float] = time.monotonic
    _began: tuple[float, int] | None = field(default=None, init=False)
    _next: float = field(default=0.0, init=False)
    _last: int = field(default=0, init=False)

    def line(self, epoch: int, batch: int, batches: int) -> str | None:
        """Return "epoch 2/15, batch 10/100, about 12:30 left" where it is time for a line; epoch and batch 1-based."""
        at, step = self.now(), (epoch - 1) * batches + batch
        if self._began is None or step < self._last:
            self._began, self._next = (at, step), at + FIRST
        self._last = step
        if at < self._next or step == self._began[1]:
            return None
        self._next = at + EVERY
        left = (at - self._began[0]) / (step - self._began[1]) * (self.epochs * batches - step)
        return f"epoch {epoch}/{self.epochs}, batch {batch}/{batches}, about {clock(left)} left"
