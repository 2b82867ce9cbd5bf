"""Execute one run in this process: claim it, skip what is done, mirror to trackers, and record how it ended."""

import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hidden_subnet import claims, owners, provenance, record
from hidden_subnet.experiment import choose_device, follow, run
from hidden_subnet.fit import Hooks, InterruptedRun, Row
from hidden_subnet.ranks import team_of_tasks
from hidden_subnet.settings import Config
from hidden_subnet.signals import stop_signals
from hidden_subnet.tasks import Meeting, meeting
from hidden_subnet.trackers import Tracker, open_trackers

EXIT_CODES = {"done": 0, "skipped": 0, "followed": 0, "failed": 1, "busy": 1, "interrupted": 130}


@dataclass(frozen=True)
class Outcome:
    state: str
    """done, skipped (done before), failed, interrupted, busy (another process executes it, or has done so), or followed
    (this process was another rank of it)."""
    folder: Path
    result: dict[str, Any] | None = None
    message: str = ""


@dataclass(frozen=True)
class Display:
    """Who watches: called on every row and every step, and once with the folder of the attempt that begins."""

    on_row: Callable[[Row], None]
    on_step: Callable[[int, int, int], None]
    say: Callable[[str], None]
    on_claim: Callable[[Path], None] = lambda folder: None


@dataclass(frozen=True)
class Origin:
    """On whose behalf a run is executed."""

    sweep: str | None = None
    worker: str = ""
    launch: str = ""
    """Id of the sweep's launch (sweep/manifest.py)."""
    command: dict[str, Any] | None = None
    """provenance.of_command() of whoever typed it; by default of this process."""
    after: int | None = None
    """The newest attempt at the run that its worker knew of (claims.take)."""


def execute(
    config: Config, display: Display, origin: Origin | None = None, stopped: Callable[[], bool] | None = None
) -> Outcome:
    """Run `config` unless its result exists; an exception of the run ends in error.txt and the state `failed`.

    `stopped` asks it to save and stop; by default the first INT, TERM, HUP or USR2 does.
    Raises what open_folder raises (ValueError, OSError), before anything has started.
    """
    met = meeting(config.train.devices)
    if met is not None and met.rank > 0:
        folder = met.hear()
        if folder is not None:
            with stop_signals(insist=False), team_of_tasks(met, choose_device(config.train.device)) as team:
                follow(config, folder, team)
        return Outcome("followed", folder or record.folder_of(config))
    try:
        return _claim_and_execute(config, display, origin or Origin(), stopped, met)
    finally:
        if met is not None:
            met.close()


def _claim_and_execute(
    config: Config, display: Display, origin: Origin, stopped: Callable[[], bool] | None, met: Meeting | None
) -> Outcome:
    folder = record.open_folder(config)
    if (folder / record.RESULT).exists():
        claims.settle(folder)
        if not config.force:
            return Outcome("skipped", folder, record.read_result(folder))
    me = owners.this_process(origin.worker, config.claim.silent_seconds, origin.launch)
    try:
        attempt = claims.take(folder, me, owners.Observer(folder.parent), fresh=config.force, after=origin.after)
    except claims.BusyError as error:
        return Outcome("busy", folder, message=str(error))
    if config.force:
        if record.attempts(folder)[-1:] != [attempt.number]:  # two forced executions at once
            return _passed_over(attempt)
        record.clear(folder)
    elif (folder / record.RESULT).exists():  # done between the look and the claim
        attempt.drop()
        return Outcome("skipped", folder, record.read_result(folder))
    record.write_config(folder, config)
    display.on_claim(attempt.folder)
    with attempt:
        if stopped is not None:
            return _execute(config, attempt, display, origin, stopped, met)
        with stop_signals() as stopped:
            return _execute(config, attempt, display, origin, stopped, met)


def _execute(
    config: Config,
    attempt: claims.Attempt,
    display: Display,
    origin: Origin,
    stopped: Callable[[], bool],
    met: Meeting | None,
) -> Outcome:
    folder, logged = attempt.run, 0
    trackers: list[Tracker] = []

    def log(line: str) -> None:
        # Once committed, the attempt's files are in the run's folder.
        where = attempt.folder if attempt.folder.exists() else folder
        with (where / record.LOG).open("a") as file:
            file.write(line + "\n")

    def say(message: str) -> None:
        with suppress(OSError):  # on a full disk it is said all the same
            log(message)
        display.say(message)

    def on_row(row: Row) -> None:
        log(" ".join(f"{key}={value:.6g}" for key, value in row.items()))
        if row["epoch"] >= logged:  # epochs repeated after a kill are on the trackers already
            for tracker in trackers:
                tracker.log(row)
        display.on_row(row)

    def should_stop() -> bool:
        return stopped() or attempt.passed_over.is_set()

    try:
        logged = record.count_rows(attempt.folder)
        trackers += open_trackers(config, folder, origin.sweep, say)
        _write_provenance(config, attempt, origin)
        result = run(config, attempt.folder, Hooks(on_row, display.on_step, should_stop, say), met)
    except InterruptedRun as reason:
        for tracker in trackers:
            tracker.interrupt()
        if attempt.is_passed_over():
            return _passed_over(attempt)
        say(str(reason))
        claims.end(attempt.folder, "interrupted", str(reason))
        return Outcome("interrupted", folder, message=str(reason))
    except BaseException as error:
        text = traceback.format_exc()
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        for tracker in trackers:
            tracker.fail(message)
        if attempt.is_passed_over():  # its files may have been cleared away under it
            return _passed_over(attempt)
        if isinstance(error, KeyboardInterrupt):  # the second Ctrl-C
            claims.end(attempt.folder, "interrupted", "stopped at once, without saving")
            raise
        with suppress(OSError):  # a full disk is what it may have failed for; the caller is told all the same
            record.write_atomically(attempt.folder / record.ERROR, text.encode())
        with suppress(OSError):
            claims.end(attempt.folder, "failed", message)
        if not isinstance(error, Exception | SystemExit):
            raise
        say(message)
        return Outcome("failed", folder, message=message)
    committed = attempt.commit()
    for tracker in trackers:
        tracker.finish(result)
    return Outcome("done", folder, result) if committed else _passed_over(attempt)


def _write_provenance(config: Config, attempt: claims.Attempt, origin: Origin) -> None:
    command = provenance.of_command() if origin.command is None else origin.command
    device = choose_device(config.train.device)
    record.write_json(attempt.folder / record.PROVENANCE, provenance.of_process(command, attempt.me, device))


def _passed_over(attempt: claims.Attempt) -> Outcome:
    if (attempt.run / record.RESULT).exists():
        attempt.drop()
    if attempt.run.exists():
        message = f"{attempt.run.name} was taken over while this process gave no sign of life"
    else:
        message = f"{attempt.run} was removed while it was being executed; the same command begins it anew"
    return Outcome("busy", attempt.run, message=message)
