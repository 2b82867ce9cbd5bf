"""Run a tracker in a thread, so that its errors and delays do not reach the training."""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from hidden_subnet.sweep.execute import Tracker

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long the end of a run waits for its tracker."""

    start_seconds: float = 10.0
    """A tracker that has not started this long after it was opened gets 1 s more."""
    end_seconds: float = 20.0
    """At most, in all."""


PATIENCE = Patience()


class Background(Generic[T]):
    """An object that is constructed and called in a daemon thread, so that no call blocks or raises.

    The first exception there, or a last call that takes too long, turns it off with one warning. Only the last call,
    which closes the object, is made after an exception too.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], T],
        warn: Callable[[str], None],
        patience: Patience = PATIENCE,
    ) -> None:
        """`start` constructs the object. `warn` gets the error message, in the thread that calls `do` or `end`."""
        self._start, self._warn, self._patience = start, warn, patience
        self._calls: queue.SimpleQueue[tuple[Callable[[T], None], bool]] = queue.SimpleQueue()
        self._started, self._ended = threading.Event(), threading.Event()
        self._fault: str | None = None
        self._off = False
        self._opened = time.monotonic()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def do(self, call: Callable[[T], None]) -> None:
        """Queue a call and return at once."""
        self._report()
        if not self._off:
            self._calls.put((call, False))

    def end(self, call: Callable[[T], None], more_seconds: float = 0.0) -> bool:
        """Queue the last call and wait until it is done or given up. Returns True if there was no error at all.

        more_seconds: how much longer this call may take than others.
        """
        self._calls.put((call, True))
        now = time.monotonic()
        try:
            if self._started.wait(max(1.0, self._opened + self._patience.start_seconds - now)):
                self._ended.wait(now + self._patience.end_seconds + more_seconds - time.monotonic())
        finally:  # a second Ctrl-C ends the wait
            if not self._ended.is_set():
                self._fault = self._fault or "it did not answer in time"
        self._report()
        return self._fault is None

    def _work(self) -> None:
        try:
            self._call_all(self._start())
        except BaseException as error:
            self._note(error)
        self._started.set()
        self._ended.set()

    def _call_all(self, target: T) -> None:
        self._started.set()
        last = False
        while not last:
            call, last = self._calls.get()
            if last or self._fault is None:
                try:
                    call(target)
                except BaseException as error:  # W&B also raises SystemExit, from its teardown
                    self._note(error)

    def _note(self, error: BaseException) -> None:
        lines = str(error).strip().splitlines()
        self._fault = self._fault or (f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)

    def _report(self) -> None:
        """Warn in the caller's thread, since `warn` need not be thread-safe."""
        if self._fault is not None and not self._off:
            self._off = True
            self._warn(self._fault)


class InBackground:
    """A tracker whose calls neither block nor raise. Its first error turns it off for this run with one warning."""

    def __init__(
        self,
        name: str,
        start: "Callable[[], Tracker]",
        warn: Callable[[str], None],
        patience: Patience = PATIENCE,
        files_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`files_seconds` returns how much longer `finish` may take, since it sends files too; it must not raise."""
        self._files_seconds = files_seconds

        def report(fault: str) -> None:
            warn(f"{name} is off for this run ({fault}); the files of the run are complete")

        self._tracker = Background(name, start, report, patience)

    def log(self, row: dict[str, float]) -> None:
        row = dict(row)
        self._tracker.do(lambda tracker: tracker.log(row))

    def note(self, line: dict[str, Any]) -> None:
        self._tracker.do(lambda tracker: tracker.note(line))

    def finish(self, result: dict[str, Any]) -> None:
        self._tracker.end(lambda tracker: tracker.finish(result), self._files_seconds())

    def fail(self, message: str) -> None:
        self._tracker.end(lambda tracker: tracker.fail(message))

    def interrupt(self, collapsed: str = "") -> None:
        self._tracker.end(lambda tracker: tracker.interrupt(collapsed))
