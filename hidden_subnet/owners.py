"""Whether the process that executes a run lives: by the kernel on this machine, by Slurm, or by its heartbeat."""

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

BEATS = 10
"""Signs of life in the time after which silence means death."""
# Slurm's states in which the processes of a job may still run.
SLURM_ALIVE = {"RUNNING", "COMPLETING", "CONFIGURING", "RESIZING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"}


@dataclass(frozen=True)
class Owner:
    host: str
    machine: str
    """Boot and process namespace, in which `pid` means something."""
    pid: int
    started: str
    """By the kernel's clock: a later process with this pid has another."""
    slurm: str | None
    """Job or array task, "12_3"."""
    restart: int
    """How often Slurm has started the job again."""
    worker: str
    silent_seconds: float
    at: str
    launch: str = ""
    """Id of the launch of the sweep on whose behalf it is; empty for a single run."""

    def __str__(self) -> str:
        return f"{self.host}, " + (f"Slurm {self.slurm}" if self.slurm else f"process {self.pid}")


class Observer:
    """Tells whether owners live: by their process on this machine, by Slurm, or by their heartbeat."""

    def __init__(
        self, out: Path, slurm_states: Callable[[], dict[str, str] | None] = lambda: None, *, eager: bool = False
    ) -> None:
        """`slurm_states` maps jobs to their states, None: unknown. It is asked once at most, and only for an owner
        under Slurm that has missed three beats, since a hundred workers would ask; or for any such owner (`eager`).
        """
        self._ask, self._asked, self._eager = slurm_states, False, eager
        self._states: dict[str, str] | None = None
        self._ahead = clock(out) - time.time()

    def now(self) -> float:
        """By the clock of the file system, whose times heartbeats are."""
        return time.time() + self._ahead

    def is_gone(self, owner: Owner, silent: float) -> str:
        """Why the owner cannot be executing the run any more; "" if it can."""
        if owner.machine == this_machine():
            if is_dead(owner.pid, owner.started):
                return f"the process of the run died ({owner})"
            if not is_stopped(owner.pid):
                return ""  # its heartbeat may be late: the machine slept, or the file server does
        if silent > owner.silent_seconds:
            return f"{owner} has given no sign of life for {silent:.0f} s"
        if owner.slurm is None:
            return ""
        if owner.slurm == slurm_task():
            return f"{owner} was started again" if owner.restart < slurm_restart() else ""
        late = silent > owner.silent_seconds * 3 / BEATS
        if not (late or self._eager):
            return ""
        if not self._asked:
            self._states, self._asked = self._ask(), True
        if self._states is None:
            return ""
        state = self._states.get(owner.slurm)
        if state is None:  # it may be another cluster's; its heart tells
            return f"{owner} is not in the queue" if late else ""
        return "" if state in SLURM_ALIVE else f"{owner} is {state.lower()}"


def clock(out: Path) -> float:
    """The time of the file system that holds `out`: hosts' clocks differ, by more than a heartbeat."""
    try:
        with TemporaryFile(dir=out) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # read-only, or not there
        return time.time()


def this_process(worker: str, silent_seconds: float, launch: str = "") -> Owner:
    return Owner(
        host=this_host(),
        machine=this_machine(),
        pid=os.getpid(),
        started=process_start(os.getpid()),
        slurm=slurm_task(),
        restart=slurm_restart(),
        worker=worker,
        silent_seconds=silent_seconds,
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        launch=launch,
    )


def this_host() -> str:
    """As Slurm calls the node, where it runs the process; else the machine's name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def this_machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


def process_start(pid: int) -> str:
    """In ticks since boot; "" where there is no such process, or no /proc."""
    state, *rest = _stat(pid)
    return "" if state in "ZX" else rest[18]


def is_stopped(pid: int) -> bool:
    return _stat(pid)[0] in "Tt"


def _stat(pid: int) -> list[str]:
    """From the third field of /proc/<pid>/stat on, where the state stands; X, dead, where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["X"]


def is_dead(pid: int, started: str) -> bool:
    if started:
        return process_start(pid) != started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def slurm_task() -> str | None:
    """The job that this process runs in, as squeue's %i names it: "12", or "12_3" in an array."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def slurm_restart() -> int:
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))
