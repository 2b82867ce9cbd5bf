"""launch.py as a command, forked from a process that has loaded Hydra and torch: to load them is most of its time."""

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

LAUNCH = Path(__file__).parents[2] / "launch.py"
PROGRAM = LAUNCH.parent / "hidden_subnet" / "__main__.py"
"""The script of `python -m hidden_subnet`."""
TIMEOUT = 300
"""Seconds; generous, since it only detects a command that hangs."""
HEAVY = ("wandb", "tensorboard", "matplotlib", "scipy", "sklearn")
"""Packages that a command that runs nothing must not load; composing loads torch, as the files of the parts do."""

# What hidden_subnet.cli.launch imports and Hydra finds; nothing of it may be HEAVY, or a test of that could not fail.
SERVER = f"""
import atexit, gc, json, os, runpy, sys, threading, traceback
sys.path[:0] = [{str(LAUNCH.parent)!r}, {str(Path(__file__).parents[1])!r}]
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
import torch, torch._dynamo, hydra, hidden_subnet.cli.launch, hidden_subnet.config.convert
import hydra_plugins.hidden_subnet.compose, hydra_plugins.hidden_subnet.errors
import hydra_plugins.hidden_subnet.optuna_study, hydra_plugins.hidden_subnet.secrets
from helpers.forked_server import begin_as_python, keep_a_fork_server
del sys.path[1]
Plugins.instance()
OverridesParser.create().parse_overrides(["a=1,2", "+b.c=[1.5,'d',null,true]", "e=range(0,3)", "~f", "hydra/g=h"])
gc.set_threshold(50_000)
gc.freeze()  # else the end of each child goes through all objects, which copies their pages
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, loaded
while line := sys.stdin.readline():
    child = os.fork()
    if child == 0:
        break
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
asked = json.loads(line)
os.chdir(asked["cwd"])
for stream, name in enumerate((os.devnull, asked["stdout"], asked["stderr"])):
    os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND), stream)
os.environ.clear()
os.environ.update(asked["environment"])
keep_a_fork_server()
begin_as_python()
sys.argv = [asked["script"], *asked["arguments"]]
code = 1
try:
    runpy.run_path(asked["script"], run_name="__main__")
    code = 0
except SystemExit as end:
    code = end.code or 0
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
except BaseException:
    traceback.print_exc()
with open(asked["heavy"], "w") as file:
    json.dump([name for name in {HEAVY!r} if name in sys.modules], file)
# As Python ends, all but the destruction of every object, which takes as long as the command.
threading._shutdown()
atexit._run_exitfuncs()
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
"""


class Finished(subprocess.CompletedProcess[str]):
    heavy: list[str]
    """The packages of HEAVY that it had loaded when it ended; all of them if it did not come to say so."""


Launch = Callable[..., Finished]


@cache
def _server() -> "subprocess.Popen[str]":
    """The process from which commands are forked; it ends with this one."""
    # A command that a test has executed in this process leaves HYDRA_FULL_ERROR=1, which asks for tracebacks.
    environment = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    return subprocess.Popen(
        [sys.executable, "-c", SERVER], env={**environment, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@cache
def _paths() -> dict[str, Path]:
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    return {name: Path(folder) / name for name in ("stdout", "stderr", "heavy")}


def launch(
    cwd: Path, *arguments: str, script: Path = LAUNCH, env: dict[str, str] | None = None, **more: str
) -> Finished:
    """Run the script with these arguments. env: all variables, by default those of this process; more: beside them."""
    server, paths = _server(), _paths()
    assert server.stdin is not None
    assert server.stdout is not None
    for path in paths.values():
        path.unlink(missing_ok=True)
    asked = {"cwd": cwd, "script": script, "arguments": arguments, "environment": {**(env or os.environ), **more}}
    server.stdin.write(json.dumps({**asked, **paths}, default=str) + "\n")
    server.stdin.flush()
    hangs = threading.Timer(TIMEOUT, os.kill, (int(server.stdout.readline()), signal.SIGKILL))
    hangs.start()
    code = int(server.stdout.readline())
    hangs.cancel()
    finished = Finished(arguments, code, paths["stdout"].read_text(), paths["stderr"].read_text())
    finished.heavy = json.loads(paths["heavy"].read_text()) if paths["heavy"].exists() else [*HEAVY]
    return finished
