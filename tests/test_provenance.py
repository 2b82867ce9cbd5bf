"""Where a run comes from is told in its folder: what was typed, which code, which versions, which machine."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hidden_subnet import provenance, record
from hidden_subnet.execute import Display, Origin, execute
from hidden_subnet.owners import this_process
from hidden_subnet.redact import is_secret, redacted

ROOT = Path(__file__).parents[1]
SILENT = Display(on_row=lambda row: None, on_step=lambda epoch, batch, batches: None, say=lambda text: None)


def test_a_run_tells_where_it_comes_from(compose: Any, tmp_path: Path) -> None:
    config = compose("data=synthetic", "method=random", "model.width=0.125", "tracker=none", f"out={tmp_path}")
    command = {"command": "launch.py -m seed=0", "directory": "/somewhere", "git": {"commit": "abc", "dirty": True}}
    outcome = execute(config, SILENT, Origin("a-sweep", "a-worker", "a-launch", command))
    assert outcome.state == "done"
    said = json.loads((outcome.folder / record.PROVENANCE).read_text())
    assert {key: said[key] for key in command} == command
    assert said["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert said["versions"]["torch"] == torch.__version__.split("+")[0]
    assert said["versions"]["python"] == sys.version.split()[0]
    assert (said["worker"], said["launch"], said["slurm"]) == ("a-worker", "a-launch", None)
    [attempt] = said["attempts"]
    assert (attempt["number"], attempt["state"], attempt["host"]) == (1, "done", said["host"])
    assert not (outcome.folder / record.ATTEMPTS).exists()
    assert len([path for path in outcome.folder.rglob("*") if path.is_file()]) <= 10


def test_slurm_names_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "15")
    assert this_process("w", 90).slurm == "15"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    owner = this_process("w", 90)
    assert (owner.slurm, owner.restart) == ("12_3", 2)


@pytest.fixture
def copy_of_the_package(tmp_path: Path) -> Path:
    """A repository that holds provenance.py and what it imports, as a clone does."""
    here = tmp_path / "clone"
    (here / "hidden_subnet").mkdir(parents=True)
    for name in ("__init__", "provenance", "redact", "owners", "record", "config", "identity"):
        (here / "hidden_subnet" / f"{name}.py").write_text((ROOT / "hidden_subnet" / f"{name}.py").read_text())
    (here / "hidden_subnet" / "__init__.py").write_text("")
    return here


def git_of(here: Path) -> Any:
    code = "import json; from hidden_subnet.provenance import of_command; print(json.dumps(of_command()))"
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=here, capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(here)},
    )  # fmt: skip
    return json.loads(said.stdout)["git"]


def test_the_commit_and_what_differs_from_it(copy_of_the_package: Path) -> None:
    here = copy_of_the_package
    assert git_of(here) is None
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=here, check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True).stdout.strip()
    assert git_of(here) == {"commit": commit, "dirty": False, "diff": ""}
    key = "0123456789abcdef" * 3
    (here / "hidden_subnet" / "identity.py").open("a").write(f"# changed\nAPI_KEY = '{key}'\n# and more\n")
    said = git_of(here)
    assert said["dirty"]
    assert said["diff"].rstrip().splitlines()[-3:] == [
        "+# changed", "[a line that looks like a secret is left out]", "+# and more",
    ]  # fmt: skip
    assert key not in said["diff"]


def test_a_repository_that_only_surrounds_the_installed_package_is_not_its_code(copy_of_the_package: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=copy_of_the_package.parent, check=True)
    assert git_of(copy_of_the_package) is None


def test_a_long_diff_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"rev-parse": "abc\n", "ls-files": "hidden_subnet/__init__.py\n", "diff": ("x" * 999 + "\n") * 300}
    monkeypatch.setattr(provenance, "_output", lambda root, command, *rest: answers[command])
    git = provenance.of_command()["git"]
    assert git["diff"] == ("x" * 999 + "\n") * 200 + "\n... 100000 more characters are cut"


def test_looking_for_secrets_in_long_lines_takes_no_time() -> None:
    """A minified file in the diff: with a start at each letter this would take hours."""
    assert redacted("x" * 1_000_000 + "\nshort") == "x" * 2000 + "\nshort"
    assert not is_secret("name", "x" * 1_000_000)
