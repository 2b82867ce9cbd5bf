"""Hostile environments for a command: how to be in each of them, and what the command then does."""

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

INJECTED = Path(__file__).parents[1] / "faults" / "injected"
NAMES = ("random", "json", "string", "socket", "struct", "signal", "tempfile", "torch", "numpy", "hydra", "queue")
"""Modules that a working directory may hold and that no command may import from there."""
SHADOW = 'raise SystemExit("a module of the working directory was imported")\n'


@dataclass(frozen=True)
class Environment:
    """An environment, made in a folder of its own by `prepare`; `shell` runs in a namespace of mounts of its own."""

    env: dict[str, str | None] = field(default_factory=dict)
    """Variables; {folder} stands for the folder, None unsets one."""
    shell: str = ""
    """Shell commands before the command, as root in a mount namespace where there is a `mount` among them."""
    user: int | None = None
    """The user to become."""
    redirect: str = ""
    """The shell's redirections of the command."""
    prepare: Callable[[Path], None] = lambda folder: None
    fault: str = ""
    """The JSON of HIDDEN_SUBNET_FAULT (faults/injected/sitecustomize.py)."""
    sweep: str = ""
    """Words of the line with which the sweep is refused; it works if there are none."""
    images: str = ""
    """The same for the run on folders of images."""

    def command(self, folder: Path, command: list[str]) -> list[str]:
        """Return the command in this environment."""
        line = f"exec {self._become()}{shlex.join(command)} {self.redirect}"
        script = f"set -e; {self.shell.format(folder=shlex.quote(str(folder)))}\n{line}"
        return [*(["unshare", "--mount"] if "mount" in self.shell else []), "bash", "-c", script]

    def _become(self) -> str:
        return shlex.join(as_user(self.user)) + " " if self.user is not None else ""

    def variables(self, folder: Path) -> dict[str, str]:
        """Return the environment variables of the command."""
        env = dict(os.environ, OMP_NUM_THREADS="1")
        for name, value in self.env.items():
            if value is None:
                env.pop(name, None)
            else:
                env[name] = value.format(folder=folder)
        if self.fault:
            env |= {"HIDDEN_SUBNET_FAULT": self.fault, "PYTHONPATH": str(INJECTED)}
        return env


def as_user(user: int, group: int | None = None, read: str = "dac_read_search") -> list[str]:
    """Return the beginning of a command of another user, who may read all, also an interpreter in /root."""
    caps = [f"--{which}-caps=+{read}" for which in ("inh", "ambient")]
    return ["setpriv", f"--reuid={user}", f"--regid={group or user}", "--clear-groups", *caps]


def shadow_modules(folder: Path) -> None:
    """Write modules named like Python's and ours into the working directory."""
    for name in NAMES:
        (folder / f"{name}.py").write_text(SHADOW)


LONG = "{folder}/" + "/".join(["a-folder-with-a-long-name"] * 6)
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

ENVIRONMENTS = {
    "TMPDIR long": Environment({"TMPDIR": LONG}, f"mkdir -p {LONG}"),
    "TMPDIR missing": Environment({"TMPDIR": "{folder}/missing"}),
    "TMPDIR full": Environment(
        {"TMPDIR": "{folder}/tmp"},
        "mkdir -p {folder}/tmp; mount -t tmpfs -o size=4k t {folder}/tmp; head -c 8k /dev/zero >{folder}/tmp/x || :",
    ),
    "TMPDIR read-only": Environment(
        {"TMPDIR": "{folder}/tmp"}, "mkdir -p {folder}/tmp; mount -t tmpfs -o ro tmpfs {folder}/tmp"
    ),
    "no temporary folder": Environment(
        {"TMPDIR": None},
        "".join(f"mount --bind {path} {path}; mount -o remount,bind,ro {path}; " for path in ("/tmp", "/var/tmp"))
        + "mount --bind {folder} {folder}; mount -o remount,bind,rw {folder}; cd {folder}",
    ),
    "HOME unset, a user without a name": Environment(
        {"HOME": None, "USER": None, "LOGNAME": None}, "mount --bind /dev/null /etc/passwd"
    ),
    "HOME missing": Environment({"HOME": "/nowhere"}),
    "locale C": Environment(ASCII),
    "no /dev/shm, hence no semaphores": Environment(
        shell="mount -t tmpfs -o ro tmpfs /dev/shm", images="data.workers=1: reader processes cannot be started"
    ),
    "/dev/shm full": Environment(
        shell="mount -t tmpfs -o size=96k tmpfs /dev/shm",
        images="a reader process cannot hand over its images",
    ),
    "no locks": Environment(fault='{"do": "ENOLCK", "event": "fcntl.flock", "path": ""}'),
    "no links": Environment(fault='{"do": "EPERM", "event": "os.link", "path": ""}'),
    "no symbolic links": Environment(fault='{"do": "EPERM", "event": "os.symlink", "path": ""}'),
    "no rename over a file": Environment(
        fault='{"do": "EEXIST where it exists", "event": "os.rename", "path": "runs"}',
        sweep="does not replace a file by renaming",
        images="does not replace a file by renaming",
    ),
    "mtime in seconds": Environment(fault='{"do": "coarse mtime", "event": "-", "path": ""}'),
    "clocks that jump": Environment(fault='{"do": "jumping clock", "event": "-", "path": ""}'),
    "modules named like Python's": Environment(prepare=shadow_modules),
    "stdin closed": Environment(redirect="<&-"),
    "all standard streams closed": Environment(redirect="<&- >&- 2>&-"),
    "stdout on a full disk": Environment(redirect=">/dev/full"),
    "48 open files": Environment(shell="ulimit -n 48"),
    "few processes": Environment(
        shell="chmod -R a+rwX {folder}; ulimit -u 3",
        user=54321,
        env={"HOME": "{folder}"},
        sweep="no process can be started for a run",
        images="reader processes cannot be started",
    ),
    "files of 8 KB at most": Environment(shell="ulimit -f 16", sweep="File too large", images="File too large"),
    "1 GB of memory": Environment(
        shell="ulimit -v 1000000", sweep="not enough memory", images="not enough memory"
    ),
}  # fmt: skip
