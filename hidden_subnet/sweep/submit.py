"""A sweep whose workers are the tasks of a Slurm array: submit those that are missing, and watch them."""

import hashlib
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from hidden_subnet import claims
from hidden_subnet.check import ConfigError
from hidden_subnet.owners import Observer
from hidden_subnet.record import ATTEMPTS, write_json
from hidden_subnet.report.console import count, say
from hidden_subnet.signals import stop_signals
from hidden_subnet.sweep import manifest, slurm
from hidden_subnet.sweep.job import Job, look
from hidden_subnet.sweep.manifest import Sweep
from hidden_subnet.sweep.view import View

FOLDER = "slurm"
STOP_SECONDS = 120.0
"""How long the workers of a stopped sweep are given to leave before new ones are submitted."""
DEFAULT_WORKERS = 8
ASK_SECONDS = 3.0
"""Between two questions to a Slurm that answers at once; a slow one is asked less often."""


class Left(Exception):
    """The workers go on without this process; its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Array:
    """How the workers are submitted. `execute` is a `sweep.Execute`."""

    parameters: dict[str, Any]
    """Of submitit's AutoExecutor.update_parameters."""
    workers: int | None
    jobs_per_gpu: int | None
    requeues: int
    detach: bool
    deserted: bool = False
    """Set when the last worker has gone and runs are left that nobody stopped."""

    def execute(self, sweep: Sweep, jobs: list[Job], console: Console) -> str:
        """Returns why the workers ended before all runs had. Raises Left where they go on without us."""
        left = sum(job.state not in ("skipped", "done") for job in jobs)
        wanted = min(self.workers or DEFAULT_WORKERS, left)
        tasks = _alive(known_tasks(sweep.folder))
        if tasks:
            say(console, f"{count(len(tasks), 'worker')} of this sweep in the queue already: {' '.join(tasks)}")
        # Between sbatch and the file of its answer nothing may end this process, or it forgets workers that live.
        with stop_signals(insist=False) as left_here:
            if len(tasks) < wanted:
                new = self._submit(sweep, wanted - len(tasks), left_here)
                tasks += new
                say(
                    console,
                    f"Slurm job {new[0].split('_')[0]}: {count(len(new), 'worker')}, logs in {sweep.folder / FOLDER}",
                )
        how = (
            f"  look at them: python -m hidden_subnet status {shlex.quote(str(sweep.folder))}\n"
            f"  save and end them: python -m hidden_subnet stop {shlex.quote(str(sweep.folder))}\n"
            f"  or: scancel {' '.join(sorted({task.split('_')[0] for task in tasks}))}"
        )
        if self.detach:
            say(console, f"detached; the same command without detach watches, and writes table and figure\n{how}")
            raise Left(0)
        try:
            if left_here():
                raise KeyboardInterrupt
            return self._watch(sweep, jobs, tasks, console)
        except KeyboardInterrupt:
            say(console, f"\nthe workers go on; the same command watches them again\n{how}")
            raise Left(130) from None

    def _submit(self, sweep: Sweep, count: int, left_here: Callable[[], bool]) -> list[str]:
        import submitit

        code, folder = snapshot(sweep.folder), sweep.folder / FOLDER
        given = {**self.parameters, "name": self.parameters["name"] or sweep.name}
        setup = [
            *(given.pop("slurm_setup", None) or []),
            # -m looks in the working directory first, so that must not be where the code is being edited.
            f"cd {shlex.quote(str(code))}",
            f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
            # Since 22.05 srun does not know by itself what sbatch was given.
            '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK',
        ]
        command = [sys.executable, "-u", "-m", "hidden_subnet", "worker", str(sweep.folder)]
        command += ["--jobs-per-gpu", str(self.jobs_per_gpu or "auto")]
        command += ["--requeues", str(self.requeues), "--tasks", str(count)]
        try:
            executor = submitit.AutoExecutor(folder=folder, cluster="slurm")
            executor.update_parameters(**given, slurm_setup=setup, slurm_array_parallelism=count)
            # What sbatch says of a refusal is in the exception as well.
            with redirect_stderr(StringIO()), executor.batch():
                submitted = [executor.submit(slurm.become_worker, command) for _ in range(count)]
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            if left_here():  # Ctrl-C in a terminal reaches sbatch too
                raise KeyboardInterrupt from None
            said = [line.removeprefix("sbatch: error: ") for line in str(error).splitlines() if "sbatch: error" in line]
            raise ConfigError(f"sbatch refuses the workers: {'; '.join(said) or str(error)}") from None
        tasks = [str(job.job_id) for job in submitted]
        # A file of its own for each submission: two launchers may be at it.
        write_json(folder / f"jobs-{tasks[0].split('_')[0]}.json", {"tasks": tasks})
        return tasks

    def _watch(self, sweep: Sweep, jobs: list[Job], tasks: list[str], console: Console) -> str:
        """Until every run has ended or no worker is left; see `execute`."""
        known: dict[str, tuple[str, str]] | None = None
        asked = pause = 0.0
        told = ""
        with View(console) as view:
            while True:
                now = time.monotonic()
                if now - asked >= pause:
                    known = slurm.queue()
                    asked = time.monotonic()
                    pause = max(ASK_SECONDS, 20 * (asked - now))
                    if (said := _standstill(known, tasks)) != told:
                        told = said
                        if said:
                            say(console, said)
                _look(sweep, jobs, tasks, known)
                view.update(jobs)
                if all(_has_ended(job) for job in jobs):
                    _cancel_waiting(known, tasks, console)
                    return ""
                if known is not None and not any(_is_alive(known, task) for task in tasks):
                    # What the last worker wrote may have come after the look at the runs.
                    _look(sweep, jobs, tasks, known)
                    view.update(jobs)
                    break
                time.sleep(1.0)
        if all(_has_ended(job) for job in jobs):
            return ""
        if reason := manifest.stop_reason(sweep.folder):
            return reason
        self.deserted = True
        for job in jobs:  # what the dead could not say themselves
            if job.state == "lost" and job.standing is not None and job.standing.ended_at is None:
                claims.end(job.folder / ATTEMPTS / str(job.standing.attempt), "lost", job.message)
        _tell_ends(sweep.folder / FOLDER, tasks, console)
        return "no worker of this sweep is left in Slurm's queue"


def known_tasks(folder: Path) -> list[str]:
    """The ids ("12_0") of all workers that were ever submitted for the sweep in `folder`."""
    found = []
    for path in sorted((folder / FOLDER).glob("jobs-*.json"), key=lambda path: (len(path.name), path.name)):
        try:
            found += [str(task) for task in json.loads(path.read_text())["tasks"]]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} is damaged; move it away (scancel the job of its name)") from None
    return found


def await_stopping(folder: Path, console: Console) -> None:
    """Before a sweep that was stopped is launched anew: its workers are leaving, and no longer to be counted on."""
    end, told = time.monotonic() + STOP_SECONDS, False
    while manifest.stop_reason(folder) is not None and time.monotonic() < end:
        states = slurm.states() or {}
        leaving = [task for task in known_tasks(folder) if task in states and slurm.has_place(states[task])]
        if not leaving:
            return
        if not told:
            say(
                console, f"the sweep was stopped: waits until {count(len(leaving), 'worker')} of it have saved and left"
            )
            told = True
        time.sleep(1.0)


def snapshot(folder: Path) -> Path:
    """Copy the package to <folder>/code-<digest>, whose workers run it, whatever is edited meanwhile."""
    package = Path(__file__).resolve().parents[1]
    files = sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    content = {path.relative_to(package.parent): path.read_bytes() for path in files}
    digest = hashlib.sha256()
    for name, data in content.items():
        digest.update(f"{name} {len(data)}\n".encode() + data)
    code = folder / f"code-{digest.hexdigest()[:12]}"
    if not code.exists():
        temporary = folder / f".code-{os.getpid()}.tmp"
        for name, data in content.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_bytes(data)
        try:
            temporary.rename(code)
        except OSError:  # another launcher was faster
            shutil.rmtree(temporary)
    return code


def _alive(tasks: list[str]) -> list[str]:
    if not tasks:
        return []
    known = slurm.queue()
    if known is None:
        raise ConfigError("squeue does not answer, so it cannot be told which workers of this sweep live; try later")
    return [task for task in tasks if _is_alive(known, task)]


def _is_alive(known: dict[str, tuple[str, str]], task: str) -> bool:
    return task in known and known[task][0] not in slurm.ENDED


def _look(sweep: Sweep, jobs: list[Job], tasks: list[str], known: dict[str, tuple[str, str]] | None) -> None:
    states = None
    if known is not None:
        gone = dict.fromkeys(tasks, "no longer in the queue")
        states = {**gone, **{task: state for task, (state, _) in known.items()}}
    observer = Observer(sweep.out, lambda: states, eager=True)
    for job in jobs:
        if job.state not in ("done", "skipped", "failed"):
            look(job, sweep, observer)


def _has_ended(job: Job) -> bool:
    return job.state in ("done", "skipped", "failed") or (job.state == "lost" and not job.claimable)


def _standstill(known: dict[str, tuple[str, str]] | None, tasks: list[str]) -> str:
    """A line where nothing goes on: Slurm does not answer, or all workers that are left wait for a place."""
    if known is None:
        return "squeue does not answer; the runs are watched all the same"
    alive = [task for task in tasks if _is_alive(known, task)]
    reasons = sorted({known[task][1] for task in alive if known[task][0] == "PENDING"} - {"None"})
    if alive and reasons and all(known[task][0] == "PENDING" for task in alive):
        return f"{count(len(alive), 'worker')} waiting in Slurm's queue: {', '.join(reasons)}"
    return ""


def _cancel_waiting(known: dict[str, tuple[str, str]] | None, tasks: list[str], console: Console) -> None:
    waiting = [task for task in tasks if (known or {}).get(task, ("", ""))[0] == "PENDING"]
    if waiting:
        say(console, f"nothing is left for {count(len(waiting), 'worker')} still waiting in the queue: cancelled")
        slurm.cancel_waiting(waiting)


def _tell_ends(folder: Path, tasks: list[str], console: Console) -> None:
    for task in tasks[:10]:
        log = folder / f"{task}_0_log.err"
        last = log.read_text(errors="replace").rstrip().splitlines()[-1:] if log.exists() else []
        say(console, f"worker {task}: {slurm.how_it_ended(task)}; its log: {folder / f'{task}_0_log.out'}, .err")
        if last:
            say(console, f"  which ends in: {last[0][:300]}")
    if len(tasks) > 10:
        say(console, f"... and {len(tasks) - 10} more")
