"""Keep a tracker's faults and waits away from the training."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from hidden_subnet.trackers.tracker import Tracker

START_SECONDS = 10.0
"""A tracker that has not started so long after it was opened is hardly waited for at the end of the run."""
END_SECONDS = 20.0
"""How long the end of a run waits for its tracker in all."""

T = TypeVar("T")


class Background(Generic[T]):
    """Something that is made and called in a daemon thread, so no call of it blocks or raises.

    The first exception in it, or an end that takes too long, turns it off with one warning; `abandon` then lets go of
    what could keep the process from exiting.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], T],
        warn: Callable[[str], None],
        abandon: Callable[[], None] = lambda: None,
    ) -> None:
        """`warn` is told what is wrong with `name`, in the thread that calls."""
        self._name, self._start, self._warn, self._abandon = name, start, warn, abandon
        self._calls: queue.SimpleQueue[tuple[Callable[[T], None], bool]] = queue.SimpleQueue()
        self._started, self._ended = threading.Event(), threading.Event()
        self._fault: str | None = None
        self._lock = threading.Lock()
        self._off = False
        self._opened = time.monotonic()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def do(self, call: Callable[[T], None]) -> None:
        """Have it called some time later."""
        self._report()
        if not self._off:
            self._calls.put((call, False))

    def end(self, call: Callable[[T], None]) -> bool:
        """The last call; waits until it is done, or given up. True if nothing went wrong from the start."""
        self._calls.put((call, True))
        now = time.monotonic()
        try:
            if self._started.wait(max(1.0, self._opened + START_SECONDS - now)):
                self._ended.wait(now + END_SECONDS - time.monotonic())
        finally:  # a second Ctrl-C ends the wait
            if not self._ended.is_set():
                self._give_up("it did not answer in time")
        self._report()
        return self._fault is None

    def _work(self) -> None:
        try:
            made = self._start()
            self._started.set()
            last = False
            while not last:
                call, last = self._calls.get()
                call(made)
        except BaseException as error:  # W&B also raises SystemExit, from its teardown
            said = str(error).strip().splitlines()
            self._give_up(f"{type(error).__name__}: {said[0]}" if said else type(error).__name__)
        finally:
            self._started.set()
            self._ended.set()

    def _give_up(self, fault: str) -> None:
        with self._lock:
            first, self._fault = self._fault is None, self._fault or fault
        if first:
            self._abandon()

    def _report(self) -> None:
        """Warn in the caller's thread, so that `warn` need not be safe in any other."""
        if self._fault is not None and not self._off:
            self._off = True
            self._warn(self._fault)


class InBackground:
    """A tracker of which no call blocks or raises; its first fault turns it off for this run with one warning."""

    def __init__(
        self,
        name: str,
        start: Callable[[], Tracker],
        warn: Callable[[str], None],
        abandon: Callable[[], None] = lambda: None,
    ) -> None:
        def say(fault: str) -> None:
            warn(f"{name} is off for this run ({fault}); its own files are complete")

        self._tracker = Background(name, start, say, abandon)

    def log(self, row: dict[str, float]) -> None:
        row = dict(row)
        self._tracker.do(lambda tracker: tracker.log(row))

    def finish(self, result: dict[str, Any]) -> None:
        self._tracker.end(lambda tracker: tracker.finish(result))

    def fail(self, message: str) -> None:
        self._tracker.end(lambda tracker: tracker.fail(message))

    def interrupt(self) -> None:
        self._tracker.end(lambda tracker: tracker.interrupt())
