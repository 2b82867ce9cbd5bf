"""A finished run is loaded on Windows, and everything else is refused in a line.

There is no Windows here: what Python lacks there is taken from it, once the packages are imported that know Windows.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
WINDOWS = """
import multiprocessing.resource_tracker, os, signal, socket, sys
import hydra, numpy, omegaconf, sklearn.datasets, torch, torch.distributed, torch.utils.data, torchvision.transforms.v2
import torch._dynamo, torch.fx, matplotlib, rich.console
sys.platform = "win32"
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "pthread_sigmask", "sigwaitinfo"):
    delattr(signal, name)
for name in ("fork", "geteuid", "getuid", "sched_getaffinity", "setsid", "statvfs"):
    delattr(os, name)
for name in ("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_PATH"):
    delattr(os, name)
os.O_BINARY, os.supports_dir_fd = 0, set()
del socket.AF_UNIX
"""
LINE = "hidden_subnet: Windows is not supported: "


def on_windows(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", WINDOWS + code], cwd=ROOT, capture_output=True, text=True)


def test_load_works_on_windows(undisturbed: Callable[[str], Path]) -> None:
    run = str(undisturbed("edge_popup"))
    code = f"import hidden_subnet as h; print(h.load({run!r})(h.test_images({run!r})[0]).shape[1])"
    said = on_windows(code)
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip() == "10"
    assert said.stderr.count(LINE) == 1
    assert "WSL" in said.stderr


@pytest.mark.parametrize("program", ["launch.py", "hidden_subnet/__main__.py"])
def test_commands_are_refused_in_a_line_on_windows(program: str) -> None:
    said = on_windows(f"import runpy; sys.argv = ['x', 'status']; runpy.run_path({program!r}, run_name='__main__')")
    assert said.returncode == 1
    assert said.stdout == ""
    assert said.stderr.startswith(LINE)
    assert len(said.stderr.splitlines()) == 1
