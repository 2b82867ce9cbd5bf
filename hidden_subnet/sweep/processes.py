"""The processes of a worker: its slots, and one child process per run, forked from a server that has loaded torch.

A run therefore starts in tens of milliseconds, and no run is affected by what another does to its process (a crash, a
memory leak, random state). A worker learns how a run ended from its process; everything else, such as its progress,
it reads from the run's folder, as it would for a run on another machine.
"""

import faulthandler
import math
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

from hidden_subnet.config.convert import as_dict, restored
from hidden_subnet.config.own_parts import USED, require_own_parts
from hidden_subnet.config.settings import Config, Device
from hidden_subnet.errors import ConfigError
from hidden_subnet.signals import SIGNALS, stop_signals
from hidden_subnet.store import claims, files, folders, sweeps
from hidden_subnet.store.access import explained
from hidden_subnet.store.child_processes import cannot_start
from hidden_subnet.store.patience import is_unanswered
from hidden_subnet.store.sweeps import Sweep
from hidden_subnet.sweep.execute import LaunchInfo, OpenTrackers, RunObserver, execute, no_trackers
from hidden_subnet.sweep.fork_server import fork_server
from hidden_subnet.sweep.gpus import visible_gpus
from hidden_subnet.sweep.jobs import Job
from hidden_subnet.sweep.places import hold_in_turn, holders, visible_cores
from hidden_subnet.sweep.slurm import allotted_cpus
from hidden_subnet.training.devices import choose_device, cores, require_devices

NO_PLACE, NO_CLAIM, UNANSWERED = "no place", "no claim", "unanswered"
"""How a process ends that found no free GPU or core, that failed before it had a claim, or to which a file server
did not answer."""
NO_MEMORY = "OutOfMemoryError"
"""Name of torch's exception for a GPU without free memory."""
FORK_SERVER_DIED = 255
"""Exit code that multiprocessing reports for the children of a fork server that has died, even if they are alive."""


@dataclass(frozen=True)
class Slots:
    """How many runs a worker executes at a time, and with which resources."""

    count: int
    threads: int
    """CPU threads of each run."""
    gpus: list[str] = field(default_factory=list)
    """The GPUs, as CUDA_VISIBLE_DEVICES names them; empty if the runs use the CPU."""
    jobs_per_gpu: int = 1
    cores: list[str] = field(default_factory=list)
    """The cores that the runs share with other sweeps; empty where they use GPUs, and in a job of Slurm, which has
    cores of its own."""
    jobs_per_core: int = 1
    """Above 1 where more threads were asked for than there are cores."""
    patience: float = 0.0
    """Seconds that a run waits in the queue for its places."""
    fewer: bool = False
    """Whether jobs_per_gpu is reduced when a run finds no memory on its GPU; the run is then resumed."""

    def places_of(self, config: Config) -> tuple[list[str], int, int]:
        """Return the devices, how many of them the run needs, and how many runs share one."""
        if self.gpus:
            return self.gpus, config.train.devices, self.jobs_per_gpu
        return self.cores, min(len(self.cores), self.threads * config.train.devices), self.jobs_per_core


def plan_slots(
    configs: list[Config],
    workers: int | None,
    jobs_per_gpu: int = 1,
    *,
    fewer: bool = False,
    gpus: list[str] | None = None,
) -> Slots:
    """Plan `workers` slots; by default `jobs_per_gpu` per GPU, one on a Mac's, or on a CPU as many as its cores allow.

    A slot has the devices and threads that the most demanding run asks for (train.devices, train.threads); if no run
    asks for threads, the slots share the cores. `gpus`: the GPUs to use, by default gpus_for(configs). Raises
    ConfigError if there are fewer devices than a run asks for.
    """
    here = min(cores(), allotted_cpus() or cores())
    gpus = gpus_for(configs) if gpus is None else gpus
    devices = max(c.train.devices for c in configs)
    if devices > 1:
        require_devices("cuda" if gpus else "cpu", devices)
        if jobs_per_gpu > 1:
            raise ConfigError(
                f"jobs_per_gpu={jobs_per_gpu}: a run with train.devices={devices} has its GPUs to itself; type: "
                "hydra.launcher.jobs_per_gpu=1"
            )
    asked = max((c.train.threads or 0) for c in configs)
    on_mps = not gpus and _on_mps(configs)
    on_cores = 1 if on_mps else max(1, here // (devices * (asked or 1)))
    count = workers or len(gpus) // devices * jobs_per_gpu or on_cores
    count = min(count, len(configs))
    threads = asked or max(1, here // (count * devices))
    shared = [] if gpus or on_mps or allotted_cpus() is not None else visible_cores()
    each = math.ceil(count * threads * devices / len(shared)) if shared else 1
    return Slots(count, threads, gpus, jobs_per_gpu, shared, each, fewer=fewer)


def gpus_for(configs: list[Config]) -> list[str]:
    """The visible GPUs, or none if one of the runs is not to use a GPU."""
    return visible_gpus() if all(c.train.device in (Device.auto, Device.cuda) for c in configs) else []


def _on_mps(configs: list[Config]) -> bool:
    """Whether a run uses the GPU of a Mac."""
    devices = {config.train.device for config in configs} & {Device.auto, Device.mps}
    return any(choose_device(device) == "mps" for device in devices)


@dataclass
class Child:
    """The process of a run, as its worker sees it."""

    job: Job
    process: BaseProcess
    pid: int
    outcome: "Connection[Any, tuple[str, str]]"
    """Pipe to which the process sends, at its end, the state of the run and a message."""
    launch: str
    """Id of the launch in which it was started."""
    killed: bool = False
    """Whether the user's second Ctrl-C killed it."""

    def has_ended(self) -> bool:
        """Whether the process has ended. If the fork server has died, only the pipe shows it, which the end closes."""
        if self.process.is_alive():
            return False
        return self.process.exitcode != FORK_SERVER_DIED or self.outcome.poll(0)

    @property
    def event(self) -> Any:
        """Object for multiprocessing.connection.wait that is ready when the process has ended."""
        return self.outcome if self.process.exitcode == FORK_SERVER_DIED else self.process.sentinel

    def stop(self) -> None:
        """Ask the run to save and stop; may be repeated."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once, without saving."""
        self.killed = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        # Not process.kill(), which does nothing if the fork server is dead. While the pipe is open, the pid is valid.
        if not self.has_ended() and not self.outcome.poll(0):
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def start(
    job: Job, config: Config, slots: Slots, launch: LaunchInfo, open_trackers: OpenTrackers = no_trackers
) -> Child:
    """Start the process that executes the run. `open_trackers` is pickled: a function at a module's top level.

    Raises OSError where the machine has no process or file descriptor left.
    """
    context = fork_server()
    outcome, send = context.Pipe(duplex=False)
    # As plain values, since the classes of own parts can be unpickled only after their files are imported.
    start = as_dict(config), [*USED]
    process = context.Process(target=_child, args=(*start, slots, launch, open_trackers, send))
    try:
        process.start()
    except (OSError, EOFError) as error:  # EOFError: the fork server died of it
        raise cannot_start(error) from error
    send.close()  # else the pipe would stay open after the end of the process
    assert process.pid is not None
    job.state, job.message = "running", ""
    return Child(job, process, process.pid, outcome, launch.launch)


def end(child: Child, sweep: Sweep) -> str:
    """Note in the job how its process ended. Returns the state of the run, `busy`, NO_PLACE or UNANSWERED."""
    job, code = child.job, child.process.exitcode
    assert code is not None
    try:
        if not child.outcome.poll(0):  # killed, while one of its own children holds the other end open
            raise EOFError
        state, message = child.outcome.recv()
    except (EOFError, OSError):  # it ended without sending an outcome
        state, message = _death(child, code)
        with suppress(OSError):  # a full disk, or no answer from a file server; others can see that it is dead
            attempt = files.working(job.folder)
            if claims.holder_pid(attempt) == child.pid:
                claims.end(attempt, state, message)
    # A sweep of thousands of runs must not keep file descriptors for each run that has ended.
    child.outcome.close()
    child.process.close()
    job.state = {"skipped": "done", "busy": "running", NO_PLACE: "queued", UNANSWERED: "queued"}.get(state, state)
    job.message = "" if state in ("done", "skipped", "busy") else message
    job.final = state in ("failed", "lost")
    if state == NO_CLAIM:
        sweeps.record_failure(sweep, job.folder.name, message)
        job.state, job.final, state = "failed", True, "failed"
    return str(state)


def _death(child: Child, code: int) -> tuple[str, str]:
    """State and message for a run whose process ended without sending an outcome."""
    if child.killed:
        return "interrupted", "killed by a second Ctrl-C, without saving"
    if code >= 0:  # its own exit code, or FORK_SERVER_DIED, which hides it
        return "lost", f"the process of the run died (exit code {code})"
    memory = " (out of memory?)" if code == -signal.SIGKILL else ""
    return "lost", f"the process of the run died of {signal.Signals(-code).name}{memory}"


def make_room(child: Child, slots: Slots) -> Slots | None:
    """If the run of `child` found no memory beside others on its GPU, return slots with one run fewer per GPU.

    The run is then resumed. None if the run failed for another reason or had its GPU to itself.
    """
    job = child.job
    if not (slots.fewer and slots.jobs_per_gpu > 1 and job.state == "failed" and job.message.startswith(NO_MEMORY)):
        return None
    message = f"no memory left beside {slots.jobs_per_gpu - 1} others on its GPU"
    with suppress(OSError):  # then the run has failed, and is looked at again
        claims.end(files.working(job.folder), "interrupted", message)
    job.state, job.message, job.final = "interrupted", message, False
    count = max(1, slots.count - len(slots.gpus))
    return replace(slots, count=count, jobs_per_gpu=slots.jobs_per_gpu - 1)


def _stop_with_parent() -> None:
    """Make the run save and stop when its worker's process ends, for whatever reason."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait_for_parent() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_parent, daemon=True).start()


def _child(
    settings: dict[str, Any],
    use: list[str],
    slots: Slots,
    launch: LaunchInfo,
    open_trackers: OpenTrackers,
    send: "Connection[tuple[str, str], Any]",
) -> None:
    """Execute the run and send its outcome: everything that the process of a run does."""
    with stop_signals(insist=False) as stopped:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # deliver signals that came before the handlers were set
        # A terminal sends Ctrl-C to all its processes. Only the worker shall act on it, and ask its children with TERM.
        os.setsid()
        try:
            _stop_with_parent()
            config = restored(settings, use)
            require_own_parts(config)
            if slots.gpus or slots.cores:
                devices, count, places = slots.places_of(config)
                # Until this process ends.
                held = hold_in_turn(devices, count, places, seconds=slots.patience, stopped=stopped)
                if held is None:
                    send.send((NO_PLACE, holders(devices, places)))
                    return
                if slots.gpus:
                    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
            torch.set_num_threads(slots.threads)
            observer = RunObserver(_ignore, _ignore, _ignore, _redirect_output)
            outcome = execute(config, observer, launch, stopped, open_trackers=open_trackers)
            ended = outcome.state, outcome.message
        # Before it had a claim, or because the disk is full; RuntimeError: no thread can be started.
        except (ValueError, OSError, RuntimeError) as error:
            why = explained(error) if isinstance(error, OSError) else " ".join(str(error).split())
            ended = UNANSWERED if is_unanswered(error) else NO_CLAIM, why
        with suppress(BrokenPipeError):  # the worker has ended
            send.send(ended)


def _redirect_output(attempt: Path) -> None:
    """Append stdout and stderr of this process, and the traceback of a crash in native code, to the attempt's log."""
    log = folders.append(attempt / files.LOG)
    for stream in (1, 2):
        os.dup2(log, stream)
    faulthandler.enable()


def _ignore(*anything: object) -> None:
    pass
