"""A worker claims a run that is not done, executes it in a child process, and goes on until none is left.

The slots of a sweep on this machine and the tasks of one on a cluster are the same workers; the claims are all that
they have in common.
"""

import json
import os
import re
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import wait as wait_for_one
from pathlib import Path

from hidden_subnet.execute import Origin
from hidden_subnet.owners import BEATS, Observer, this_host, this_process
from hidden_subnet.settings import OnError
from hidden_subnet.signals import SIGNALS, heeded
from hidden_subnet.sweep import manifest, pool
from hidden_subnet.sweep.job import Job, jobs_of, look
from hidden_subnet.sweep.manifest import Sweep
from hidden_subnet.sweep.pool import Child, Slots
from hidden_subnet.sweep.presence import workers
from hidden_subnet.sweep.slurm import states as slurm_states

SAME_ERROR = 5
"""So many runs that fail with one error, before any run is done, end the sweep."""
IN_A_ROW = 3
"""So many failures in a row, while other hosts' workers have success, end a worker."""
AGAIN_SECONDS = 2.0
"""Between two looks at what other workers did, and two requests to a run to stop."""


@dataclass
class Work:
    """What a worker is doing, and why it stops."""

    sweep: Sweep
    jobs: list[Job]
    slots: Slots
    name: str
    wait: bool
    """Stay until runs that others execute are done, to take them over if need be."""
    running: list[Child] = field(default_factory=list)
    signals: list[int] = field(default_factory=list)
    reason: str = ""
    """Why no further run is started; empty: until none is left."""
    looked: float = 0.0
    pause: float = 0.0
    asked: float = 0.0
    starting: bool = False
    """A run is being started, which takes seconds where torch is not loaded yet."""
    in_a_row: int = 0
    no_gpu_until: float = 0.0
    told: bool = False
    """That it waits for others."""


def work(
    sweep: Sweep,
    slots: Slots,
    watch: Callable[[list[Job]], None],
    *,
    jobs: list[Job] | None = None,
    wait: bool = True,
    first: int = 0,
) -> Work:
    """Execute runs of the sweep; `watch` is called several times a second.

    INT, TERM, HUP, USR2 and the file `stop` let the running children save and stop, and start no further ones; a
    second INT kills them. `first` is the run to begin with: workers that begin at different ones seldom collide.
    """
    observer = Observer(sweep.out, slurm_states)
    name = f"{this_host()}-{os.getpid()}-{secrets.token_hex(3)}"
    doing = Work(sweep, jobs_of(sweep, observer) if jobs is None else jobs, slots, name, wait)
    order = _order(doing.jobs, first)
    before = {each: signal.signal(each, lambda number, _: _signalled(doing, number)) for each in heeded()}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # slurm.become_worker let them wait until now
    presence = _arrive(doing)
    try:
        while True:
            _look_around(doing, presence)
            _start_runs(doing, order)
            watch(doing.jobs)
            if not doing.running and (doing.reason or not _something_to_wait_for(doing)):
                break
            _await_runs(doing)
    except NothingRuns:
        pass
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        presence.unlink(missing_ok=True)
        watch(doing.jobs)
    return doing


class NothingRuns(Exception):
    """Asked to stop while the first run is being started: there is nothing to wait for."""


def _order(jobs: list[Job], first: int) -> list[Job]:
    """From the first on, and those last that have failed before: they may fail again, and end the sweep for all."""
    order = jobs[first % len(jobs) :] + jobs[: first % len(jobs)]
    return sorted(order, key=lambda job: job.standing is not None and job.standing.state in ("failed", "lost"))


def _signalled(doing: Work, number: int) -> None:
    again = number == signal.SIGINT and signal.SIGINT in doing.signals
    doing.signals.append(number)
    doing.reason = doing.reason or ("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)
    if again:
        for child in doing.running:
            child.kill()
    elif number == signal.SIGINT and doing.running:
        print("\nstopping: every run saves at its next step (once more kills them)", file=sys.stderr)
    if doing.starting and not doing.running:
        raise NothingRuns


def _arrive(doing: Work) -> Path:
    """A file that says that this worker lives; its time is the last sign of it."""
    path = doing.sweep.folder / manifest.WORKERS / f"{doing.name}.json"
    path.parent.mkdir(exist_ok=True)
    owner = this_process(doing.name, doing.jobs[0].config.claim.silent_seconds)
    path.write_text(json.dumps({**asdict(owner), "slots": doing.slots.count}))
    return path


def _look_around(doing: Work, presence: Path) -> None:
    """Now and then: is the sweep to stop, what have others done, and are those alive who have the runs."""
    now = time.monotonic()
    if now - doing.looked < doing.pause:
        return
    with suppress(OSError):
        os.utime(presence)
    _join_new_launch(doing)
    reason = manifest.stop_reason(doing.sweep.folder)
    doing.reason = doing.reason or reason or ""
    _look_at_others(doing)
    _break_circuit(doing)
    doing.looked = time.monotonic()
    # With thousands of runs on a slow file system, looking must not be all that a worker does.
    doing.pause = max(AGAIN_SECONDS, 20 * (doing.looked - now))


def _look_at_others(doing: Work) -> None:
    observer = Observer(doing.sweep.out, slurm_states)
    mine = {id(child.job) for child in doing.running}
    for job in doing.jobs:
        if id(job) not in mine and not job.final and job.state not in ("done", "skipped"):
            look(job, doing.sweep, observer)


def _join_new_launch(doing: Work) -> None:
    """The same command was given again while this worker lives: what failed before is to be tried again."""
    try:
        launched = (doing.sweep.folder / manifest.MANIFEST).stat().st_mtime
        if launched == doing.sweep.launched:
            return
        now = manifest.read(doing.sweep.folder)
    except (OSError, ValueError):  # it went, or is being written; the next look tells
        return
    doing.sweep = replace(doing.sweep, launched=now.launched, launch=now.launch)
    for job in doing.jobs:
        job.final = False


def _start_runs(doing: Work, order: list[Job]) -> None:
    if doing.no_gpu_until > time.monotonic():
        return
    while not doing.reason and len(doing.running) < doing.slots.count:
        job = next((job for job in order if job.claimable), None)
        if job is None:
            return
        observer = Observer(doing.sweep.out, slurm_states)
        look(job, doing.sweep, observer)  # another may have been faster
        if not job.claimable:
            continue
        job.claimable = False
        config = copy(job.config)
        config.force = job.config.force and not _begun_in_this_launch(job, doing.sweep)
        # Starting may take seconds, in which another worker takes the run and fails.
        after = job.standing.attempt if job.standing is not None else None
        origin = Origin(doing.sweep.name, doing.name, str(doing.sweep.launch), doing.sweep.provenance, after)
        doing.starting = True
        doing.running.append(pool.start(job, config, doing.slots, origin))
        doing.starting = False


def _begun_in_this_launch(job: Job, sweep: Sweep) -> bool:
    """Then a forced run goes on from there."""
    now = job.standing
    return now is not None and now.owner is not None and now.owner.launch == sweep.launch


def _await_runs(doing: Work) -> None:
    wait_for_one([child.event for child in doing.running], timeout=0.1) if doing.running else time.sleep(0.1)
    if doing.reason and time.monotonic() - doing.asked > AGAIN_SECONDS:
        # Again and again: the first request may have come before the run could hear it.
        doing.asked = time.monotonic()
        for child in doing.running:
            child.stop()
    for child in [child for child in doing.running if child.has_ended()]:
        doing.running.remove(child)
        state = pool.end(child, doing.sweep)
        if (slots := pool.make_room(child, doing.slots)) is not None:
            print(
                f"{child.job.folder.name}: {child.job.message}; from now on {slots.jobs_per_gpu} on a GPU", flush=True
            )
            doing.slots, state = slots, child.job.state
        if child.launch != doing.sweep.launch:  # the command was given again meanwhile, and wants it tried again
            child.job.final = False
        if state == pool.NO_GPU:
            doing.no_gpu_until = time.monotonic() + AGAIN_SECONDS
            child.job.claimable = True
        elif state == "busy":  # another has it: see who
            doing.looked = min(doing.looked, time.monotonic() - doing.pause + 0.2)
        else:
            _judge(doing, child.job)


def _judge(doing: Work, job: Job) -> None:
    doing.in_a_row = doing.in_a_row + 1 if job.state in ("failed", "lost") else 0
    if job.state == "interrupted":
        job.claimable = not doing.reason
    if job.final and job.config.on_error is OnError.stop:
        _stop_all(doing, f"on_error=stop: {job.folder.name} {'failed' if job.state == 'failed' else 'was lost'}")
    _break_circuit(doing)
    if doing.in_a_row >= IN_A_ROW and not doing.reason and _others_succeed(doing):
        doing.reason = f"the last {IN_A_ROW} runs on this host failed while others' succeed: {job.message}"


def _break_circuit(doing: Work) -> None:
    if any(job.state == "done" for job in doing.jobs):
        return
    # Numbers aside: losses and paths differ from run to run.
    bad = [job for job in doing.jobs if job.state in ("failed", "lost") and not job.claimable]
    errors = Counter(re.sub(r"\d+", "0", job.message) for job in bad)
    for error, count in errors.most_common(1):
        if count >= SAME_ERROR and not doing.reason:
            _look_at_others(doing)
            if any(job.state == "done" for job in doing.jobs):
                return
            said = next(job.message for job in bad if re.sub(r"\d+", "0", job.message) == error)
            _stop_all(doing, f"the first {count} runs failed with the same error and none is done: {said}")


def _stop_all(doing: Work, reason: str) -> None:
    with suppress(OSError):  # a full disk, on which all fail; then each worker finds out by itself
        manifest.stop(doing.sweep.folder, reason)
    doing.reason = doing.reason or reason


def _others_succeed(doing: Work) -> bool:
    """Whether workers of other hosts are there to go on, and some run is done."""
    host = this_host()
    there = any(each.owner.host != host for each in workers(doing.sweep.folder, Observer(doing.sweep.out)))
    return there and any(job.state == "done" for job in doing.jobs)


def _something_to_wait_for(doing: Work) -> bool:
    if any(job.claimable for job in doing.jobs):
        return True
    others = [job.standing for job in doing.jobs if job.state == "running" and job.standing is not None]
    if doing.wait:
        if others and not doing.told:
            doing.told = True
            print(
                f"waits for {len(others)} run{'s' * (len(others) > 1)} that other workers execute "
                "(Ctrl-C leaves them to those)",
                flush=True,
            )
        return bool(others)
    # A worker of a cluster gives its place back, unless an owner has fallen silent and may be dead.
    return any(o.owner is not None and o.silent > 3 * o.owner.silent_seconds / BEATS for o in others)


def first_of(task: str | None, runs: int, workers: int) -> int:
    """The run with which the worker of an array task begins."""
    number = task.rpartition("_")[2] if task else ""
    return int(number) * runs // max(1, workers) if number.isdigit() else 0
