"""launch.py as a command, in a process forked from one that has loaded Hydra: loading it is most of the time."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

LAUNCH = Path(__file__).parents[2] / "launch.py"
HEAVY = ("wandb", "tensorboard", "matplotlib", "scipy", "sklearn")
"""Packages that a command that runs nothing must not load; composing loads torch, as the files of the parts do."""

# What hidden_subnet.cli.launch imports and Hydra finds; nothing of it may be HEAVY, or a test of that could not fail.
SERVER = f"""
import atexit, gc, json, os, runpy, sys, threading, traceback
sys.path.insert(0, {str(LAUNCH.parent)!r})
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
import torch, hydra, hidden_subnet.cli.launch, hidden_subnet.config.convert
import hydra_plugins.hidden_subnet.compose, hydra_plugins.hidden_subnet.errors
import hydra_plugins.hidden_subnet.optuna_study, hydra_plugins.hidden_subnet.secrets
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
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
asked = json.loads(line)
os.chdir(asked["cwd"])
for stream, name in enumerate((os.devnull, asked["stdout"], asked["stderr"])):
    os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), stream)
os.environ.update(asked["environment"])
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
    """The packages of HEAVY that it had loaded when it ended."""


Launch = Callable[..., Finished]


@contextmanager
def launcher() -> Iterator[Launch]:
    """launch(cwd, *arguments, script=LAUNCH, **environment)."""
    with (
        TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server,
    ):
        paths = {name: Path(folder) / name for name in ("stdout", "stderr", "heavy")}

        def launch(cwd: Path, *arguments: str, script: Path = LAUNCH, **environment: str) -> Finished:
            assert server.stdin is not None
            assert server.stdout is not None
            for path in paths.values():
                path.unlink(missing_ok=True)
            asked = {"cwd": cwd, "script": script, "arguments": arguments, "environment": environment, **paths}
            server.stdin.write(json.dumps(asked, default=str) + "\n")
            server.stdin.flush()
            code = int(server.stdout.readline())
            finished = Finished(arguments, code, paths["stdout"].read_text(), paths["stderr"].read_text())
            finished.heavy = json.loads(paths["heavy"].read_text())
            return finished

        yield launch
        assert server.stdin is not None
        server.stdin.close()
