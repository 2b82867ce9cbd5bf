"""A worker claims a run that is not done, executes it in a child process, and repeats until no run is left.

The slots of a sweep on this machine and the tasks of a sweep on a cluster are the same kind of worker. Workers
coordinate only through the claims of the runs.
"""

import os
import re
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import wait as wait_for_one
from pathlib import Path

from hidden_subnet.config.settings import Config, OnError
from hidden_subnet.signals import SIGNALS, heeded
from hidden_subnet.store import folders, sweeps
from hidden_subnet.store.liveness import LivenessProbe, Observation, this_host, this_process
from hidden_subnet.store.sweeps import Presence, Sweep, live_workers
from hidden_subnet.sweep import processes
from hidden_subnet.sweep.execute import LaunchInfo, OpenTrackers, no_trackers
from hidden_subnet.sweep.jobs import AGAIN_SECONDS, Job, descendants, jobs_of, try_look
from hidden_subnet.sweep.processes import Child, Slots

SAME_ERROR = 5
"""The sweep stops if this many runs fail with the same error before any run is done."""
IN_QUEUE = 20.0
"""Seconds that a run waits in the queue for a GPU or core before its worker looks again for what has changed."""
IN_A_ROW = 3
"""A worker stops if this many of its runs fail in a row while workers on other hosts succeed."""

StartRun = Callable[[Job, Config, Slots, LaunchInfo], Child]
"""Starts the process that executes a run; processes.start."""


class StoppedBeforeStart(Exception):
    """A signal asked the worker to stop while none of its runs was going, so there is nothing to wait for."""


@dataclass
class Work:
    """The state of a worker, and why it stops. `run` is the whole loop; the other methods are its steps."""

    sweep: Sweep
    jobs: list[Job]
    slots: Slots
    name: str
    wait: bool
    """Whether to stay until the runs of other workers are done, to take them over if those workers die."""
    start_run: StartRun = processes.start
    running: list[Child] = field(default_factory=list)
    signals: list[int] = field(default_factory=list)
    """The signals that were received."""
    reason: str = ""
    """Why no further run is started; empty as long as runs are started."""
    seen: dict[Path, Observation] = field(default_factory=dict)
    """Heartbeats of others as the worker has seen them."""
    asked_whether: float = 0.0
    """When the worker last asked whether the sweep is to stop; this and the next four are times of time.monotonic()."""
    looked: float = 0.0
    """When it last looked at what others did."""
    pause: float = 0.0
    """Seconds until the next look."""
    asked: float = 0.0
    """When the runs were last asked to stop."""
    no_room_until: float = 0.0
    """Until then no run is started, since no process could be started."""
    may_leave: bool = False
    """Whether a signal may end at once what is being done, where no run is going: one is being started, which takes
    seconds if torch is not loaded yet, or files are read, for which a file server may never answer."""
    failures_in_a_row: int = 0
    waiting_announced: bool = False
    unanswered_announced: bool = False

    def run(self, watch: Callable[[list[Job]], None], first: int) -> None:
        """Execute runs until none is left; see `work`."""
        order = in_order(self.jobs, first)
        before = {each: signal.signal(each, lambda number, _: self.handle_signal(number)) for each in heeded()}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # blocked until now by slurm.become_worker
        me = this_process(self.name, self.jobs[0].config.claim.silent_seconds)
        try:
            with Presence(self.sweep.folder, me, self.slots.count):
                while True:
                    self.may_leave = True
                    self.look_around()
                    self.may_leave = False
                    self.start_runs(order)
                    watch(self.jobs)
                    if not self.running and (self.reason or not self._has_something_to_wait_for()):
                        break
                    self._await_runs()
        except StoppedBeforeStart:
            pass
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
            watch(self.jobs)

    def handle_signal(self, number: int) -> None:
        """Start no further runs; a second SIGINT also kills the running ones."""
        again = number == signal.SIGINT and signal.SIGINT in self.signals
        self.signals.append(number)
        self.reason = self.reason or ("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)
        if again:
            for child in self.running:
                child.kill()
        elif number == signal.SIGINT and self.running:
            print("\nstopping: every run saves at its next step (Ctrl-C again kills them)", file=sys.stderr)
        if self.may_leave and not self.running:
            raise StoppedBeforeStart

    def look_around(self) -> None:
        """See whether the sweep is to stop, and every `pause` seconds what others have done and whether they live."""
        now = time.monotonic()
        if now - self.asked_whether >= AGAIN_SECONDS:
            self._join_new_launch()
            self.reason = self.reason or self._stop_reason()
            self.asked_whether = time.monotonic()
        if now - self.looked < self.pause:
            return
        self._look_at_others()
        self._stop_after_same_errors()
        self.looked = time.monotonic()
        # With thousands of runs on a slow file system, a worker must not spend all its time looking.
        self.pause = max(AGAIN_SECONDS, 20 * (self.looked - now))

    def start_runs(self, order: list[Job]) -> None:
        """Start runs, in this order, until every slot is taken or no run is left that may be claimed."""
        for job in order:
            if self.reason or len(self.running) >= self.slots.count or self.no_room_until > time.monotonic():
                return
            if not job.claimable or job.not_before > time.monotonic():
                continue
            probe = self._probe()
            self._announce(try_look(job, self.sweep, probe))  # another worker may have taken it since
            if not job.claimable or job.not_before > time.monotonic():
                continue
            job.claimable = False
            config = replace(job.config, force=job.force and not self._started_in_this_launch(job))
            # Starting takes up to seconds, in which another worker may take the run and fail.
            after = job.status.attempt if job.status is not None else None
            sweep = self.sweep
            launch = LaunchInfo(
                sweep.name, self.name, str(sweep.launch), sweep.provenance, after, seen=job.observed(probe)
            )
            self.may_leave = True
            try:
                self.running.append(self.start_run(job, config, self.slots, launch))
            except OSError as error:  # the machine has no process or file descriptor left
                self._wait_or_give_up(job, str(error))
            self.may_leave = False

    def _wait_or_give_up(self, job: Job, message: str) -> None:
        """After a run could not be started: try again while others run, whose end may make room; else stop."""
        if self.running:
            job.state, job.claimable, self.no_room_until = "queued", True, time.monotonic() + AGAIN_SECONDS
            return
        job.state, job.message, job.final = "failed", message, True
        sweeps.record_failure(self.sweep, job.folder.name, message)
        self.reason = self.reason or message

    def judge(self, job: Job) -> None:
        """Decide after the end of a run whether it may be resumed, and whether the worker or the sweep stops.

        Those that start from it may do so now, or never; a worker on a cluster has to know it before it leaves.
        """
        self.failures_in_a_row = self.failures_in_a_row + 1 if job.state in ("failed", "lost") else 0
        if job.state == "interrupted":
            job.claimable = not self.reason
        for each in descendants(self.jobs, job):
            if not each.is_settled and all(each is not child.job for child in self.running):
                self._announce(try_look(each, self.sweep, self._probe()))
        if job.final and job.config.on_error is OnError.stop:
            self._stop_sweep(f"on_error=stop: {job.folder.name} {'failed' if job.state == 'failed' else 'was lost'}")
        self._stop_after_same_errors()
        if self.failures_in_a_row >= IN_A_ROW and not self.reason and self._others_succeed():
            self.reason = f"the last {IN_A_ROW} runs on this host failed while others' succeed: {job.message}"

    def _probe(self) -> LivenessProbe:
        return LivenessProbe(self.sweep.out, seen=self.seen)

    def _stop_reason(self) -> str:
        """Why the sweep was asked to stop; "" if it was not, or if a file server does not answer."""
        try:
            return sweeps.stop_reason(self.sweep.folder) or ""
        except OSError as error:
            self._announce(str(error))
            return ""

    def _announce(self, error: str) -> None:
        """Say once that files cannot be read; `error` is "" if they can."""
        if error and not self.unanswered_announced:
            self.unanswered_announced = True
            print(f"some files cannot be read now ({error}): they are read again, and no run fails of it", flush=True)

    def _look_at_others(self) -> None:
        probe = self._probe()
        mine = {id(child.job) for child in self.running}
        for job in self.jobs:
            if id(job) not in mine and not job.final and not job.is_settled:
                self._announce(try_look(job, self.sweep, probe))

    def _join_new_launch(self) -> None:
        """If the command has been given again in the meantime, try again what failed before."""
        try:
            launched = folders.status(self.sweep.folder / sweeps.MANIFEST).st_mtime
            if launched == self.sweep.launched:
                return
            now = sweeps.read(self.sweep.folder)
        except (OSError, ValueError):  # it was removed or is being written; the next look shows
            return
        self.sweep = replace(self.sweep, launched=now.launched, launch=now.launch)
        for job in self.jobs:
            job.final = False

    def _started_in_this_launch(self, job: Job) -> bool:
        """Whether this launch has executed the run before: then even with force=true it is resumed."""
        now = job.status
        return now is not None and now.holder is not None and now.holder.launch == self.sweep.launch

    def _await_runs(self) -> None:
        """Wait up to 0.1 s for a run to end, and take note of those that have ended."""
        wait_for_one([child.event for child in self.running], timeout=0.1) if self.running else time.sleep(0.1)
        if self.reason and time.monotonic() - self.asked > AGAIN_SECONDS:
            # Repeatedly, since a run does not notice a request that comes before it has its signal handlers.
            self.asked = time.monotonic()
            for child in self.running:
                child.stop()
        for child in [child for child in self.running if child.has_ended()]:
            self.running.remove(child)
            self._take_note(child)

    def _take_note(self, child: Child) -> None:
        state = processes.end(child, self.sweep)
        if (slots := processes.make_room(child, self.slots)) is not None:
            print(f"{child.job.folder.name}: {child.job.message}; from now on {slots.jobs_per_gpu} per GPU", flush=True)
            self.slots, state = slots, child.job.state
        if child.launch != self.sweep.launch:  # the command was given again: a failed run is tried again
            child.job.final = False
        if state == processes.UNANSWERED:
            self._announce(child.job.message)
            child.job.claimable = True
            child.job.refusals += 1
            child.job.postpone(child.job.message)
        elif state == processes.NO_PLACE:
            if child.job.message and not self.slots.patience:
                what = "GPU" if self.slots.gpus else "core"
                print(f"waiting for a {what} of {this_host()} ({child.job.message})", flush=True)
            self.slots = replace(self.slots, patience=IN_QUEUE)  # from now on they wait there, without a word
            child.job.claimable, child.job.message = True, ""
        elif state == "busy":  # another process has the run: look soon, to see which
            self.looked = min(self.looked, time.monotonic() - self.pause + 0.2)
        else:
            self.judge(child.job)

    def _stop_after_same_errors(self) -> None:
        """Stop the sweep if its first SAME_ERROR failures have the same error and no run is done."""
        if any(job.state == "done" for job in self.jobs):
            return
        # Compared without numbers, since losses and paths differ from run to run.
        bad = [job for job in self.jobs if job.state in ("failed", "lost") and not (job.claimable or job.blocked)]
        errors = Counter(re.sub(r"\d+", "0", job.message) for job in bad)
        for error, count in errors.most_common(1):
            if count >= SAME_ERROR and not self.reason:
                self._look_at_others()
                if any(job.state == "done" for job in self.jobs):
                    return
                message = next(job.message for job in bad if re.sub(r"\d+", "0", job.message) == error)
                self._stop_sweep(f"the first {count} runs failed with the same error and none is done: {message}")

    def _stop_sweep(self, reason: str) -> None:
        with suppress(OSError):  # a full disk, which makes all runs fail; then each worker finds out by itself
            sweeps.stop(self.sweep.folder, reason)
        self.reason = self.reason or reason

    def _others_succeed(self) -> bool:
        """Whether other hosts have live workers and some run is done."""
        try:
            others = live_workers(self.sweep.folder, self._probe())
        except OSError:  # a file server does not answer; the next failure asks again
            return False
        elsewhere = any(each.holder.host != this_host() for each in others)
        return elsewhere and any(job.state == "done" for job in self.jobs)

    def _has_something_to_wait_for(self) -> bool:
        if any(job.claimable or (job.unanswered and not job.final) for job in self.jobs):
            return True
        others = [job.status for job in self.jobs if job.state == "running" and job.status is not None]
        if self.wait:
            if others and not self.waiting_announced:
                self.waiting_announced = True
                print(
                    f"waiting for {len(others)} run{'s' * (len(others) > 1)} of other workers "
                    "(Ctrl-C stops the waiting, not those runs)",
                    flush=True,
                )
            return bool(others)
        # On a cluster a worker gives its place back, unless a run's heartbeat is late and its holder may be dead, or
        # several runs wait for the end of one, whose own worker takes one of them.
        waiting = Counter(id(job.parent) for job in self.jobs if job.state == "queued")
        several = any(waiting[id(job)] > 1 for job in self.jobs if job.state == "running")
        return several or any(status.late for status in others)


def work(
    sweep: Sweep,
    slots: Slots,
    watch: Callable[[list[Job]], None],
    *,
    jobs: list[Job] | None = None,
    wait: bool = True,
    first: int = 0,
    open_trackers: OpenTrackers = no_trackers,
) -> Work:
    """Execute runs of the sweep until none is left; `watch` is called with the jobs several times a second.

    INT, TERM, HUP, USR2 and the file `stop` make the running children save and stop, and no further ones are started;
    a second INT kills them. `jobs`: the runs of the sweep if the caller has looked at them already. `first`: index of
    the run to begin with; workers that begin at different runs seldom collide. `wait`: see Work.
    """
    name = f"{this_host()}-{os.getpid()}-{secrets.token_hex(3)}"
    if jobs is None:
        jobs = jobs_of(sweep, LivenessProbe(sweep.out))
    made = Work(sweep, jobs, slots, name, wait, partial(processes.start, open_trackers=open_trackers))
    made.run(watch, first)
    return made


def in_order(jobs: list[Job], first: int) -> list[Job]:
    """The order in which a worker takes runs: from index `first` on, and those that failed before last.

    They may fail again and end the sweep for all.
    """
    order = jobs[first % len(jobs) :] + jobs[: first % len(jobs)]
    return sorted(order, key=lambda job: job.status is not None and job.status.state in ("failed", "lost"))


def first_of(task: str | None, runs: int, workers: int) -> int:
    """Index of the run with which the worker of an array task ("12_3") begins; 0 for any other worker."""
    number = task.rpartition("_")[2] if task else ""
    return int(number) * runs // max(1, workers) if number.isdigit() else 0
