"""Keep a tracker's faults and waits away from the training."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from hidden_subnet.trackers.tracker import Tracker

START_SECONDS = 10.0
"""A tracker that has not started so long after it was opened is hardly waited for at the end of the run."""
END_SECONDS = 20.0
"""How long the end of a run waits for its tracker in all."""


class InBackground:
    """A tracker that is opened and called in a daemon thread, so no call of it blocks or raises.

    The first exception in it, or an end that takes too long, turns the tracker off for this run with one warning;
    `abandon` then lets go of what could keep the process from exiting.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], Tracker],
        warn: Callable[[str], None],
        abandon: Callable[[], None] = lambda: None,
    ) -> None:
        self._name, self._start, self._warn, self._abandon = name, start, warn, abandon
        self._calls: queue.SimpleQueue[tuple[Callable[[Tracker], None], bool]] = queue.SimpleQueue()
        self._started, self._ended = threading.Event(), threading.Event()
        self._fault: str | None = None
        self._lock = threading.Lock()
        self._off = False
        self._opened = time.monotonic()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def log(self, row: dict[str, float]) -> None:
        row = dict(row)
        self._report()
        if not self._off:
            self._calls.put((lambda tracker: tracker.log(row), False))

    def finish(self, result: dict[str, Any]) -> None:
        self._end(lambda tracker: tracker.finish(result))

    def fail(self, message: str) -> None:
        self._end(lambda tracker: tracker.fail(message))

    def interrupt(self) -> None:
        self._end(lambda tracker: tracker.interrupt())

    def _work(self) -> None:
        try:
            tracker = self._start()
            self._started.set()
            last = False
            while not last:
                call, last = self._calls.get()
                call(tracker)
        except BaseException as error:  # W&B also raises SystemExit, from its teardown
            said = str(error).strip().splitlines()
            self._give_up(f"{type(error).__name__}: {said[0]}" if said else type(error).__name__)
        finally:
            self._started.set()
            self._ended.set()

    def _end(self, call: Callable[[Tracker], None]) -> None:
        self._calls.put((call, True))
        now = time.monotonic()
        try:
            if self._started.wait(max(1.0, self._opened + START_SECONDS - now)):
                self._ended.wait(now + END_SECONDS - time.monotonic())
        finally:  # a second Ctrl-C ends the wait
            if not self._ended.is_set():
                self._give_up("it did not answer in time")
        self._report()

    def _give_up(self, fault: str) -> None:
        with self._lock:
            first, self._fault = self._fault is None, self._fault or fault
        if first:
            self._abandon()

    def _report(self) -> None:
        """Warn in the caller's thread, so that `warn` need not be safe in any other."""
        if self._fault is not None and not self._off:
            self._off = True
            self._warn(f"{self._name} is off for this run ({self._fault}); its own files are complete")
