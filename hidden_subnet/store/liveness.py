"""Whether the process that executes a run is alive: from the kernel on this machine, from Slurm, or by heartbeat.

A holder is called dead if one of these says so, never because something could not be found out. Heartbeats are counted
by change and by the reader's own clock, since the clocks of hosts and file servers differ; docs/reliability.md has the
rules.
"""

import math
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import Any, TypeVar

from hidden_subnet.config.program import PROGRAM
from hidden_subnet.store import folders, slurm_queue
from hidden_subnet.store.machine import is_stopped, lives, process_start, this_machine

BEATS = 10
"""Heartbeats in `silent_seconds`, the time after which a holder without a heartbeat counts as dead."""
MISSED = 3
"""Heartbeats after which one is late: Slurm is asked, and a reader that sees the holder for the first time may act."""
LOOK_SECONDS = 2.0
"""Seconds between two looks of somebody who waits for a heartbeat."""
MAX_WAIT = 60.0
"""Seconds that somebody waits who looks once; a run with a larger claim.silent_seconds then counts as running."""
TEXT_LENGTH = 1000
"""Longest text in a claim; a host name has up to 253 characters, a worker its host's name and more."""
DAY = 86400.0
"""Seconds; a stamp that is older is believed by those who only show what they see."""
# States of a Slurm job in which its processes may still run, and those in which they cannot send heartbeats.
SLURM_ALIVE = {"RUNNING", "COMPLETING", "CONFIGURING", "RESIZING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"}
SLURM_SUSPENDED = {"SUSPENDED", "STOPPED"}

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Holder:
    """The process that holds a claim, as claim.json records it.

    The fields are those of 0.1.0, which takes a claim with any other for damaged, and its run for one that is free.
    """

    host: str
    machine: str
    """Boot id and process namespace, within which `pid` is unique, and a random id (see `is_here`)."""
    pid: int
    started: str
    """When the process started, by the kernel's clock; a later process with the same pid has another value."""
    slurm: str | None
    """Slurm job or array task ("12_3"); None outside of Slurm."""
    restart: int
    """How often Slurm had restarted that job."""
    worker: str
    silent_seconds: float
    """The setting claim.silent_seconds of the run."""
    at: str
    """When the claim was made, UTC."""
    launch: str = ""
    """Id of the sweep launch that the run belongs to; empty for a single run."""

    def __str__(self) -> str:
        return f"{self.host}, " + (f"Slurm {self.slurm}" if self.slurm else f"process {self.pid}")

    def how_to_stop(self) -> str:
        """Return the command that makes it save and stop."""
        if self.launch:
            return f"{PROGRAM} stop <its sweep> (status lists the sweeps)"
        return f"scancel {self.slurm}" if self.slurm else f"kill {self.pid}, on {self.host}"


def holder_from(content: Any) -> Holder:
    """Read a holder from the content of its file; fields of later versions are ignored. Raises ValueError, TypeError.

    Other users write these files, so each value is checked: a holder that is silent for ever would keep its run.
    """
    if not isinstance(content, dict):
        raise ValueError("it is no holder of a claim")
    names = {field.name for field in fields(Holder)}
    holder = Holder(**{name: value for name, value in content.items() if name in names})
    texts = (holder.host, holder.machine, holder.started, holder.worker, holder.at, holder.launch, holder.slurm or "")
    if not all(isinstance(text, str) and len(text) <= TEXT_LENGTH for text in texts) or not isinstance(
        holder.restart, int
    ):
        raise ValueError("a value has the wrong type or length")
    if not (isinstance(holder.pid, int) and 0 < holder.pid < 2**31):
        raise ValueError("pid is not that of a process")
    if not (isinstance(holder.silent_seconds, int | float) and 0 < holder.silent_seconds <= DAY):
        raise ValueError("silent_seconds is not in (0, 86400]")
    return holder


@dataclass(frozen=True)
class Observation:
    """A heartbeat as one reader has seen it; workers give it to the processes that they start on their machine."""

    stamp: tuple[int, int]
    """The time and size by which two heartbeats differ."""
    since: float
    """When the reader first saw it, in seconds of time.monotonic()."""
    moved: bool = False
    """Whether the reader has seen it change."""


@dataclass(frozen=True)
class Silence:
    """How long a holder has sent no heartbeat, in seconds."""

    watched: float
    """By the reader's own clock; the holder may have been silent for longer before the reader looked."""
    stamped: float = 0.0
    """By the file's time: only a hint, since other clocks may have made it. Negative: it lies in the future."""
    moved: bool = False
    """Whether the reader has seen the holder's heartbeat before."""


class LivenessProbe:
    """Decides whether holders are alive. Make a new one for each look: it asks Slurm and the clock only once."""

    def __init__(
        self,
        out: Path,
        slurm_states: Callable[[], dict[str, str] | None] = slurm_queue.states,
        *,
        eager: bool = False,
        glance: bool = False,
        seen: dict[Path, Observation] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`slurm_states` returns the state of each job by id, or None if Slurm does not answer.

        It is called at most once, and only for a holder under Slurm that has missed three heartbeats, so that a
        hundred workers do not all ask at once; with `eager`, for any holder under Slurm. `seen` is the memory of the
        reader, which all its probes share and add to. `glance`: for readers who only show what they see.
        """
        self._out, self._ask, self._eager, self._glance = out, slurm_states, eager, glance
        self._asked = False
        self._states: dict[str, str] | None = None
        self._now = monotonic
        self._ahead: float | None = None
        self.seen = {} if seen is None else seen
        self.in_doubt = 0.0
        """Seconds for which this reader has to watch until it can tell whether all holders it has seen are alive."""

    def again(self) -> "LivenessProbe":
        """Make a probe for the next look of the same reader."""
        return LivenessProbe(
            self._out, self._ask, eager=self._eager, glance=self._glance, seen=self.seen, monotonic=self._now
        )

    def note_renamed(self, old: Path, new: Path) -> None:
        """Keep what the reader has seen of the files in a folder that it has renamed."""
        for path in [path for path in self.seen if path.is_relative_to(old)]:
            self.seen[new / path.relative_to(old)] = self.seen.pop(path)

    def note_unanswered(self, folder: Path) -> None:
        """Note that a file server did not answer when asked about `folder`: the silence before does not count."""
        for path in [path for path in self.seen if path.is_relative_to(folder)]:
            self.seen[path] = replace(self.seen[path], since=math.inf)

    def silence(self, file: Path) -> Silence:
        """How long the heartbeat of `file` has been missing. Raises OSError."""
        begun = self._now()  # before the look, so that a pause of this process does not count as silence
        stamp = heartbeat(file)
        known = self.seen.get(file)
        if known is not None and (known.since == math.inf or self._now() - begun > LOOK_SECONDS):
            # While the file server did not answer, the holder could not send heartbeats either: count from now on.
            known = self.seen[file] = replace(known, since=self._now())
        if known is None or known.stamp != stamp:
            known = self.seen[file] = Observation(stamp, self._now(), moved=known is not None)
        if self._ahead is None:
            self._ahead = clock(self._out) - time.time()
        stamped = time.time() + self._ahead - stamp[0] / 1e9
        return Silence(max(0.0, begun - known.since), stamped, known.moved)

    def reason_dead(self, holder: Holder, silence: Silence) -> str:
        """Why the holder cannot be executing the run any more; "" if it can, or if that cannot be told yet."""
        if is_here(holder):
            alive = lives(holder.pid, holder.started)
            if alive is False:
                return f"the process of the run died ({holder})"
            if alive and not is_stopped(holder.pid):
                return ""  # its heartbeat may be late because the machine or the file server was suspended
        if holder.slurm is not None:
            if holder.slurm == slurm_task():
                if holder.restart < slurm_restart():
                    return f"Slurm has restarted {holder}"
            elif self._eager or is_late(holder, silence):
                known = self.slurm_states()
                state = None if known is None else known.get(holder.slurm, "")
                if state in SLURM_SUSPENDED:
                    return ""
                if state == "":  # the job may belong to another cluster, so a heartbeat counts more
                    late = is_late(holder, silence) and self._has_watched(holder, silence)
                    return f"{holder} is not in Slurm's queue" if late else ""
                if state is not None and state not in SLURM_ALIVE:
                    return f"{holder} is {state.lower()}"
        if self._is_silent(holder, silence):
            return f"{holder} has sent no heartbeat for {max(silence.watched, silence.stamped):.0f} s"
        return ""

    def slurm_states(self) -> dict[str, str] | None:
        """State of each job by id, or None if Slurm does not answer; asks at most once."""
        if not self._asked:
            self._states, self._asked = self._ask(), True
        return self._states

    def _is_silent(self, holder: Holder, silence: Silence) -> bool:
        if silence.watched >= holder.silent_seconds:
            return True
        if silence.moved or -missed(holder) <= silence.stamped <= holder.silent_seconds:
            return False
        # The file's time says that the holder is dead, or is one that no clock can have made by now. A living holder
        # would be seen to send heartbeats.
        return self._has_watched(holder, silence)

    def _has_watched(self, holder: Holder, silence: Silence) -> bool:
        """Whether this reader has watched for so long that it would have seen a heartbeat; if not, it is in doubt."""
        if silence.watched >= missed(holder) or (self._glance and silence.stamped > DAY):
            return True
        self.in_doubt = max(self.in_doubt, missed(holder) - silence.watched)
        return False


def settle(
    look: Callable[[LivenessProbe], Answer], probe: LivenessProbe, stopped: Callable[[], bool] = lambda: False
) -> Answer:
    """Call `look` with a probe until that is not in doubt any more, and return its answer: for those who look once.

    stopped: whether to give up at once.
    """
    answer = look(probe)
    end = time.monotonic() + MAX_WAIT
    if probe.in_doubt:
        seconds = math.ceil(min(probe.in_doubt, MAX_WAIT))
        print(f"waiting up to {seconds} s for heartbeats, which are late by the files' times", file=sys.stderr)
    while probe.in_doubt and time.monotonic() < end and not stopped():
        time.sleep(min(LOOK_SECONDS, probe.in_doubt))
        probe = probe.again()
        answer = look(probe)
    return answer


def missed(holder: Holder) -> float:
    """Seconds after which the holder's heartbeat is late."""
    return MISSED * holder.silent_seconds / BEATS


def is_late(holder: Holder, silence: Silence) -> bool:
    """Whether the holder has missed its last heartbeats, as far as the reader can tell."""
    seconds = silence.watched if silence.moved else max(silence.watched, abs(silence.stamped))
    return seconds > missed(holder)


def beat(file: Path) -> None:
    """Send a heartbeat: change the time of `file`, and the size of the file beside it, where times are whole seconds.

    Raises OSError.
    """
    with suppress(OSError):  # on a full disk the time alone tells
        beats = folders.append(beats_of(file))
        try:
            os.write(beats, b".")
        finally:
            os.close(beats)
    folders.touch(file)


def heartbeat(file: Path) -> tuple[int, int]:
    """The time of `file` in nanoseconds and the number of its heartbeats (0 of 0.1.0). Raises OSError."""
    # Of any kind: what another user puts in the place of the beats does not make the holder dead.
    with folders.inside(file) as (folder, name):
        try:
            beats = os.stat(beats_of(Path(name)), dir_fd=folder, follow_symlinks=False).st_size
        except FileNotFoundError:
            beats = 0
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime_ns, beats


def beats_of(file: Path) -> Path:
    """The file whose size counts the heartbeats of `file`."""
    return file.with_suffix(".beats")


def clock(out: Path) -> float:
    """The time of the file system that holds `out`, stamped as heartbeats are."""
    try:
        with TemporaryFile(dir=out) as file:
            os.utime(file.fileno())
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # read-only or missing
        return time.time()


def this_process(worker: str, silent_seconds: float, launch: str = "") -> Holder:
    """Describe this process as the holder of a claim, and leave the mark that lets others find it here (`is_here`)."""
    me = Holder(
        host=this_host(),
        machine=f"{this_machine()} {secrets.token_hex(8)}",
        pid=os.getpid(),
        started=process_start(os.getpid()),
        slurm=slurm_task(),
        restart=slurm_restart(),
        worker=worker,
        silent_seconds=silent_seconds,
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        launch=launch,
    )
    if (mark := _mark(me)) is not None:
        _remove_old_marks(mark.parent)
        with suppress(OSError):  # then it is judged by its heartbeat
            os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return me


def this_host() -> str:
    """Slurm's name of the node under Slurm, else the machine's host name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def is_here(holder: Holder) -> bool:
    """Whether the holder's process is one of this machine, so that the kernel can be asked about it.

    Clones of a virtual machine share boot id, namespaces and perhaps the host name, so the holder has left a mark: a
    file named after its random id in this machine's memory. Claims of 0.1.0 have no id; there the host name decides.
    """
    if holder.host not in (this_host(), socket.gethostname()):
        return False
    mark = _mark(holder)
    return holder.machine == this_machine() if mark is None else os.path.lexists(mark)


def remove_mark(holder: Holder) -> None:
    """Remove the mark of a holder that has ended."""
    if (mark := _mark(holder)) is not None:
        with suppress(OSError):  # removed by another reader, or of another user
            os.unlink(mark)


def _mark(holder: Holder) -> Path | None:
    """The mark of a holder with a random id and our boot id and namespace."""
    found = re.fullmatch(re.escape(this_machine()) + " ([0-9a-f]{16})", holder.machine)
    folder = Path("/dev/shm" if os.path.isdir("/dev/shm") else gettempdir())
    return None if found is None else folder / f"hidden_subnet-{holder.pid}-{found[1]}"


def _remove_old_marks(folder: Path) -> None:
    """Remove the marks of processes that were killed and whose runs nobody has taken over for a day."""
    with suppress(OSError):
        for name in os.listdir(folder):
            found = re.fullmatch("hidden_subnet-([0-9]{1,9})-[0-9a-f]{16}", name)
            if not found:
                continue
            with suppress(OSError):  # another user's, or removed in the meantime
                path = os.path.join(folder, name)
                # The age first: to ask for the process takes ten times as long, at the start of each run.
                if time.time() - os.lstat(path).st_mtime > DAY and lives(int(found[1]), "") is False:
                    os.unlink(path)


def slurm_task() -> str | None:
    """The job that this process runs in, as squeue's %i names it: "12", or "12_3" in an array."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def slurm_restart() -> int:
    """How often Slurm had restarted the job that this process runs in."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))
