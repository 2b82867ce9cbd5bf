"""Claims: which process executes a run. A claim is the run's next attempt folder, attempts/<n>/.

The folder is prepared under another name and then renamed, so exactly one process gets it, and it is complete from
the start. Each attempt writes only to its own folder, and the first attempt that links its result.json into the run's
folder has done the run. A process that was suspended, lost its claim and wakes up again can therefore damage nothing.
Attempt numbers are never reused. Only two operations are relied on, which a file system shared by many machines
supports: rename and link fail if the target exists. No file locks are used.
"""

import json
import os
import re
import secrets
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from hidden_subnet.config.program import PROGRAM
from hidden_subnet.store import files, folders
from hidden_subnet.store.files import ATTEMPTS, PROVENANCE, RESULT
from hidden_subnet.store.liveness import (
    BEATS,
    Holder,
    LivenessProbe,
    beat,
    holder_from,
    is_here,
    is_late,
    remove_mark,
)
from hidden_subnet.store.patience import is_passing

CLAIM, ENDED, STOP = "claim.json", "ended.json", "stop.json"
ENDS = ("failed", "lost", "interrupted", "stopped")
"""The states that ended.json may say."""
HIDDEN = re.compile(r"\.[0-9a-f]{16}")
"""Names of attempts that are being prepared or removed."""


class BusyError(RuntimeError):
    """Another process has the claim on this run, or has had it since the caller looked."""


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands, read from its files."""

    state: str
    """queued, running, done, failed, lost, interrupted or stopped (on purpose, before its last epoch)."""
    attempt: int = 0
    """Number of the newest attempt; 0 before the first, and when the run is done."""
    message: str = ""
    holder: Holder | None = None
    ended_at: float | None = None
    """When the newest attempt recorded its end, in seconds by the file system's clock; None if it recorded none."""
    late: bool = False
    """Whether the holder has missed heartbeats, so that it may be dead."""
    unreadable: bool = False
    """Whether this user may not read it (then it is `failed`), so that another may be executing it."""


def run_status(folder: Path, probe: LivenessProbe) -> RunStatus:
    """Read the state of the run in `folder`; unreadable files make it failed or lost, with a message.

    Raises OSError only while a file server does not answer (patience.is_passing): then nothing is known of the run.
    """
    try:
        return _run_status(folder, probe)
    except OSError:
        probe.note_unanswered(folder)
        raise


def _run_status(folder: Path, probe: LivenessProbe) -> RunStatus:
    try:
        if folders.is_file(folder / RESULT):
            return RunStatus("done")
        numbers = files.attempts(folder)
    except folders.UnsafeError as error:
        return RunStatus("failed", message=str(error))
    except OSError as error:
        if is_passing(error):
            raise
        return RunStatus("failed", message=f"{folder} cannot be read ({error.strerror})", unreadable=True)
    if not numbers:
        where = folder / ATTEMPTS
        if os.path.isdir(where) and not os.access(where, os.R_OK | os.X_OK):
            return RunStatus("failed", message=f"{where} cannot be read (permission denied)", unreadable=True)
        return RunStatus("queued")
    attempt = folder / ATTEMPTS / str(numbers[-1])
    try:
        holder, silence = holder_of(attempt), probe.silence(attempt / CLAIM)
    except PermissionError as error:
        message = f"{attempt / CLAIM} cannot be read ({error.strerror})"
        return RunStatus("failed", numbers[-1], message, unreadable=True)
    except (OSError, ValueError, TypeError) as error:
        if is_passing(error):
            raise
        if files.attempts(folder) != numbers:  # the attempt was done or released since we looked
            return _run_status(folder, probe)
        return RunStatus("lost", numbers[-1], f"{attempt / CLAIM} cannot be read")
    try:
        ended = folders.read_json(attempt / ENDED)
        if ended["state"] not in ENDS:
            raise ValueError("the state is not one in which an attempt ends")
        at = folders.status(attempt / ENDED).st_mtime
        return RunStatus(ended["state"], numbers[-1], str(ended["message"])[: files.MESSAGE], holder, at)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError) as error:
        if is_passing(error):
            raise
        return RunStatus("lost", numbers[-1], f"{attempt / ENDED} cannot be read", holder)
    late = is_late(holder, silence)
    if why := probe.reason_dead(holder, silence):
        return RunStatus("lost", numbers[-1], why, holder, late=late)
    return RunStatus("running", numbers[-1], "", holder, late=late)


def holder_of(attempt: Path) -> Holder:
    """The process that made the claim of an attempt. Raises OSError, ValueError or TypeError if it is unreadable."""
    return holder_from(folders.read_json(attempt / CLAIM))


def launch_of(folder: Path) -> str:
    """Id of the launch that did the run in `folder`; "" for a single run, or if it is not recorded.

    Raises OSError while a file server does not answer.
    """
    try:
        number = files.committed(folder)
        if number is not None:
            return holder_of(folder / ATTEMPTS / str(number)).launch
        return str(folders.read_json(folder / PROVENANCE).get("launch", ""))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        if is_passing(error):
            raise
        return ""


def holder_pid(attempt: Path) -> int | None:
    """The process id of the attempt's holder, if it runs on this machine; else None."""
    try:
        holder = holder_of(attempt)
    except (OSError, ValueError, TypeError):
        return None
    return holder.pid if is_here(holder) else None


def acquire(
    folder: Path, me: Holder, probe: LivenessProbe, *, fresh: bool = False, after: int | None = None
) -> "Attempt":
    """Claim the run: make its next attempt, which resumes from the newest one, or starts from nothing with `fresh`.

    `after` is the number of the newest attempt that the caller knows of (0: none). Raises BusyError if another
    process holds the run, or if there is a newer attempt than `after`, whose end the caller did not know.
    """
    now = run_status(folder, probe)
    if now.state == "running":
        assert now.holder is not None
        raise BusyError(
            f"{folder.name} is being executed by {now.holder}, since {now.holder.at}; wait for it ({PROGRAM} "
            f"logs {folder} -f), or have it save and stop: {now.holder.how_to_stop()}"
        )
    if after not in (None, now.attempt):
        raise BusyError(f"{folder.name} was executed by {now.holder} in the meantime and is {now.state}")
    # The number that run_status saw: if another process has claimed the run since, the rename below fails.
    last = max([0, *files.attempts(folder)]) if now.state == "done" else now.attempt
    number = 1 + max([last, *(entry["number"] for entry in history(folder))])
    new = folder / ATTEMPTS / _hidden_name()
    try:
        for made in (folder / ATTEMPTS, new, new / "checkpoints"):
            folders.make_folder(made)
        if not fresh:
            _inherit(folder / ATTEMPTS / str(last) if last else folder, new)
        folders.create(new / CLAIM, json.dumps(asdict(me)).encode())
        folders.sync_folder(new)
        folders.rename(new, folder / ATTEMPTS / str(number))  # fails if another process made it, as it is not empty
        folders.sync_folder(folder / ATTEMPTS)
    except FileNotFoundError:  # the run was done in the meantime and attempts/ removed
        _discard(new)
        raise BusyError(f"{folder.name} was taken by another process just now") from None
    except OSError:
        _discard(new)
        if number in files.attempts(folder):
            raise BusyError(f"{folder.name} was taken by another process just now") from None
        raise
    # Deaths are counted (sweep/jobs.py), and the dead holder could not record its own.
    if last and now.state == "lost" and now.ended_at is None:
        end(folder / ATTEMPTS / str(last), "lost", now.message)
        if now.holder is not None:
            remove_mark(now.holder)
    for earlier in files.attempts(folder):
        # Only the large files, which this attempt has now. The earlier holder may be alive and still commit the rest.
        for name in (files.RESUME, f"{files.RESUME}.old"):
            if earlier < number:
                folders.remove(folder / ATTEMPTS / str(earlier) / "checkpoints" / name)
    return Attempt(folder, number, me)


def is_stopped(folder: Path) -> bool:
    """Whether the newest attempt at the run was stopped on purpose. Raises OSError while a file server is silent."""
    try:
        numbers = files.attempts(folder)
        if not numbers or folders.is_file(folder / RESULT):
            return False
        return bool(folders.read_json(folder / ATTEMPTS / str(numbers[-1]) / ENDED)["state"] == "stopped")
    except (OSError, ValueError, TypeError, KeyError) as error:
        if is_passing(error):
            raise
        return False


def ask_to_stop(folder: Path, reason: str) -> None:
    """Ask the process that executes the run to save and stop; it is marked `stopped` then, with the reason."""
    numbers = files.attempts(folder)
    with suppress(FileNotFoundError):  # it was done in the meantime
        files.write_json(folder / ATTEMPTS / str(numbers[-1] if numbers else 0) / STOP, {"reason": reason})


def _hidden_name() -> str:
    return f".{secrets.token_hex(8)}"


def _inherit(source: Path, target: Path) -> None:
    """Link the checkpoints and copy metrics and log. A link is safe, since checkpoints are replaced, never modified."""
    # The resume checkpoint first: if the earlier holder is alive and still writing, newer rows and best checkpoints
    # than it describes do no harm, since they are computed again.
    names = [files.RESUME, f"{files.RESUME}.old", *files.kept_checkpoints(source)]
    for path in [source / "checkpoints" / name for name in names]:
        try:
            folders.link(path, target / "checkpoints" / path.name)
        except FileNotFoundError:
            continue
        except OSError:  # a file system without links
            folders.copy(path, target / "checkpoints" / path.name)
    folders.sync_folder(target / "checkpoints")
    for name in (files.METRICS, files.LOG, files.TRACKED):
        with suppress(FileNotFoundError):
            folders.copy(source / name, target / name)


def end(attempt: Path, state: str, message: str) -> None:
    """Release the claim of an attempt and record how it ended (state and message)."""
    with suppress(FileNotFoundError):  # another process has done the run and removed the attempt
        files.write_json(attempt / ENDED, {"state": state, "message": message})


class Attempt:
    """The claim of this process on a run. Inside `with attempt:` a thread sends heartbeats."""

    def __init__(self, folder: Path, number: int, me: Holder) -> None:
        self.run, self.number, self.me = folder, number, me
        self.folder = folder / ATTEMPTS / str(number)
        self.superseded = threading.Event()
        """Set by the heartbeat thread when another process has claimed the run, or done it."""
        self._stop = threading.Event()

    def __enter__(self) -> "Attempt":
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        # Where the end could not be recorded, the mark lets others see that this process has died.
        with suppress(OSError):
            if not os.path.isdir(self.folder) or folders.is_file(self.folder / ENDED):
                remove_mark(self.me)

    def _beat(self) -> None:
        while not self._stop.wait(self.me.silent_seconds / BEATS):
            with suppress(Exception):  # whatever somebody put into the folder, and a file server that does not answer
                if self.is_superseded():
                    self.superseded.set()
                    return
            with suppress(OSError):
                beat(self.folder / CLAIM)

    def is_superseded(self) -> bool:
        """Whether another process has claimed the run since, or has done it. Raises OSError."""
        numbers = files.attempts(self.run)
        if self.number not in numbers or numbers[-1] != self.number or folders.is_file(self.run / RESULT):
            return True
        with suppress(ValueError, TypeError):  # a damaged claim
            return holder_of(self.folder) != self.me  # the run was removed and begun again, with the same number
        return False

    def reason_to_stop(self) -> str:
        """Return the reason for which somebody has asked this run to stop (ask_to_stop); "" if nobody has."""
        try:
            return str(folders.read_json(self.folder / STOP)["reason"])[: files.MESSAGE]
        except (OSError, ValueError, TypeError, KeyError):
            return ""

    def commit(self) -> bool:
        """Make attempts/<n>/result.json the run's result; False if another attempt was first."""
        try:
            folders.link(self.folder / RESULT, self.run / RESULT)
        except FileNotFoundError:
            return False
        except OSError:
            if not folders.is_file(self.run / RESULT):  # a file system without links
                folders.copy(self.folder / RESULT, self.run / RESULT)
            elif files.committed(self.run) != self.number:  # equal: a network file system repeated our own request
                return False
        folders.sync_folder(self.run)
        finalize(self.run, self.number)
        return True

    def release(self) -> None:
        """Remove a claim under which nothing was done."""
        _discard(self.folder)
        remove_mark(self.me)
        with suppress(OSError):
            folders.remove_empty(self.run / ATTEMPTS)


def _discard(attempt: Path) -> None:
    """Remove the folder of an attempt as far as possible."""
    with suppress(OSError):
        folders.remove_tree(attempt)


def finalize(folder: Path, number: int | None = None) -> None:
    """Move the files of the attempt that did the run up into the run's folder, and remove the attempts.

    Completes the move if an earlier process died during it. Several processes may call it at the same time. An
    attempt that is newer than the committed one (force=true) is not touched.
    """
    number = number or files.committed(folder)
    if number is not None:
        attempt = folder / ATTEMPTS / str(number)
        _write_provenance(folder, attempt, number)
        folders.make_folder(folder / "checkpoints")
        kept = [*files.kept_checkpoints(attempt), *files.kept_masks(attempt)]
        names = [f"checkpoints/{name}" for name in kept]
        for name in [*names, files.LOG, files.METRICS, files.PROFILE, files.TRACKED]:
            with suppress(FileNotFoundError):
                folders.rename(attempt / name, folder / name)
        # The committed attempt last, since its number says which others may go. Each is renamed before it is deleted,
        # so that nobody sees half of one.
        for earlier in files.attempts(folder):
            with suppress(OSError):
                if earlier <= number:
                    folders.rename(folder / ATTEMPTS / str(earlier), folder / ATTEMPTS / _hidden_name())
    for place in (folder, folder / "checkpoints"):
        folders.remove_temporaries(place)
    with suppress(FileNotFoundError, PermissionError):
        names = folders.names(folder / ATTEMPTS)
        for name in filter(HIDDEN.fullmatch, names):  # also claims in preparation: their makers are dead or too late
            _discard(folder / ATTEMPTS / name)
        with suppress(OSError):  # it may not be empty
            folders.remove_empty(folder / ATTEMPTS)


def _write_provenance(folder: Path, attempt: Path, number: int) -> None:
    try:
        content = folders.read_json(attempt / PROVENANCE)
    except (OSError, ValueError):
        return
    known = {}
    for earlier in files.attempts(folder):
        if earlier <= number:
            with suppress(OSError, ValueError, TypeError):
                known[earlier] = _entry(folder / ATTEMPTS / str(earlier), earlier, done=earlier == number)
    # Read after the folders: another process may have recorded an attempt here and then removed its folder.
    known |= {entry["number"]: entry for entry in history(folder)}
    files.write_json(folder / PROVENANCE, content | {"attempts": [known[key] for key in sorted(known)]})


def _entry(attempt: Path, number: int, done: bool) -> dict[str, Any]:
    holder = holder_of(attempt)
    entry = {"host": holder.host, "pid": holder.pid, "slurm": holder.slurm, "restart": holder.restart, "at": holder.at}
    ended = {"state": "done", "message": ""}
    if not done:
        ended = {"state": "lost", "message": ""}
        with suppress(FileNotFoundError):
            ended = folders.read_json(attempt / ENDED)
    return {"number": number, **entry, **ended}


def history(folder: Path) -> list[dict[str, Any]]:
    """The attempts at a run that is done, from its provenance.json: number, host, pid, state, message of each.

    Raises OSError while a file server does not answer.
    """
    try:
        found = folders.read_json(folder / PROVENANCE).get("attempts", [])
        if not isinstance(found, list):
            return []
        return [each for each in found if isinstance(each, dict) and isinstance(each.get("number"), int)]
    except (OSError, ValueError, AttributeError) as error:
        if is_passing(error):
            raise
        return []
