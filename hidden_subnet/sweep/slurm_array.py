"""A sweep whose workers are the tasks of a Slurm array: submit the missing ones and watch the sweep."""

import hashlib
import os
import re
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from hidden_subnet.config.own_parts import USED, OwnFile
from hidden_subnet.config.program import PROGRAM
from hidden_subnet.errors import ConfigError
from hidden_subnet.signals import stop_signals
from hidden_subnet.store import claims, folders, sweeps
from hidden_subnet.store.access import explained, refuse_unwritable, why_exchangeable
from hidden_subnet.store.files import ATTEMPTS, write_json
from hidden_subnet.store.liveness import LivenessProbe, Observation
from hidden_subnet.store.patience import patiently
from hidden_subnet.store.slurm_queue import QueuedJob, queue
from hidden_subnet.store.sweeps import SLURM, Sweep
from hidden_subnet.sweep import slurm
from hidden_subnet.sweep.console import count, say
from hidden_subnet.sweep.jobs import Job, leaves, try_look
from hidden_subnet.sweep.view import View

JOBS = re.compile(r"jobs-[0-9]+\.json")
"""Files with the tasks of a submission."""
TASK = re.compile(r"[0-9]+(_[0-9]+)?")
STOP_SECONDS = 120.0
"""How long the workers of a stopped sweep may take to leave before new ones are submitted."""
DEFAULT_WORKERS = 8
"""Largest number of workers that are submitted if the user gives none."""
ASK_SECONDS = 3.0
"""Seconds between two calls of squeue; more if squeue is slow."""


class Left(Exception):
    """The workers continue, but this process stops watching them and exits with `code`."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Array:
    """How the workers are submitted. The method `execute` is a launch.Execute."""

    parameters: dict[str, Any]
    """Parameters for submitit's AutoExecutor.update_parameters."""
    workers: int | None
    """Number of workers; by default one per run that is not done, at most DEFAULT_WORKERS."""
    jobs_per_gpu: int | None
    """Runs that share a GPU; None: auto."""
    requeues: int
    """How often a worker that was preempted or reached its walltime is requeued."""
    detach: bool
    """Whether to return after the submission instead of watching."""
    private: Path | None
    """Where the user wants what the workers execute, if others may write to the sweep's folder; see private_folder."""
    deserted: bool = False
    """Set if all workers have gone although runs are left and nobody stopped the sweep."""

    def execute(self, sweep: Sweep, jobs: list[Job], console: Console) -> str:
        """Submit and watch; returns why the workers ended before all runs had, or "".

        Raises Left if the workers continue without this process: with `detach`, or after Ctrl-C.
        """
        wanted = min(self.workers or DEFAULT_WORKERS, len(leaves(jobs)))
        tasks = _alive(sweep.folder)
        if tasks:
            say(console, f"{count(len(tasks), 'worker')} of this sweep in the queue already: {' '.join(tasks)}")
        # No signal may end this process between sbatch and the file with its answer, or live workers would be unknown.
        logs = private_folder(sweep.folder, self.private) / SLURM
        with stop_signals(insist=False) as left_here:
            if len(tasks) < wanted:
                new = self._submit(sweep, wanted - len(tasks), logs, left_here)
                tasks += new
                say(console, f"Slurm job {new[0].split('_')[0]}: {count(len(new), 'worker')}, logs in {logs}")
        how = (
            f"  look at them: {PROGRAM} status {shlex.quote(str(sweep.folder))}\n"
            f"  save and stop them: {PROGRAM} stop {shlex.quote(str(sweep.folder))}\n"
            f"  or: scancel {' '.join(sorted({task.split('_')[0] for task in tasks}))}"
        )
        if self.detach:
            say(console, f"detached; the same command without detach watches, and writes table and figure\n{how}")
            raise Left(0)
        try:
            if left_here():
                raise KeyboardInterrupt
            return self._watch(sweep, jobs, tasks, logs, console)
        except KeyboardInterrupt:
            say(console, f"\nthe workers continue; the same command watches them again\n{how}")
            raise Left(130) from None

    def _submit(self, sweep: Sweep, count: int, folder: Path, left_here: Callable[[], bool]) -> list[str]:
        """Submit `count` workers as one array and return the ids of its tasks. `folder`: for submitit's files."""
        import submitit

        code = snapshot(folder.parent, USED.values())
        record = sweep.folder / SLURM
        for made in (folder, record):
            folders.make_folder(made, root=made.parent)
        refuse_unwritable([record], sweep.out)
        paths = [code, *(_own(code, number) for number, own in enumerate(USED.values()) if not own.is_file)]
        given = {**self.parameters, "name": self.parameters["name"] or sweep.name}
        given["slurm_comment"] = " ".join(filter(None, [given.get("slurm_comment"), mark_of(sweep.folder)]))
        setup = [
            *(given.pop("slurm_setup", None) or []),
            # Bytecode that lies beside the code would be executed in its place.
            "export PYTHONDONTWRITEBYTECODE=1",
            # `python -m` looks in the working directory first, so that must not be the code that is being edited.
            f"cd {shlex.quote(str(code))} || exit 1",
            f"export PYTHONPATH={shlex.quote(':'.join(map(str, paths)))}${{PYTHONPATH:+:$PYTHONPATH}}",
            # Since Slurm 22.05 srun does not take this value from sbatch.
            '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK',
        ]
        command = [sys.executable, "-u", "-m", "hidden_subnet", "worker", str(sweep.folder)]
        command += ["--jobs-per-gpu", str(self.jobs_per_gpu or "auto")]
        command += ["--requeues", str(self.requeues), "--tasks", str(count)]
        command += copies_to_use(code)
        try:
            with slurm.refusals_of_sbatch("the workers"):
                executor = submitit.AutoExecutor(folder=folder, cluster="slurm")
                executor.update_parameters(**given, slurm_setup=setup, slurm_array_parallelism=count)
                # The message of sbatch, if it refuses, is in the exception as well.
                with redirect_stderr(StringIO()), executor.batch():
                    submitted = [executor.submit(slurm.become_worker, command) for _ in range(count)]
        except ConfigError:
            if left_here():  # Ctrl-C in a terminal reaches sbatch too
                raise KeyboardInterrupt from None
            raise
        tasks = [str(job.job_id) for job in submitted]
        # Each submission has its own file, since two launchers may submit at the same time.
        write_json(record / f"jobs-{tasks[0].split('_')[0]}.json", {"tasks": tasks})
        return tasks

    def _watch(self, sweep: Sweep, jobs: list[Job], tasks: list[str], logs: Path, console: Console) -> str:
        """Watch until every run has ended or no worker is left; returns what `execute` returns."""
        known: dict[str, QueuedJob] | None = None
        seen: dict[Path, Observation] = {}
        asked = pause = 0.0
        shown = ""
        with View(console) as view:
            while True:
                now = time.monotonic()
                if now - asked >= pause:
                    known = queue()
                    asked = time.monotonic()
                    pause = max(ASK_SECONDS, 20 * (asked - now))
                    if (line := _standstill(known, tasks)) != shown:
                        shown = line
                        if line:
                            say(console, line)
                _look(sweep, jobs, tasks, known, seen)
                view.update(jobs)
                if all(_has_ended(job) for job in jobs):
                    cancel_idle(known, tasks, console)
                    return ""
                if known is not None and not any(_is_alive(known, task) for task in tasks):
                    # The last worker may have written something after our look at the runs.
                    _look(sweep, jobs, tasks, known, seen)
                    view.update(jobs)
                    break
                time.sleep(1.0)
        if all(_has_ended(job) for job in jobs):
            return ""
        if reason := patiently(lambda: sweeps.stop_reason(sweep.folder)):
            return reason
        self.deserted = True
        for job in jobs:  # record what the dead workers could not record
            if job.state == "lost" and job.status is not None and job.status.ended_at is None:
                with suppress(OSError):  # the next launch records it
                    claims.end(job.folder / ATTEMPTS / str(job.status.attempt), "lost", job.message)
        _show_ends(logs, tasks, console)
        return "no worker of this sweep is left in Slurm's queue"


def mark_of(folder: Path) -> str:
    """The word in the comment of each Slurm job of a sweep: the sweep's name, and a digest of where it is."""
    return f"hidden_subnet:{folder.name}:{_digest(folder)}"


def _digest(folder: Path) -> str:
    return hashlib.sha256(os.path.realpath(folder).encode()).hexdigest()[:8]


def own_tasks(folder: Path, known: dict[str, QueuedJob] | None) -> dict[str, QueuedJob]:
    """The workers of the sweep in `folder` that Slurm knows.

    Others may write to that folder: an id that is recorded there counts only if Slurm says that the job is the sweep's.
    """
    mark = mark_of(folder)
    found = {task: known[task] for task in known_tasks(folder) if known and task in known}
    return {task: job for task, job in found.items() if mark in job.comment.split()}


def known_tasks(folder: Path) -> list[str]:
    """Ids ("12_0") of all workers that were ever submitted for the sweep in `folder`. Raises ValueError if damaged."""
    found = []
    try:
        recorded = [folder / SLURM / name for name in folders.names(folder / SLURM) if JOBS.fullmatch(name)]
    except FileNotFoundError:
        return []
    for path in sorted(recorded, key=lambda path: (len(path.name), path.name)):
        try:
            recorded_tasks = patiently(partial(folders.read_json, path))["tasks"]
            found += [_task(task) for task in recorded_tasks]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} is damaged; move it away (squeue --me shows which workers are left)") from None
    return found


def _task(name: Any) -> str:
    if not isinstance(name, str) or not TASK.fullmatch(name):
        raise ValueError(f"{name!r} is not a task of Slurm")
    return name


def await_stopping(folder: Path, console: Console) -> None:
    """Before a stopped sweep is launched again, wait until its workers have left: they would start no further runs."""
    end, announced = time.monotonic() + STOP_SECONDS, False
    while patiently(lambda: sweeps.stop_reason(folder)) is not None and time.monotonic() < end:
        leaving = [task for task, job in own_tasks(folder, queue()).items() if slurm.has_place(job.state)]
        if not leaving:
            return
        if not announced:
            say(console, f"the sweep was stopped: waiting until {count(len(leaving), 'worker')} have saved and left")
            announced = True
        time.sleep(1.0)


def private_folder(sweep: Path, chosen: Path | None) -> Path:
    """Folder for what this user's workers execute, and for their logs: nobody else can change or exchange it.

    It is the sweep's own folder, or if others may write there or above it, one in `chosen` or the user's home.
    Raises ConfigError if that is no such folder either.
    """
    return sweep if not why_exchangeable(sweep) else _own_folder(sweep, chosen)


def submitit_folder(asked: str, out: Path, sweep: Path) -> str:
    """Folder for the files of Hydra's submitit launchers, pickles that are executed: nobody else can change them.

    asked: hydra.launcher.submitit_folder, in which submitit replaces %j by the job's id. It gets a folder of the sweep
    before that, or if it is in `out`, as by default, and others may write there, one in the user's home takes its
    place. Raises ConfigError if there is no such folder.
    """
    path = Path(os.path.abspath(asked))
    fixed = next((each.parent for each in reversed((path, *path.parents)) if "%" in each.name), path)
    try:
        place = _own_folder(sweep, fixed)
    except ConfigError:
        if not fixed.is_relative_to(os.path.abspath(out)):
            raise
        place = _own_folder(sweep, None)
    return str(place / path.relative_to(fixed))


def _own_folder(sweep: Path, chosen: Path | None) -> Path:
    """Make the folder of a sweep in `chosen`, or in the user's home; raises ConfigError if others may change it."""
    place = folder_elsewhere(sweep, chosen)
    try:
        why = why_exchangeable(next(each for each in (place, *place.parents) if os.path.lexists(each)))
        if not why:
            for made in (place.parent, place):
                made.mkdir(mode=0o700, parents=True, exist_ok=True)
            why = why_exchangeable(place)
    except OSError as error:
        why = explained(error)
    if why:
        raise ConfigError(
            f"others may write to {sweep}, so that what is executed has to be elsewhere, but {why}; name a folder of "
            "your own that the compute nodes see, as in: hydra.launcher.submitit_folder=$HOME/submitit"
        )
    place.chmod(0o700)  # what is made in it may be open to a group, by the umask
    return place


def folder_elsewhere(sweep: Path, chosen: Path | None = None) -> Path:
    """The folder of a sweep in `chosen`, or in the user's home, whether it exists or not."""
    return (chosen or Path.home() / ".hidden_subnet").absolute() / f"{sweep.name}-{_digest(sweep)}"


def _own(code: Path, number: int) -> Path:
    """Return the folder, in a copy of the code, of one of the user's own files and its neighbours."""
    return code / "own" / str(number)


def copies_to_use(code: Path) -> list[str]:
    """Return the options by which a worker imports the user's own files as they were here, from a copy of the code."""
    files = [each.file for each in USED.values()]
    words: list[str] = []
    for name, own in USED.items():
        # A file that is named with two of its classes has two copies, and is one module.
        copy = _own(code, files.index(own.file)) / own.file.relative_to(own.root)
        words += ["--use", (f"{copy}:{own.target}" if own.target else str(copy)) if own.is_file else name]
    return words


def snapshot(place: Path, own: Iterable[OwnFile] = ()) -> Path:
    """Copy the package to <place>/code-<digest>-<random>, so that later edits do not affect these workers.

    own: files of the user's own parts, copied to own/<number>/ with what they import from their folders.
    A copy that is there is used only if it is this user's and holds these files and no other.
    """
    package = Path(__file__).resolve().parents[1]
    files = sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    content = {path.relative_to(package.parent).as_posix(): path.read_bytes() for path in files}
    for number, each in enumerate(own):
        for path, text in each.texts.items():
            content[f"own/{number}/{path.relative_to(each.root).as_posix()}"] = text.encode()
    digest = hashlib.sha256()
    for name, data in content.items():
        digest.update(f"{name} {len(data)}\n".encode() + data)
    code = f"code-{digest.hexdigest()[:12]}"
    for copy in [place / name for name in sorted(folders.names(place)) if name.startswith(code)]:
        with suppress(OSError):
            if folders.read_tree(copy, place) == content:
                return copy
    made = place / f"{code}-{secrets.token_hex(4)}"
    folders.make_tree(made, content, place)
    return made


def _alive(folder: Path) -> list[str]:
    """The workers of the sweep in `folder` that wait or run. Raises ConfigError if Slurm does not answer."""
    if not known_tasks(folder):
        return []
    known = queue()
    if known is None:
        raise ConfigError(
            "squeue does not answer, so it is unknown which workers of this sweep are alive; give the command later"
        )
    return [task for task in own_tasks(folder, known) if _is_alive(known, task)]


def _is_alive(known: dict[str, QueuedJob], task: str) -> bool:
    return task in known and known[task].state not in slurm.ENDED


def _look(
    sweep: Sweep,
    jobs: list[Job],
    tasks: list[str],
    known: dict[str, QueuedJob] | None,
    seen: dict[Path, Observation],
) -> None:
    """Update the jobs that may still change, with what Slurm said of the workers (None: it did not answer).

    `seen`: see LivenessProbe.
    """
    said = None
    if known is not None:
        gone = dict.fromkeys(tasks, "no longer in the queue")
        said = {**gone, **{task: job.state for task, job in known.items()}}
    probe = LivenessProbe(sweep.out, lambda: said, eager=True, seen=seen)
    for job in jobs:
        if not job.is_settled and job.state != "failed":
            try_look(job, sweep, probe)


def _has_ended(job: Job) -> bool:
    return job.is_settled or job.state == "failed" or (job.state == "lost" and not job.claimable)


def _standstill(known: dict[str, QueuedJob] | None, tasks: list[str]) -> str:
    """A line if nothing happens, because Slurm does not answer or all workers are waiting for a node; else ""."""
    if known is None:
        return "squeue does not answer; the runs are still being watched"
    alive = [task for task in tasks if _is_alive(known, task)]
    reasons = sorted({known[task].reason for task in alive if known[task].state == "PENDING"} - {"None"})
    if alive and reasons and all(known[task].state == "PENDING" for task in alive):
        return f"{count(len(alive), 'worker')} waiting in Slurm's queue: {', '.join(reasons)}"
    return ""


def cancel_idle(known: dict[str, QueuedJob] | None, tasks: list[str], console: Console) -> None:
    """Cancel those of the `tasks`, ids of workers, that this user submitted and that still wait: no run is left."""
    mine = {task: job for task, job in (known or {}).items() if job.user == str(os.getuid())}
    waiting = [task for task in tasks if task in mine and mine[task].state == "PENDING"]
    if waiting:
        say(console, f"no run is left for {count(len(waiting), 'worker')} still waiting in the queue: cancelled")
        slurm.cancel_waiting(waiting)


def _show_ends(folder: Path, tasks: list[str], console: Console) -> None:
    """Print how each worker ended, and the last line of its error log."""
    for task in tasks[:10]:
        log = folder / f"{task}_0_log.err"
        last: list[str] = []
        with suppress(OSError):
            last = folders.read_end(log, 10_000).decode(errors="replace").rstrip().splitlines()[-1:]
        say(console, f"worker {task}: {slurm.how_it_ended(task)}; its log: {folder / f'{task}_0_log.out'}, .err")
        if last:
            say(console, f"  last line of its errors: {last[0][:300]}")
    if len(tasks) > 10:
        say(console, f"... and {len(tasks) - 10} more")
