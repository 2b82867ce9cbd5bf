"""Who executes a run: a claim is the run's next attempt folder, born whole by one rename, so one process has it.

Each attempt writes where no other attempt writes, and the first to link its result.json into the run's folder has
done the run. So an owner that was stopped, passed over, and wakes up can spoil nothing; and numbers are never used
twice, so what it still holds is never another's. Only what a file system shared by many machines keeps is built
upon: rename and link fail where the name is taken. Locks are not.
"""

import json
import os
import secrets
import shutil
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from hidden_subnet import record
from hidden_subnet.owners import BEATS, Observer, Owner, this_machine
from hidden_subnet.record import ATTEMPTS, PROVENANCE, RESULT

CLAIM, ENDED = "claim.json", "ended.json"


class BusyError(RuntimeError):
    """Another process is executing this run."""


@dataclass(frozen=True)
class Standing:
    state: str
    """queued, running, done, failed, lost or interrupted."""
    attempt: int = 0
    """Number of the newest one; 0 before the first, and when the run is done."""
    message: str = ""
    owner: Owner | None = None
    ended_at: float | None = None
    """When the newest attempt said that it ended, by the file system's clock."""
    silent: float = 0.0
    """Seconds since the owner's last sign of life."""


def standing(folder: Path, observer: Observer) -> Standing:
    """Where the run of `folder` stands; whatever the state of its files, it never raises for them."""
    try:
        if (folder / RESULT).exists():
            return Standing("done")
        numbers = record.attempts(folder)
    except OSError as error:
        return Standing("failed", message=f"{folder} cannot be read ({error.strerror})")
    if not numbers:
        return Standing("queued")
    attempt = folder / ATTEMPTS / str(numbers[-1])
    try:
        owner, beat = owner_of(attempt), (attempt / CLAIM).stat().st_mtime
    except (OSError, ValueError, TypeError):
        return Standing("lost", numbers[-1], f"{attempt / CLAIM} cannot be read")
    try:
        ended = json.loads((attempt / ENDED).read_text())
        at = (attempt / ENDED).stat().st_mtime
        return Standing(str(ended["state"]), numbers[-1], str(ended["message"]), owner, at)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError):
        return Standing("lost", numbers[-1], f"{attempt / ENDED} cannot be read", owner)
    silent = max(0.0, observer.now() - beat)
    if why := observer.is_gone(owner, silent):
        return Standing("lost", numbers[-1], why, owner, silent=silent)
    return Standing("running", numbers[-1], "", owner, silent=silent)


def owner_of(attempt: Path) -> Owner:
    """Raises OSError, ValueError or TypeError where its claim cannot be read."""
    return Owner(**json.loads((attempt / CLAIM).read_text()))


def launch_of(folder: Path) -> str:
    """Id of the launch that did the run of `folder`; "" for a single run, and where nothing tells."""
    try:
        number = record.committed(folder)
        if number is not None:
            return owner_of(folder / ATTEMPTS / str(number)).launch
        return str(json.loads((folder / PROVENANCE).read_text()).get("launch", ""))
    except (OSError, ValueError, TypeError, AttributeError):
        return ""


def owner_pid(attempt: Path) -> int | None:
    """Of a claim of this machine; None where there is none."""
    try:
        owner = owner_of(attempt)
    except (OSError, ValueError, TypeError):
        return None
    return owner.pid if owner.machine == this_machine() else None


def take(folder: Path, me: Owner, observer: Observer, *, fresh: bool = False, after: int | None = None) -> "Attempt":
    """Claim the run: its next attempt, which goes on from the one before it, or begins anew (`fresh`).

    `after` is the newest attempt that the caller knows of (0: none). Raises BusyError if another process has it, or
    has had it since: how that attempt ended, the caller did not know when it judged the run to be free.
    """
    now = standing(folder, observer)
    if now.state == "running":
        raise BusyError(f"{folder.name} is being executed by {now.owner}")
    if after not in (None, now.attempt):
        raise BusyError(f"{folder.name} was executed by {now.owner} meanwhile, and is {now.state}")
    # As it was judged: a claim that another has made since is not passed over.
    last = max([0, *record.attempts(folder)]) if now.state == "done" else now.attempt
    number = 1 + max([last, *(entry["number"] for entry in history(folder))])
    new = folder / ATTEMPTS / f".{secrets.token_hex(8)}"
    try:
        (new / "checkpoints").mkdir(parents=True)
        if not fresh:
            _inherit(folder / ATTEMPTS / str(last) if last else folder, new)
        (new / CLAIM).write_text(json.dumps(asdict(me)))
        record.sync_folder(new)
        os.rename(new, folder / ATTEMPTS / str(number))  # fails where another made it: it holds a file
        record.sync_folder(folder / ATTEMPTS)
    except FileNotFoundError:  # it was done meanwhile, and attempts/ removed
        shutil.rmtree(new, ignore_errors=True)
        raise BusyError(f"{folder.name} was taken by another process just now") from None
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        if (folder / ATTEMPTS / str(number)).exists():
            raise BusyError(f"{folder.name} was taken by another process just now") from None
        raise error
    if last and now.state == "lost" and now.ended_at is None:  # deaths are counted, and the owner could not say it
        end(folder / ATTEMPTS / str(last), "lost", now.message)
    for earlier in record.attempts(folder):
        # The large ones, which this attempt has; the rest is small, and an owner given up too early may yet commit it.
        for name in (record.RESUME, f"{record.RESUME}.old"):
            if earlier < number:
                (folder / ATTEMPTS / str(earlier) / "checkpoints" / name).unlink(missing_ok=True)
    return Attempt(folder, number, me)


def _inherit(source: Path, target: Path) -> None:
    """Checkpoints are replaced, never written into, so a link is as good as a copy of them."""
    # First what going on needs: an owner given up too early may be writing, and only later rows and bests come again.
    names = [record.RESUME, f"{record.RESUME}.old", *record.kept_checkpoints(source)]
    for path in [source / "checkpoints" / name for name in names]:
        try:
            os.link(path, target / "checkpoints" / path.name)
        except OSError:  # a file system without links
            with suppress(FileNotFoundError):
                shutil.copyfile(path, target / "checkpoints" / path.name)
    record.sync_folder(target / "checkpoints")
    for name in (record.METRICS, record.LOG):
        with suppress(FileNotFoundError):
            record.write_atomically(target / name, (source / name).read_bytes())


def end(attempt: Path, state: str, message: str) -> None:
    """Give the claim of an attempt back and say why; where its folder is gone, another has done the run."""
    with suppress(FileNotFoundError):
        record.write_json(attempt / ENDED, {"state": state, "message": message})


class Attempt:
    """The claim of this process on a run. Within it (`with attempt:`) a thread gives signs of life."""

    def __init__(self, folder: Path, number: int, me: Owner) -> None:
        self.run, self.number, self.me = folder, number, me
        self.folder = folder / ATTEMPTS / str(number)
        self.passed_over = threading.Event()
        """Set when another has taken the run, or done it."""
        self._stop = threading.Event()

    def __enter__(self) -> "Attempt":
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()

    def _beat(self) -> None:
        while not self._stop.wait(self.me.silent_seconds / BEATS):
            with suppress(OSError):  # a file server that is away for a while
                if self.is_passed_over():
                    self.passed_over.set()
                    return
                os.utime(self.folder / CLAIM)

    def is_passed_over(self) -> bool:
        numbers = record.attempts(self.run)
        return self.number not in numbers or numbers[-1] != self.number or (self.run / RESULT).exists()

    def commit(self) -> bool:
        """Make attempts/<n>/result.json the run's; false if another attempt was first."""
        try:
            os.link(self.folder / RESULT, self.run / RESULT)
        except FileNotFoundError:
            return False
        except OSError:
            if not (self.run / RESULT).exists():  # a file system without links
                record.write_atomically(self.run / RESULT, (self.folder / RESULT).read_bytes())
            elif record.committed(self.run) != self.number:  # else a request that the network repeated
                return False
        record.sync_folder(self.run)
        settle(self.run, self.number)
        return True

    def drop(self) -> None:
        """Give back a claim under which nothing was done."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            (self.run / ATTEMPTS).rmdir()


def settle(folder: Path, number: int | None = None) -> None:
    """Move the files of the attempt that did the run up into its folder; where its owner died on the way, go on.

    Any number of processes may do it at once. A later attempt (force=true) is left alone.
    """
    number = number or record.committed(folder)
    if number is not None:
        attempt = folder / ATTEMPTS / str(number)
        _write_provenance(folder, attempt, number)
        (folder / "checkpoints").mkdir(exist_ok=True)
        names = [f"checkpoints/{name}" for name in record.kept_checkpoints(attempt)]
        for name in [*names, record.LOG, record.METRICS, record.PROFILE]:
            with suppress(FileNotFoundError):
                os.replace(attempt / name, folder / name)
        # The committed one last: it tells the others from a forced one's. Each at once: half of one would tell nobody.
        for earlier in record.attempts(folder):
            with suppress(OSError):
                if earlier <= number:
                    os.rename(folder / ATTEMPTS / str(earlier), folder / ATTEMPTS / f".{secrets.token_hex(8)}")
    with suppress(OSError):  # it may not be empty
        for path in (folder / ATTEMPTS).glob(".*"):  # claims in preparation too: their owners died, or are too late
            shutil.rmtree(path, ignore_errors=True)
        (folder / ATTEMPTS).rmdir()


def _write_provenance(folder: Path, attempt: Path, number: int) -> None:
    try:
        content = json.loads((attempt / PROVENANCE).read_text())
    except (OSError, ValueError):
        return
    known = {}
    for earlier in record.attempts(folder):
        if earlier <= number:
            with suppress(OSError, ValueError, TypeError):
                known[earlier] = _entry(folder / ATTEMPTS / str(earlier), earlier, done=earlier == number)
    # After the folders, which go once they are told here: another process may be doing the same.
    known |= {entry["number"]: entry for entry in history(folder)}
    record.write_json(folder / PROVENANCE, content | {"attempts": [known[key] for key in sorted(known)]})


def _entry(attempt: Path, number: int, done: bool) -> dict[str, Any]:
    owner = owner_of(attempt)
    said = {"host": owner.host, "pid": owner.pid, "slurm": owner.slurm, "restart": owner.restart, "at": owner.at}
    ended = {"state": "done", "message": ""}
    if not done:
        ended = {"state": "lost", "message": ""}
        with suppress(FileNotFoundError):
            ended = json.loads((attempt / ENDED).read_text())
    return {"number": number, **said, **ended}


def history(folder: Path) -> list[dict[str, Any]]:
    """The attempts at a run that is done, as its provenance.json tells them."""
    try:
        found = json.loads((folder / PROVENANCE).read_text()).get("attempts", [])
        if not isinstance(found, list):
            return []
        return [each for each in found if isinstance(each, dict) and isinstance(each.get("number"), int)]
    except (OSError, ValueError, AttributeError):
        return []
