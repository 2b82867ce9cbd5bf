"""The package as a wheel, installed in an environment of its own, and used where no checkout is."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.real_commands import ROOT, TIMEOUT
from helpers.slurm_cluster import Cluster, slurm
from helpers.slurm_runs import TINY, clean

__all__ = ["clean", "slurm"]

pytestmark = pytest.mark.slow
PARTS = ("hidden_subnet", "hydra_plugins", "conf", "sweeps", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of an environment that holds the wheel; torch and all others are those of the tests."""
    work = tmp_path_factory.mktemp("installed")
    (work / "source").mkdir()  # a build writes beside the code
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, work / "source" / name, symlinks=True)
        else:
            shutil.copy(ROOT / name, work / "source")
    python = work / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", python.parents[1]], check=True)
    place = "import sysconfig; print(sysconfig.get_path('purelib'))"
    there = Path(subprocess.run([python, "-c", place], capture_output=True, text=True, check=True).stdout.strip())
    (there / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    build = [*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(work), str(work / "source")]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = work.glob("*.whl")
    install = ["--python", str(python), "install", "--no-deps", "--no-index", "--ignore-installed", str(wheel)]
    subprocess.run([*pip, *install], check=True, capture_output=True)
    return python.parent


@pytest.fixture
def call(binaries: Path, tmp_path: Path) -> Call:
    """call("status"): `hidden-subnet status` in an empty folder; call("python", ...) is the environment's Python."""
    here = tmp_path / "empty"
    here.mkdir()

    def called(*words: str, cwd: Path = here, **variables: str) -> "subprocess.CompletedProcess[str]":
        program = [binaries / "python", *words[1:]] if words[0] == "python" else [binaries / "hidden-subnet", *words]
        given = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            program, cwd=cwd, env={**given, **variables}, capture_output=True, text=True, timeout=TIMEOUT
        )

    return called


def provenance(runs: Path) -> dict[str, Any]:
    """The provenance of one of the runs."""
    path = min(runs.glob("*/provenance.json"))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_first_command_in_an_empty_folder(call: Call, binaries: Path, tmp_path: Path) -> None:
    done = call("launch", "-m", "prune_rate=0.1,0.3,0.5")
    assert done.returncode == 0, done.stderr
    assert "3 done in" in done.stdout
    runs = tmp_path / "empty" / "runs"
    assert (runs / "results.csv").read_text().count("\n") == 4
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["runs"]
    assert "3 done, 0 running, 0 failed, 0 to go" in call("status").stdout
    said = provenance(runs)
    assert said["command"] == "hidden-subnet launch -m prune_rate=0.1,0.3,0.5"
    assert said["git"] is None
    assert Path(said["package"]).is_relative_to(binaries.parent)
    assert said["versions"]["hidden_subnet"] == "0.2.0"
    done = call("launch", f"evaluate={min(runs.glob('digits-*'))}")
    assert "equal to the last bit" in done.stdout


def test_the_commands_name_themselves(call: Call) -> None:
    for words in (["--version"], ["launch", "--version"], ["python", "-m", "hidden_subnet", "--version"]):
        assert call(*words).stdout == "hidden_subnet 0.2.0\n"
    said = call("launch", "--help").stdout
    assert "  hidden-subnet launch -m prune_rate=0.1,0.3,0.5 " in said
    assert "    prune_rates " in said
    assert max(map(len, said.splitlines())) <= 120
    assert call("launch", "prune_rat=0.9").stderr.endswith("did you mean: prune_rate=0.9\n")
    assert call("launch", "prune_rat=1").stderr.endswith("as in: prune_rate=0.5\n")  # which 1 is not allowed for
    assert call("launch", "status").stderr.endswith("type: hidden-subnet status\n")
    assert call("statu").stderr.endswith("did you mean: hidden-subnet status\n")
    assert call("seed=1").stderr.endswith("runs are started by launch; type: hidden-subnet launch seed=1\n")
    for words in (["--help"], ["launch", "--help"], ["launch", "--cfg", "job"], ["launch", "x=1"]):
        done = call(*words)
        assert "launch.py" not in done.stdout + done.stderr


def test_a_preset_of_the_users_own_in_a_repository_of_the_users_own(call: Call, tmp_path: Path) -> None:
    """Neither the modules that lie there nor its commit are taken for ours."""
    here = tmp_path / "mine"
    (here / "hidden_subnet").mkdir(parents=True)
    for name in ("hidden_subnet/__init__.py", "random.py", "dataclasses.py"):
        (here / name).write_text("raise SystemExit('not this one')\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=here, check=True)
    (here / "q.yaml").write_text(
        "common: {data: synthetic, model: fc, model.width: 0.1, train.epochs: 1, tracker: none}\n"
        "grids: [{prune_rate: [0.25, 0.75]}]\n"
    )
    done = call("launch", f"sweep={here / 'q.yaml'}", cwd=here, GIT_DIR=str(here / ".git"))
    assert done.returncode == 0, done.stderr
    assert len([*here.glob("runs/*/result.json")]) == 2
    said = provenance(here / "runs")
    assert (said["git"], said["command"]) == (None, f"hidden-subnet launch sweep={here / 'q.yaml'}")
    shutil.rmtree(here / "hidden_subnet")  # `python -m` would look there first
    assert "2 done" in call("python", "-m", "hidden_subnet", "status", cwd=here).stdout
    script = "import hidden_subnet as hs; print(len(hs.run_sweep('sweep=q.yaml')))"
    (here / "again.py").write_text(f"import sys; del sys.path[0]\n{script}\n")
    done = call("python", "again.py", cwd=here)
    assert done.stdout.splitlines()[-1:] == ["2"], done.stderr


def test_on_slurm_workers_execute_a_copy_of_the_package(call: Call, slurm: Cluster, tmp_path: Path) -> None:
    here = tmp_path / "empty"
    slurm_words = ["hydra/launcher=slurm", "hydra.launcher.workers=1"]
    done = call("launch", "-m", *slurm_words, *TINY, "seed=0,1", SLURM_CONF=slurm.environment["SLURM_CONF"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert len([*here.glob("runs/*/result.json")]) == 2
    [code] = (here / "runs").glob(".sweeps/*/code-*")
    assert (code / "hidden_subnet" / "conf" / "config.yaml").exists()
    said = provenance(here / "runs")
    assert (said["git"], said["slurm"] is None) == (None, False)
