"""Execute one run in this process: find its folder, skip what is done, mirror to trackers, and record how it ended."""

import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from hidden_subnet import record
from hidden_subnet.config import Config
from hidden_subnet.experiment import run
from hidden_subnet.fit import Hooks, InterruptedRun, Row
from hidden_subnet.trackers import Tracker, open_trackers

EXIT_CODES = {"done": 0, "skipped": 0, "failed": 1, "busy": 1, "interrupted": 130}


@dataclass(frozen=True)
class Outcome:
    state: str
    """done, skipped (done before), failed, interrupted, or busy (another process executes it)."""
    folder: Path
    result: dict[str, Any] | None = None
    message: str = ""


@dataclass(frozen=True)
class Display:
    """Who watches: called on every row and every step."""

    on_row: Callable[[Row], None]
    on_step: Callable[[int, int, int], None]
    say: Callable[[str], None]


def execute(config: Config, display: Display, sweep: str | None = None) -> Outcome:
    """Run `config` unless its result exists; an exception of the run ends in error.txt and the state `failed`.

    Raises what open_folder raises (ValueError, OSError), before anything has started.
    """
    folder = record.open_folder(config)
    try:
        with record.locked(folder):
            if config.force:
                record.clear(folder)
            elif (result := record.read_result(folder)) is not None:
                return Outcome("skipped", folder, result)
            record.write_config(folder, config)
            return _execute(config, folder, display, sweep)
    except record.BusyError as error:
        return Outcome("busy", folder, message=str(error))


def _execute(config: Config, folder: Path, display: Display, sweep: str | None) -> Outcome:
    logged = record.count_rows(folder)

    def say(message: str) -> None:
        with (folder / record.LOG).open("a") as log:
            log.write(message + "\n")
        display.say(message)

    trackers: list[Tracker] = open_trackers(config, folder, sweep, say)

    def on_row(row: Row) -> None:
        with (folder / record.LOG).open("a") as log:
            log.write(" ".join(f"{key}={value:.6g}" for key, value in row.items()) + "\n")
        if row["epoch"] >= logged:  # epochs repeated after a kill are on the trackers already
            for tracker in trackers:
                tracker.log(row)
        display.on_row(row)

    (folder / record.ERROR).unlink(missing_ok=True)
    try:
        with stop_signals() as stopped:
            hooks = Hooks(on_row=on_row, on_step=display.on_step, should_stop=stopped, say=say)
            result = run(config, folder, hooks)
    except InterruptedRun as reason:
        for tracker in trackers:
            tracker.interrupt()
        say(str(reason))
        return Outcome("interrupted", folder, message=str(reason))
    except BaseException as error:
        text = traceback.format_exc()
        record.write_atomically(folder / record.ERROR, text.encode())
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        for tracker in trackers:
            tracker.fail(message)
        if not isinstance(error, Exception | SystemExit):
            raise
        say(message)
        return Outcome("failed", folder, message=message)
    for tracker in trackers:
        tracker.finish(result)
    return Outcome("done", folder, result)


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Within it the first INT, TERM, HUP or USR2 asks the run to save and stop; a second one acts at once as ever."""
    received: list[int] = []
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)
        print("stops at the next step and saves; once more to stop at once", file=sys.stderr)

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        before[each] = signal.signal(each, note)
    try:
        yield lambda: bool(received)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
