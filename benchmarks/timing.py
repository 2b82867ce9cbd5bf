"""Timing by turns, and the rows that come of it."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import process_time

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Row:
    topic: str
    name: str
    unit: str
    samples: list[float]
    goal: float | None = None
    """The median is to be at most this."""
    at_least: bool = False
    """Or at least."""
    note: str = ""
    """Why there are no samples."""

    @property
    def median(self) -> float | None:
        return statistics.median(self.samples) if self.samples else None

    @property
    def met(self) -> bool | None:
        if self.goal is None or self.median is None:
            return None
        return self.median >= self.goal if self.at_least else self.median <= self.goal


def by_turns(
    rivals: dict[str, Callable[[], object]], rounds: int, clock: Clock = process_time
) -> dict[str, list[float]]:
    """Seconds of each rival in each round, after one call of each that does not count.

    By default seconds of this process on the processor: with one thread they are what passes on an idle machine, and
    what other programs take of the core is not in them. Every round begins with another rival, so that none always
    finds the caches as the same one left them.
    """
    names = list(rivals)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for call in rivals.values():
        call()
    for i in range(rounds):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            start = clock()
            rivals[name]()
            seconds[name].append(clock() - start)
    return seconds


def ratios(above: list[float], below: list[float]) -> list[float]:
    """Round by round: both of a pair ran within the same seconds."""
    return [a / b for a, b in zip(above, below, strict=True)]
