"""The fork server of a command, forked beforehand from a process that has loaded torch: loading it takes seconds."""

import fcntl
import json
import os
import runpy
import signal
import socket
import sys
from collections.abc import Sequence
from multiprocessing import util
from pathlib import Path

BEYOND = 1000
"""A number above those of all open files."""
INJECTED = Path(__file__).parents[1] / "faults" / "injected" / "sitecustomize.py"


def begin_as_python() -> None:
    """Do what Python does first with the variables of this process: sitecustomize.py of a fault."""
    if "HIDDEN_SUBNET_FAULT" in os.environ:
        runpy.run_path(str(INJECTED))


def keep_a_fork_server() -> None:
    """Fork a process that becomes the fork server that `multiprocessing` starts next in this one.

    It has nothing of what happens in this process meanwhile, as if it was started then. A second one is started in
    the usual way.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    kept = os.fork()
    if kept == 0:
        ours.close()
        _become_a_fork_server(theirs)
    theirs.close()
    spawn = util.spawnv_passfds

    def spawn_or_take(path: str, arguments: Sequence[str], files: Sequence[int]) -> int:
        if "multiprocessing.forkserver" not in str(arguments[-1]):  # bytes, where joblib starts a process
            return spawn(path, arguments, files)
        util.spawnv_passfds = spawn
        blocked = [int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
        asked = {"code": arguments[-1], "files": [*files], "blocked": blocked, "environment": {**os.environ}}
        socket.send_fds(ours, [json.dumps({**asked, "cwd": os.getcwd()}).encode()], [*files])
        ours.close()
        return kept

    util.spawnv_passfds = spawn_or_take


def _become_a_fork_server(channel: socket.socket) -> None:
    """Execute the code that arrives, as a Python that was started with these files, signals and variables."""
    message, files, _, _ = socket.recv_fds(channel, 1 << 20, 16)
    if not message:  # the command has ended, and never started a fork server
        os._exit(0)
    asked = json.loads(message)
    high = [fcntl.fcntl(each, fcntl.F_DUPFD, BEYOND) for each in files]
    os.closerange(3, BEYOND)
    for each, number in zip(high, asked["files"], strict=True):
        os.dup2(each, number)
        os.close(each)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["cwd"])
    sys.argv = ["-c"]
    begin_as_python()
    signal.pthread_sigmask(signal.SIG_SETMASK, asked["blocked"])
    exec(asked["code"], {"__name__": "__main__"})
    os._exit(0)
