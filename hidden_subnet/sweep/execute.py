"""Execute one run in this process: claim it, skip it if it is done, mirror it to trackers, record how it ended."""

import os
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

from hidden_subnet.config.chains import ancestors
from hidden_subnet.config.own_parts import led_through_own_code, said
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.signals import stop_signals
from hidden_subnet.store import claims, files, folders, liveness, provenance
from hidden_subnet.store.access import folders_written, refuse_unwritable
from hidden_subnet.store.patience import is_unanswered, patiently
from hidden_subnet.store.printable import printable
from hidden_subnet.store.redact import without_keys
from hidden_subnet.training.callbacks import Callbacks, InterruptedRun, Row, StoppedRun
from hidden_subnet.training.devices import choose_device
from hidden_subnet.training.distributed import join_tasks
from hidden_subnet.training.rendezvous import Rendezvous, rendezvous
from hidden_subnet.training.run import follow, run

EXIT_CODES = {"done": 0, "skipped": 0, "followed": 0, "stopped": 0, "failed": 1, "busy": 1, "interrupted": 130}
"""Exit code of a command that executes one run, by the state of its Outcome."""
WAIT_SECONDS = 2.0
"""How often a single run looks whether another process has done its parent."""
ASK_SECONDS = 0.5
"""How often a run looks whether it was asked to stop (claims.ask_to_stop)."""


class Tracker(Protocol):
    """A mirror of a run elsewhere (W&B, TensorBoard). Exactly one of finish, fail and interrupt is called, last."""

    def log(self, row: dict[str, float]) -> None:
        """Send one row of metrics.jsonl; its `epoch` is the x axis."""

    def note(self, line: dict[str, Any]) -> None:
        """Send a line of tracked.jsonl: the loss of a step, or the histograms of the epoch whose row comes next."""

    def finish(self, result: dict[str, Any]) -> None:
        """End the mirror of a run that is done; `result` is the content of result.json."""

    def fail(self, message: str) -> None:
        """End the mirror of a run that ended in an exception."""

    def interrupt(self, collapsed: str = "") -> None:
        """End the mirror of a run that was asked to stop and will be resumed later.

        collapsed: why it has ended itself (stop_collapsed); it is not resumed unless somebody asks for it.
        """


OpenTrackers = Callable[[Config, Path, str | None, Callable[[str], None]], Sequence[Tracker]]
"""Opens the trackers of a run: (config, the run's folder, name of its sweep, function to call with a warning).

It reaches the process of a run by pickling, so it must be a function at the top level of a module.
"""


def no_trackers(config: Config, folder: Path, sweep: str | None, warn: Callable[[str], None]) -> Sequence[Tracker]:
    """Open no trackers; see OpenTrackers."""
    return ()


@dataclass(frozen=True)
class Outcome:
    """How the execution of a run ended."""

    state: str
    """done, skipped (it was done before), failed, interrupted, stopped (on purpose, now or before), busy (another
    process executes it or has executed it in the meantime), or followed (this process was a rank above 0 of it)."""
    folder: Path
    result: dict[str, Any] | None = None
    """The content of result.json, for done and skipped."""
    message: str = ""


@dataclass(frozen=True)
class RunObserver:
    """Callbacks for whoever shows a run: a terminal, a worker, a test."""

    on_row: Callable[[Row], None]
    """Called with each row of metrics."""
    on_step: Callable[[int, int, int], None]
    """Called after each training step: (epoch, batch, batches in the epoch), all 1-based."""
    say: Callable[[str], None]
    """Called with each message for the user."""
    on_claim: Callable[[Path], None] = lambda folder: None
    """Called once with the folder of the attempt, before the run starts."""


@dataclass(frozen=True)
class LaunchInfo:
    """The sweep, the worker and the command for which a run is executed."""

    sweep: str | None = None
    """Name of the sweep; None for a single run."""
    worker: str = ""
    launch: str = ""
    """Id of the sweep's launch (store/sweeps.py)."""
    command: dict[str, Any] | None = None
    """The command that the user typed (provenance.of_command()); by default the one of this process."""
    after: int | None = None
    """Number of the newest attempt at the run that its worker knew of (claims.acquire)."""
    seen: dict[Path, liveness.Observation] = field(default_factory=dict)
    """Heartbeat of that attempt as its worker has seen it."""


def execute(
    config: Config,
    observer: RunObserver,
    launch: LaunchInfo | None = None,
    stopped: Callable[[], bool] | None = None,
    *,
    open_trackers: OpenTrackers = no_trackers,
) -> Outcome:
    """Execute the run unless its result exists. An exception of the run becomes error.txt and the state `failed`.

    `stopped` is asked after each step whether to save and stop; by default the first INT, TERM, HUP or USR2 stops it.
    A single run whose parent is not done executes first what is missing of its chain. Raises ValueError and OSError of
    files.open_folder, before anything has started.
    """
    launch = launch or LaunchInfo()
    met = rendezvous(config.train.devices)
    if met is not None and met.rank > 0:
        folder = met.wait_for_folder()
        if folder is not None:
            with stop_signals(insist=False), join_tasks(met, choose_device(config.train.device)) as team:
                follow(config, folder, team)
        return Outcome("followed", folder or files.folder_of(config))
    try:

        def execute_one(each: Config) -> Outcome:
            return _claim_and_execute(each, observer, launch, stopped, met, open_trackers)

        if not launch.worker:  # a worker takes a run only once its parent is done
            ended = _execute_ancestors(config, execute_one, observer.say, stopped or (lambda: False), met)
            if ended is not None:
                return ended
        return execute_one(config)
    finally:
        if met is not None:
            met.close()


def missing_before(config: Config) -> list[Config]:
    """Return the runs of a chain that have to be done before this one, the first one first; none where it is done.

    Each reads its parent alone, so that what comes before one that is done may have been removed.
    """

    def is_missing(each: Config) -> bool:
        return not files.is_done(files.folder_of(each))

    needs_parent = config.force or is_missing(config)
    return [*takewhile(is_missing, reversed(ancestors(config)))][::-1] if needs_parent else []


def _execute_ancestors(
    config: Config,
    execute_one: Callable[[Config], Outcome],
    say: Callable[[str], None],
    stopped: Callable[[], bool],
    met: Rendezvous | None,
) -> Outcome | None:
    """Execute what is not done of the chain before a run; wait where another process does.

    Returns how it ended where a run of it has no result, so that this one cannot start.
    """
    child, missing = files.folder_of(config), missing_before(config)
    for number, each in enumerate(missing, 1):
        parent = files.folder_of(each).name
        if met is not None:
            words = f"method={each.method.name}", f"prune_rate={each.prune_rate:.12g}"
            rule = f"starts from {parent}, which is not done; run that one first, likewise"
            raise ConfigError(problem(child.name, rule, *words, lead="as in"))
        say(f"{child.name} starts from {parent}, which is not done and runs first ({number} of {len(missing)})")
        outcome = execute_one(each)
        if outcome.state == "busy":
            say(f"waiting for another process, which executes {parent} (Ctrl-C stops the waiting, not that run)")
        while outcome.state == "busy" and not stopped():
            time.sleep(WAIT_SECONDS)
            outcome = execute_one(each)
        if outcome.state not in ("done", "skipped"):
            # A run that is stopped on purpose leaves nothing to do, but for this one.
            state = {"busy": "interrupted", "stopped": "failed"}.get(outcome.state, outcome.state)
            why = f"{child.name}: its parent {parent} {'' if outcome.state == 'failed' else 'was '}{outcome.state}"
            return Outcome(state, outcome.folder, message=why)
    return None


def _claim_and_execute(
    config: Config,
    observer: RunObserver,
    launch: LaunchInfo,
    stopped: Callable[[], bool] | None,
    met: Rendezvous | None,
    open_trackers: OpenTrackers,
) -> Outcome:
    folder = files.open_folder(config)
    if folders.is_file(folder / files.RESULT):
        claims.finalize(folder)
        if not config.force:
            return Outcome("skipped", folder, files.read_result(folder))
    if not (config.force or config.resume_stopped) and claims.is_stopped(folder):
        return Outcome(
            "stopped", folder, message=claims.run_status(folder, liveness.LivenessProbe(folder.parent)).message
        )
    refuse_unwritable(folders_written(folder), folder.parent)
    me = liveness.this_process(launch.worker, config.claim.silent_seconds, launch.launch)
    probe = liveness.LivenessProbe(folder.parent, seen=launch.seen)
    if launch.sweep is None:  # a worker has watched the run's last holder for long enough
        liveness.settle(partial(claims.run_status, folder), probe, stopped or (lambda: False))
    try:
        attempt = claims.acquire(folder, me, probe, fresh=config.force, after=launch.after)
    except claims.BusyError as error:
        liveness.remove_mark(me)
        return Outcome("busy", folder, message=str(error))
    if config.force:
        if files.attempts(folder)[-1:] != [attempt.number]:  # two executions with force=true at the same time
            return _superseded(attempt)
        files.clear(folder)
    elif folders.is_file(folder / files.RESULT):  # done by another process after we looked and before we had the claim
        attempt.release()
        return Outcome("skipped", folder, files.read_result(folder))
    files.write_config(folder, config)
    observer.on_claim(attempt.folder)
    with attempt:
        if stopped is not None:
            return _execute(config, attempt, observer, launch, stopped, met, open_trackers)
        with stop_signals() as stopped:
            return _execute(config, attempt, observer, launch, stopped, met, open_trackers)


def _execute(
    config: Config,
    attempt: claims.Attempt,
    observer: RunObserver,
    launch: LaunchInfo,
    stopped: Callable[[], bool],
    met: Rendezvous | None,
    open_trackers: OpenTrackers,
) -> Outcome:
    folder, logged, noted = attempt.run, 0, (-1, False)
    trackers: list[Tracker] = []

    def log(line: str) -> None:
        # After the commit the attempt's files are in the run's folder.
        where = attempt.folder if os.path.isdir(attempt.folder) else folder
        files.append(where / files.LOG, _for_others(line) + "\n")

    def say(message: str) -> None:
        with suppress(OSError):  # on a full disk the user still sees it
            log(message)
        observer.say(message)

    def on_row(row: Row) -> None:
        patiently(partial(log, " ".join(f"{key}={value:.6g}" for key, value in row.items())))
        if row["epoch"] >= logged:  # trackers already have epochs that are repeated after a kill
            for tracker in trackers:
                tracker.log(row)
        observer.on_row(row)

    def on_line(line: dict[str, Any]) -> None:
        if files.tracked_place(line) > noted:
            files.append_tracked(attempt.folder, line)
            for tracker in trackers:
                tracker.note(line)

    asked, asked_at = "", 0.0

    def should_stop() -> bool:
        nonlocal asked, asked_at
        if not asked and time.monotonic() - asked_at > ASK_SECONDS:
            asked, asked_at = attempt.reason_to_stop(), time.monotonic()
        return bool(asked) or stopped() or attempt.superseded.is_set()

    try:
        logged = files.count_rows(attempt.folder)
        noted = max(map(files.tracked_place, files.read_tracked(attempt.folder)), default=noted)
        _write_provenance(config, attempt, launch)
        trackers += open_trackers(config, folder, launch.sweep, say)
        callbacks = Callbacks(on_row, observer.on_step, should_stop, on_line, say=say)
        if trackers:
            callbacks = replace(
                callbacks, loss_every=config.tracker.step_loss, histograms_every=config.tracker.histograms
            )
        result = run(config, attempt.folder, callbacks, met)
    except InterruptedRun as reason:
        for tracker in trackers:
            tracker.interrupt(str(reason) if isinstance(reason, StoppedRun) else "")
        if attempt.is_superseded():
            return _superseded(attempt)
        if why := asked or (str(reason) if isinstance(reason, StoppedRun) else ""):
            say(f"stopped and saved: {why}")
            claims.end(attempt.folder, "stopped", why)
            return Outcome("stopped", folder, message=why)
        say(str(reason))
        claims.end(attempt.folder, "interrupted", str(reason))
        return Outcome("interrupted", folder, message=str(reason))
    except BaseException as error:
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        text = traceback.format_exc()
        if led_through_own_code(error):
            message = said(error)
            text += f"\n{message}\n"  # the last line, which `status` shows
        text, message = _for_others(text), _for_others(message)
        for tracker in trackers:
            tracker.fail(message)
        if attempt.is_superseded():  # the other process may have removed the files that caused the error
            return _superseded(attempt)
        if isinstance(error, KeyboardInterrupt):  # the second Ctrl-C
            claims.end(attempt.folder, "interrupted", "stopped at once, without saving")
            raise
        with suppress(OSError):  # the error may be that the disk is full; the caller gets the message in any case
            files.write_atomically(attempt.folder / files.ERROR, text.encode())
        if is_unanswered(error):  # the run is as one whose process has died: it is tried again, a few times
            raise
        with suppress(OSError):
            claims.end(attempt.folder, "failed", message)
        if not isinstance(error, Exception | SystemExit):
            raise
        say(message)
        return Outcome("failed", folder, message=message)
    committed = patiently(attempt.commit)
    for tracker in trackers:
        tracker.finish(result)
    return Outcome("done", folder, result) if committed else _superseded(attempt)


def _for_others(text: str) -> str:
    """Return a text as a run's files have it, which others read and print: without control characters and keys."""
    # Names of files may hold bytes that are no text.
    return without_keys(printable(text)).encode(errors="backslashreplace").decode()


def _write_provenance(config: Config, attempt: claims.Attempt, launch: LaunchInfo) -> None:
    command = provenance.of_command() if launch.command is None else launch.command
    device = choose_device(config.train.device)
    files.write_json(attempt.folder / files.PROVENANCE, provenance.of_process(command, attempt.me, device))


def _superseded(attempt: claims.Attempt) -> Outcome:
    if files.is_done(attempt.run):
        attempt.release()
    if os.path.isdir(attempt.run):
        message = f"another process has taken over {attempt.run.name}, as this one sent no heartbeat"
    else:
        message = f"{attempt.run} was removed while it was being executed; the same command starts it again"
    return Outcome("busy", attempt.run, message=message)
