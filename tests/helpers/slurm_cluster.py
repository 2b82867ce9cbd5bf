"""A real Slurm on this machine for tests: munged, slurmctld and three nodes, in a temporary folder, gone at the end.

Every daemon has a process namespace of its own, and every node a host name too. So a node is killed whole by one
SIGKILL, as when its power fails, nothing outlives pytest however that ends, and what runs on one node cannot see the
processes of another: to a worker the nodes are three machines with a shared file system.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

NODES = ("n1", "n2", "n3")
PROGRAMS = {
    "munge": ["munged"],
    "slurm-wlm": ["slurmctld", "slurmd", "sbatch", "squeue", "scontrol"],
    "util-linux": ["unshare", "setpriv"],
}
ACCOUNTING_PROGRAMS = {"slurmdbd": ["slurmdbd"], "mariadb-server": ["mariadbd", "mariadb-install-db"]}
TIMEOUT = 300  # generous: it only tells a hang
# The last word is the command; setpriv ends it with pytest, and unshare ends what it started.
SINGLE_PROCESS = [
    "setpriv",
    "--pdeathsig",
    "KILL",
    "unshare",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--uts",
]

SLURM_CONF = """\
ClusterName=hidden
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
# Slurm lets a requeued job wait for as long as a credential lives, 120 s by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core,CR_LLN
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=6
TCPTimeout=2
MessageTimeout=5
KillWait=20
MinJobAge=30
GresTypes=gpu
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9
"""
ACCOUNTING_CONF = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.socket
"""
SLURMDBD_CONF = """\
AuthInfo=socket={folder}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
"""


class Cluster:
    """Starts with `start`, ends with `stop`; nodes n1 to n3 have 8 CPUs and 2 counted (not real) GPUs each."""

    def __init__(self, folder: Path, accounting: bool) -> None:
        self.folder, self.accounting = folder, accounting
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))},
            "SLURM_CONF": str(folder / "slurm.conf"),
        }

    def start(self) -> None:
        host, ports = socket.gethostname(), _free_ports(5)
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=16000 Gres=gpu:2"
            for name, port in zip(NODES, ports[1:4], strict=True)
        )
        conf = SLURM_CONF.format(folder=self.folder, host=host, ports=ports, nodes=nodes)
        if self.accounting:
            conf += ACCOUNTING_CONF.format(folder=self.folder, port=ports[4])
        (self.folder / "slurm.conf").write_text(conf)
        # Slurm counts a device file for each GPU, and looks no further.
        (self.folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o600)
        (self.folder / "state").mkdir()
        self._start_munge()
        if self.accounting:
            self._start_accounting(host, ports[4])
        self._start("slurmctld", ["slurmctld", "-D", "-c"])
        self._wait_for(["scontrol", "ping"], "slurmctld")
        for name in NODES:
            self.start_node(name, wait=False)
        self._until(lambda: self.node_states() == dict.fromkeys(NODES, "idle"), "the nodes")

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            process.kill()
            process.wait()
        self.processes.clear()

    def start_node(self, name: str, wait: bool = True) -> None:
        """Let a node come up, for the first time or after `kill_node`."""
        (self.folder / name).mkdir(exist_ok=True)
        self._start(name, ["sh", "-c", f"hostname {name}; slurmd -D -N {name}; exit 1"])
        if wait:
            self._until(lambda: self.node_states()[name] == "idle", name)

    def kill_node(self, name: str) -> None:
        """Its slurmd, the jobs' step daemons and all processes of the jobs die at once, without a word."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """Output of one of Slurm's commands. Raises CalledProcessError."""
        return subprocess.run(
            command, env=self.environment, cwd=cwd, check=True, capture_output=True, text=True, timeout=TIMEOUT
        ).stdout.strip()

    def squeue(self) -> dict[str, str]:
        """State by job id, of array tasks as in 3_1; a job stays listed for half a minute after its end."""
        lines = self.run("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T").splitlines()
        return dict(line.split("|") for line in lines)

    def node_states(self) -> dict[str, str]:
        lines = self.run("sinfo", "-h", "-N", "-p", "all", "-o", "%n|%T").splitlines()
        return dict(line.split("|") for line in lines)

    def processes_on(self, name: str) -> dict[int, str]:
        """Command lines of all processes of a node by pid, as seen from here."""
        init = _children(self.processes[name].pid)
        namespace = os.readlink(f"/proc/{init[0]}/ns/pid")
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(entry / "ns" / "pid") == namespace:
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        return found

    def wait_until_empty(self) -> None:
        """Cancel what is queued, and wait until every node that lives is free."""
        self.run("scancel", "--user=root")
        alive = [name for name in NODES if name in self.processes]
        self._until(lambda: all(self.node_states()[name] == "idle" for name in alive), "the end of all jobs")

    def _start_munge(self) -> None:
        paths = {
            "--key-file": "munge.key",
            "--socket": "munge.socket",
            "--pid-file": "munge.pid",
            "--log-file": "munge.log",
            "--seed-file": "munge.seed",
        }
        options = [f"{option}={self.folder / name}" for option, name in paths.items()]
        self._start("munged", ["munged", "--foreground", "--force", *options])
        self._wait_for(["munge", "-n", "-S", str(self.folder / "munge.socket")], "munged")

    def _start_accounting(self, host: str, port: int) -> None:
        data, database = self.folder / "database", str(self.folder / "database.socket")
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=root"]
        install += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(install, check=True, capture_output=True, timeout=TIMEOUT)
        options = [f"--datadir={data}", f"--socket={database}", "--user=root", "--skip-networking"]
        self._start("mariadbd", ["mariadbd", "--no-defaults", f"--pid-file={self.folder / 'database.pid'}", *options])
        self._wait_for(["mariadb-admin", "--no-defaults", f"--socket={database}", "--user=root", "ping"], "mariadbd")
        conf = self.folder / "slurmdbd.conf"
        conf.touch(mode=0o600)
        conf.write_text(SLURMDBD_CONF.format(folder=self.folder, host=host, port=port))
        self._start("slurmdbd", ["slurmdbd", "-D"], {"MYSQL_UNIX_PORT": database})
        self._wait_for(["sacctmgr", "-n", "list", "cluster"], "slurmdbd")
        self.run("sacctmgr", "-i", "add", "cluster", "hidden")

    def _start(self, name: str, command: list[str], more: dict[str, str] | None = None) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*SINGLE_PROCESS, *command],
                env={**self.environment, **(more or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Out of reach of the terminal's Ctrl-C, which pytest alone is to answer.
                start_new_session=True,
            )

    def _wait_for(self, command: list[str], name: str) -> None:
        def answers() -> bool:
            return subprocess.run(command, env=self.environment, capture_output=True, timeout=TIMEOUT).returncode == 0

        self._until(answers, name)

    def _until(self, reached: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + TIMEOUT
        while not reached():
            if time.monotonic() > end:
                logs = {path.name: path.read_text(errors="replace")[-600:] for path in self.folder.glob("*.log")}
                raise TimeoutError(f"Slurm: waited in vain for {what}; {logs}")
            time.sleep(0.1)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def skip_without_slurm(accounting: bool) -> None:
    wanted = {**PROGRAMS, **(ACCOUNTING_PROGRAMS if accounting else {})}
    missing = [package for package, programs in wanted.items() if not all(map(shutil.which, programs))]
    if missing:
        pytest.skip(f"needs a real Slurm: apt-get install {' '.join(missing)}")
    if subprocess.run([*SINGLE_PROCESS, "true"], capture_output=True).returncode:
        pytest.skip("needs to be root, with the right to make namespaces (in a container: --privileged)")


@contextlib.contextmanager
def cluster(accounting: bool = False) -> Iterator[Cluster]:
    """A running Slurm; skips the test where that cannot be had."""
    skip_without_slurm(accounting)
    # Under /tmp and short, since the path of a socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    made = Cluster(folder, accounting)
    # TERM would end pytest without a word to its fixtures.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        signal.signal(signal.SIGTERM, before)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """Without accounting, as small clusters are: sacct answers nothing."""
    with cluster() as made:
        yield made


@pytest.fixture(scope="session")
def slurm_with_accounting() -> Iterator[Cluster]:
    with cluster(accounting=True) as made:
        yield made
