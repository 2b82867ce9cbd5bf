"""GPUs shared by all sweeps on a machine: a run holds a kernel lock on its GPU until its process ends."""

import errno
import os
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import torch

from hidden_subnet.store.access import user
from hidden_subnet.store.posix import lock


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, named as CUDA_VISIBLE_DEVICES names them.

    By UUID if possible, since an index is ambiguous: two jobs that Slurm confines to one GPU each both call it 0.
    """
    count = torch.cuda.device_count()  # asks the driver without initialising CUDA in this process
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    uuids = _uuids() if count else {}
    if given:
        return [uuids.get(name, name) for name in given[:count]]
    return list(uuids.values()) if len(uuids) == count else [str(index) for index in range(count)]


def _uuids() -> dict[str, str]:
    """UUID of each GPU by its index; empty without nvidia-smi."""
    try:
        output = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    pairs = (line.split(",") for line in output.splitlines() if line.count(",") == 1)
    return {index.strip(): uuid.strip() for index, uuid in pairs}


def hold(gpus: list[str], count: int, jobs_per_gpu: int = 1, folder: Path | None = None) -> list[str] | None:
    """Lock a place on `count` of the GPUs until this process ends, and return them; None if too few are free.

    In that case no lock is kept: a process that held some while it waits for others could block another sweep, and
    that sweep this one.
    """
    held: list[tuple[str, int]] = []
    while len(held) < count:
        found = hold_one([gpu for gpu in gpus if gpu not in dict(held)], jobs_per_gpu, folder)
        if found is None:
            for _, descriptor in held:
                os.close(descriptor)
            return None
        held.append(found)
    return [gpu for gpu, _ in held]


def hold_one(gpus: list[str], jobs_per_gpu: int, folder: Path | None = None) -> tuple[str, int] | None:
    """Lock one of `jobs_per_gpu` places on one of the GPUs, the least used GPU first; None if all are taken.

    Returns the GPU and a file descriptor; closing it, or the end of this process, releases the lock. The lock files
    are in `folder`, by default one in the machine's temporary folder that all users' sweeps share.
    """
    for place in range(jobs_per_gpu):
        for gpu in gpus:
            path = (folder or _folder()) / f"{gpu.replace('/', '_')}.{place}"
            try:
                descriptor = _open(path)
            except OSError as error:  # also another user's file or link there, which must stop nobody
                print(
                    f"{path} is no lock that can be used ({error.strerror}): GPU {gpu} is used without", file=sys.stderr
                )
                return gpu, os.open(os.devnull, os.O_RDONLY)
            try:
                lock(descriptor, wait=False)
                return gpu, descriptor
            except BlockingIOError:
                os.close(descriptor)
            except OSError:  # a file system without locks: the GPU is used without one
                return gpu, descriptor
    return None


def holders(gpus: list[str], jobs_per_gpu: int, folder: Path | None = None) -> str:
    """Name the user and process that hold each place on the GPUs, as far as the kernel tells; "" if it does not.

    All holders are on this machine, since its locks are.
    """
    try:
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:  # not on Linux
        return ""
    pids = {words[5].rpartition(":")[2]: words[4] for words in locks if "FLOCK" in words and "->" not in words}
    found = []
    for path in [(folder or _folder()) / f"{gpu.replace('/', '_')}.{n}" for gpu in gpus for n in range(jobs_per_gpu)]:
        with suppress(OSError):
            if (pid := pids.get(str(path.lstat().st_ino))) and int(pid) > 0:  # others' are hidden from a container
                found.append(f"GPU {path.stem}: process {pid} of {_user_of(pid)}")
    return "; ".join(dict.fromkeys(found))


def _user_of(pid: str) -> str:
    try:
        return user(os.stat(f"/proc/{pid}").st_uid)
    except OSError:  # it has just ended, or /proc hides the processes of others
        return "another user"


def _folder() -> Path:
    return Path(tempfile.gettempdir()) / "hidden_subnet-gpus"


def _open(path: Path) -> int:
    """Open a lock file, which any user may have created: the kernel refuses O_CREAT on another user's file in /tmp.

    Raises OSError if the file or its folder is a link or something else, or is closed to this user.
    """
    with suppress(FileExistsError):
        path.parent.mkdir()
        path.parent.chmod(0o1777)  # this user's own, just made
    folder = os.open(path.parent, os.O_DIRECTORY | os.O_NOFOLLOW)
    safely = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            descriptor = os.open(path.name, safely | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder)
            os.fchmod(descriptor, 0o644)  # whatever the umask, or others could not open it
        except FileExistsError:
            descriptor = os.open(path.name, safely, dir_fd=folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return descriptor
