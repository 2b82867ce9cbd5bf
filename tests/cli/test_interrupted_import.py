"""Ctrl-C while modules are being imported: at most one line; amid matplotlib, results.csv is there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.forked_launch import LAUNCH

ROOT = Path(__file__).parents[2]
SMALL = ["data=digits", "model=fc", "model.width=0.1", "train.epochs=1", "tracker=none"]
# As scipy and matplotlib do, which look for a name in a module that was not loaded to its end.
HOOK = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "matplotlib.figure":
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(1000): pass
            except KeyboardInterrupt:
                raise AttributeError("partially initialized module 'scipy.stats'")
        return None

if os.environ.get("INTERRUPT"):
    sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.slow
def test_results_are_written_before(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "INTERRUPT": "1"}

    def typed(*command: str) -> "subprocess.CompletedProcess[str]":
        program = [sys.executable, *command]
        return subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    sweep = typed(str(LAUNCH), "-m", "seed=0,1", *SMALL)
    assert sweep.returncode == 130, sweep.stderr
    assert sweep.stderr == "interrupted; the same command continues from what is saved\n"
    table = tmp_path / "runs" / "results.csv"
    assert len(table.read_text().splitlines()) == 3
    table.unlink()
    results = typed("-m", "hidden_subnet", "results", "runs")
    assert (results.returncode, results.stderr) == (130, "")
    assert len(table.read_text().splitlines()) == 3
    environment.pop("INTERRUPT")
    again = typed(str(LAUNCH), "-m", "seed=0,1", *SMALL)
    assert again.returncode == 0, again.stderr
    assert "2 of them finished before" in again.stdout
    assert list((tmp_path / "runs" / "figures").rglob("*.png"))


AMID = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy.linalg":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize("command", ["launch", "launch -m", "use", "controls"])
def test_it_is_heeded_though_torch_would_go_on_without_the_numpy_that_it_loads(command: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(AMID)
    (tmp_path / "own.py").write_text("import torch\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    typed = {
        "launch": [str(LAUNCH), *SMALL],
        "launch -m": [str(LAUNCH), "-m", "seed=0,1", *SMALL],
        "use": [str(LAUNCH), "use=own.py", *SMALL],
        "controls": ["-m", "hidden_subnet", "controls", "a-run"],
    }[command]
    done = subprocess.run(
        [sys.executable, *typed], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr in ("", "interrupted; the same command continues from what is saved\n")
    assert not (tmp_path / "runs").exists()


ENDS = """
import sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "hydra":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize("command", [[str(LAUNCH)], ["-m", "hidden_subnet", "launch"]])
def test_nothing_is_said_before_hydra_is_there(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "sitecustomize.py").write_text(ENDS)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, *command, "seed=1"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


AMID_A_TREE = """
import os, signal, sys
from hydra.core.config_store import ConfigStore
from omegaconf import ListConfig

append, store = ListConfig.append, ConfigStore.store
def interrupted(self, item):
    ListConfig.append = append
    self.__dict__["_content"].append(None)  # as it is while the item is made
    self._get_flag("readonly")
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000): pass

def store_interrupted(self, *arguments, group=None, **named):
    if group == "sweep":
        ListConfig.append = interrupted
    return store(self, *arguments, group=group, **named)

ConfigStore.store = store_interrupted
sys.path.insert(0, {root!r})
sys.argv[0] = {launch!r}
from hidden_subnet.cli.launch import main
main()
"""


def test_it_is_heeded_though_a_tree_of_omegaconf_is_made_in_part(tmp_path: Path) -> None:
    code = AMID_A_TREE.format(root=str(ROOT), launch=str(LAUNCH))
    done = subprocess.run(
        [sys.executable, "-c", code, "-m", "seed=0,1"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    told = "interrupted; the same command continues from what is saved\n"
    assert (done.returncode, done.stdout, done.stderr) == (130, "", told)
