"""docs/extending.md as a user follows it: its parts are put into a file, and its commands typed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.forked_launch import launch

import hidden_subnet as hs
from hidden_subnet.store import files

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "extending.md").read_text()
QUICK = ("train.epochs=2", "tracker=none")


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


def launched(cwd: Path, *words: str, code: int = 0) -> str:
    done = launch(cwd, *words)
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "Traceback" not in said
    return said


def commanded(cwd: Path, *words: str) -> str:
    command = [sys.executable, "-m", "hidden_subnet", *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


ENVIRONMENT = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}


@pytest.mark.slow
def test_the_parts_of_the_page_in_one_file(tmp_path: Path) -> None:
    (tmp_path / "my_parts.py").write_text("\n\n".join(blocks()))
    sweep = ["-m", "use=my_parts.py", "model=my_net,fc", "data=my_images", "method=my_iterand,edge_popup", *QUICK]
    sweep += ["method.every=2", "model.hidden=30"]
    said = launched(tmp_path, *sweep)
    assert "4 done in" in said
    assert "4 of them finished before" in launched(tmp_path, *sweep)
    runs = {path.name: path for path in (tmp_path / "runs").iterdir() if (path / files.RESULT).exists()}
    run = next(path for name, path in runs.items() if "my_net-my_iterand" in name)
    assert "4 done" in commanded(tmp_path, "status")
    assert "my_iterand" in commanded(tmp_path, "results")
    assert "equal to the last bit" in launched(tmp_path, "use=my_parts.py", f"evaluate={run.name}")
    refused = launched(tmp_path, f"evaluate={run.name}", code=1)
    assert "your own parts, which must be named again" in refused
    commanded(tmp_path, "export", run.name, "--use", "my_parts.py", "--to", "weights.pt")
    (tmp_path / "my_parts.py").write_text("\n\n".join(blocks()).replace("nn.ReLU()", "nn.Tanh()"))
    assert "my_parts.py changed since 4 of these runs were finished" in launched(tmp_path, *sweep, "plan=true")
    changed = launched(tmp_path, "use=my_parts.py", f"evaluate={run.name}", code=1)
    assert "has changed since the run was started" in changed


@pytest.mark.slow
def test_the_command_of_the_example(tmp_path: Path) -> None:
    [line] = re.findall(r"^python launch\.py (.*use=examples/own_parts.*)$", TEXT, flags=re.MULTILINE)
    words = shlex.split(line.replace("use=examples", f"use={ROOT}/examples"))
    assert "2 done in" in launched(tmp_path, *words, *QUICK)


@pytest.mark.slow
def test_a_run_of_two_processes_has_own_parts_in_both(tmp_path: Path) -> None:
    (tmp_path / "my_parts.py").write_text("\n\n".join(blocks()))
    words = ["use=my_parts.py", "model=my_net", "data=my_images", "train.devices=2", "train.device=cpu", *QUICK]
    assert "done: " in launched(tmp_path, *words)


def test_the_public_names_are_there() -> None:
    assert dir(hs) == sorted(hs.__all__)
    named = set(re.findall(r"\bhs\.(\w+)|hidden_subnet\.(\w+)[(\"]", "\n".join(blocks()))) | {("ImageData", "")}
    for names in named:
        name = "".join(names)
        assert name in hs.__all__
        assert vars(sys.modules["hidden_subnet"]).get(name) or hs.__getattr__(name)
