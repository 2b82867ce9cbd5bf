"""The processes of a worker: its slots, and a child for each run, from a fork server that has imported torch once.

A run so starts in tens of milliseconds, and what it does to its process (a crash, a leak, random state) no other run
can see. What a run says reaches its worker through the run's folder alone, as it would from another machine.
"""

import faulthandler
import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from hidden_subnet import claims, record
from hidden_subnet.check import ConfigError
from hidden_subnet.execute import Display, Origin, execute
from hidden_subnet.experiment import require_devices
from hidden_subnet.ranks import cores
from hidden_subnet.settings import Config, Device
from hidden_subnet.signals import SIGNALS, stop_signals
from hidden_subnet.sweep import manifest
from hidden_subnet.sweep.forking import fork_server
from hidden_subnet.sweep.gpus import hold, visible_gpus
from hidden_subnet.sweep.job import Job
from hidden_subnet.sweep.manifest import Sweep
from hidden_subnet.sweep.slurm import allotted_cpus

NO_GPU, NO_CLAIM = "no gpu", "no claim"
NO_MEMORY = "OutOfMemoryError"
"""torch's, of a GPU."""
FORK_SERVER_DIED = 255
"""The exit code of its processes as multiprocessing tells it, though they live."""


@dataclass(frozen=True)
class Slots:
    count: int
    threads: int
    gpus: list[str] = field(default_factory=list)
    jobs_per_gpu: int = 1
    fewer: bool = False
    """Whether a run that finds no memory on its GPU lets fewer share it, and is tried again."""


def plan_slots(configs: list[Config], workers: int | None, jobs_per_gpu: int = 1, *, fewer: bool = False) -> Slots:
    """`jobs_per_gpu` slots a GPU; on a CPU as many as its cores allow with train.threads each, or one a core.

    A slot is as large as the largest of train.devices. Raises ConfigError where there are not so many.
    """
    here = min(cores(), allotted_cpus() or cores())
    gpus = gpus_for(configs)
    devices = max(c.train.devices for c in configs)
    if devices > 1:
        require_devices("cuda" if gpus else "cpu", devices)
        if jobs_per_gpu > 1:
            raise ConfigError(f"jobs_per_gpu={jobs_per_gpu}: a run with train.devices={devices} has its GPUs to itself")
    asked = max((c.train.threads or 0) for c in configs)
    count = workers or len(gpus) // devices * jobs_per_gpu or max(1, here // (devices * (asked or 1)))
    count = min(count, len(configs))
    return Slots(count, asked or max(1, here // (count * devices)), gpus, jobs_per_gpu, fewer)


def gpus_for(configs: list[Config]) -> list[str]:
    """Those that the runs may use; none where one of them is not to run on a GPU."""
    return visible_gpus() if all(c.train.device in (Device.auto, Device.cuda) for c in configs) else []


@dataclass
class Child:
    job: Job
    process: BaseProcess
    pid: int
    said: "Connection[Any, tuple[str, str]]"
    """Its last word: how the run ended, and why."""
    launch: str
    killed: bool = False
    """By the user's second Ctrl-C."""

    def has_ended(self) -> bool:
        """A process of a fork server that has died seems to have ended; its pipe tells, which closes with it."""
        if self.process.is_alive():
            return False
        return self.process.exitcode != FORK_SERVER_DIED or self.said.poll(0)

    @property
    def event(self) -> Any:
        """What to wait for."""
        return self.said if self.process.exitcode == FORK_SERVER_DIED else self.process.sentinel

    def stop(self) -> None:
        """Ask the run to save and stop; it does not mind being asked again."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self.killed = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        # Not process.kill(), which does nothing once the fork server is dead. While the pipe is open the process is.
        if not self.has_ended() and not self.said.poll(0):
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def start(job: Job, config: Config, slots: Slots, origin: Origin) -> Child:
    context = fork_server()
    said, say = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(config, slots, origin, say))
    process.start()
    say.close()  # so that the end of the process is the end of what it says
    assert process.pid is not None
    job.state, job.message = "running", ""
    return Child(job, process, process.pid, said, origin.launch)


def end(child: Child, sweep: Sweep) -> str:
    """Note how the run of a process that has ended did, and return it: a state, `busy`, or `no gpu`."""
    job, code = child.job, child.process.exitcode
    assert code is not None
    try:
        if not child.said.poll(0):  # killed, while a process of its own holds the other end
            raise EOFError
        state, message = child.said.recv()
    except (EOFError, OSError):  # died without a word
        state, message = _end_of(child, code)
        attempt = record.working(job.folder)
        if claims.owner_pid(attempt) == child.pid:
            with suppress(OSError):  # a full disk; others see that the process is dead
                claims.end(attempt, state, message)
    # A sweep of thousands must not hold file descriptors for each run that has ended.
    child.said.close()
    child.process.close()
    job.state = {"skipped": "done", "busy": "running", NO_GPU: "queued"}.get(state, state)
    job.message = "" if state in ("done", "skipped", "busy", NO_GPU) else message
    job.final = state in ("failed", "lost")
    if state == NO_CLAIM:
        manifest.note_failure(sweep, job.folder.name, message)
        job.state, job.final, state = "failed", True, "failed"
    return str(state)


def _end_of(child: Child, code: int) -> tuple[str, str]:
    """State and message for a run whose process died without a word."""
    if child.killed:
        return "interrupted", "killed by a second Ctrl-C, without saving"
    if code >= 0:  # its own, or the fork server's death, which hides how it died
        return "lost", f"the process of the run died (exit code {code})"
    memory = " (out of memory?)" if code == -signal.SIGKILL else ""
    return "lost", f"the process of the run died of {signal.Signals(-code).name}{memory}"


def make_room(child: Child, slots: Slots) -> Slots | None:
    """The slots with one run fewer on a GPU, where the run of `child` found no memory beside the others.

    It goes on where it was. None where it failed otherwise, or has its GPU to itself.
    """
    job = child.job
    if not (slots.fewer and slots.jobs_per_gpu > 1 and job.state == "failed" and job.message.startswith(NO_MEMORY)):
        return None
    message = f"no memory left beside {slots.jobs_per_gpu - 1} others on its GPU"
    claims.end(record.working(job.folder), "interrupted", message)
    job.state, job.message, job.final = "interrupted", message, False
    count = max(1, slots.count - len(slots.gpus))
    return replace(slots, count=count, jobs_per_gpu=slots.jobs_per_gpu - 1)


def _stop_with_parent() -> None:
    """Let the run save and stop when its worker is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait_for_it() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_it, daemon=True).start()


def _child(config: Config, slots: Slots, origin: Origin, say: "Connection[tuple[str, str], Any]") -> None:
    """The whole life of a run's process."""
    with stop_signals(insist=False) as stopped:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # what came meanwhile comes now
        # The terminal sends Ctrl-C to every process; the worker alone decides, and asks its children with TERM.
        os.setsid()
        _stop_with_parent()
        if slots.gpus:
            held = hold(slots.gpus, config.train.devices, slots.jobs_per_gpu)  # until this process ends
            if held is None:
                say.send((NO_GPU, ""))
                return
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
        torch.set_num_threads(slots.threads)
        try:
            outcome = execute(config, Display(_ignore, _ignore, _ignore, _log_to), origin, stopped)
            said = outcome.state, outcome.message
        except (ValueError, OSError) as error:  # before there was a claim, or on a disk that is full
            said = NO_CLAIM, " ".join(str(error).split())
        with suppress(BrokenPipeError):  # the worker is gone
            say.send(said)


def _log_to(attempt: Path) -> None:
    log = os.open(attempt / record.LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    faulthandler.enable()  # a crash in native code leaves its traceback there


def _ignore(*anything: object) -> None:
    pass
