"""Optuna's sweeper and joblib's launcher as a user starts them; the trial that is printed as the best is the best."""

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.real_commands import surroundings

from hidden_subnet.store import files
from hidden_subnet.store.read import dig, read_runs

pytestmark = pytest.mark.slow
pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
pytest.importorskip("hydra_plugins.hydra_joblib_launcher")

LAUNCH = Path(__file__).parents[2] / "launch.py"
SMALL = ["data=synthetic", "model.width=0.125", "train.epochs=2", "tracker=none"]
STUDY = ["-m", "hydra/sweeper=optuna", *SMALL]


def launch(cwd: Path, *arguments: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(LAUNCH), *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )


def validation(cwd: Path) -> dict[str, float]:
    """Validation accuracy of each finished run after the last epoch, by the run's name."""
    runs = {run.name: dig(run.result, "last.validation.top1") for run in read_runs(cwd / "runs")}
    return {name: value for name, value in runs.items() if value is not None}


def printed_best(said: str) -> tuple[float, str, str]:
    """The best value in %, the values with which it was reached, and the name of its run."""
    [found] = re.findall(r"best of .*: validation accuracy ([\d.]+) % after the last epoch, with (.*)\n  (\S+)", said)
    return float(found[0]), found[1], Path(found[2]).name


@pytest.mark.parametrize("launcher", ["local", "basic", "joblib"])
def test_a_study_ends_with_its_best(launcher: str, tmp_path: Path) -> None:
    said = launch(
        tmp_path, *STUDY, "prune_rate=interval(0.1,0.9)", f"hydra/launcher={launcher}",
        "hydra.sweeper.n_trials=5", "hydra.sweeper.sampler.seed=1",
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr
    found = validation(tmp_path)
    assert len(found) == 5
    assert len(set(found.values())) > 1  # or any would be the best
    best, values, run = printed_best(said.stdout)
    assert found[run] == max(found.values())
    assert best == round(100 * found[run], 2)
    # The values that Optuna itself has stored.
    results = yaml.safe_load((tmp_path / "runs" / "optimization_results.yaml").read_text())
    assert results["best_value"] == max(found.values())
    assert values == f"prune_rate={results['best_params']['prune_rate']}"
    assert [line.partition(":")[0] for line in said.stdout.splitlines() if line.startswith("trial ")] == [
        f"trial {number} of 5" for number in range(1, 6)
    ]
    last_table = said.stdout[said.stdout.rindex("density") :]
    assert len(re.findall(r" done\b", last_table)) == 5
    assert sorted(os.listdir(tmp_path)) == ["runs"]


def test_a_failed_run_is_reported_and_the_study_goes_on(tmp_path: Path) -> None:
    said = launch(
        tmp_path, *STUDY, "method=dense", "train.lr=choice(1e30,0.1)", "hydra/sweeper/sampler=random",
        "hydra.sweeper.sampler.seed=0", "hydra.sweeper.n_trials=6",
    )  # fmt: skip
    assert said.returncode == 1
    assert "FloatingPointError" in said.stdout
    states = {run.state for run in read_runs(tmp_path / "runs")}
    assert states == {"done", "failed"}
    assert re.search(r"best of this command's 6 trials, \d of which failed: ", said.stdout)
    assert printed_best(said.stdout)[1] == "train.lr=0.1"
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("launcher", ["local", "basic"])
def test_a_study_in_which_all_fail(launcher: str, tmp_path: Path) -> None:
    said = launch(
        tmp_path, *STUDY, "method=dense", "train.lr=choice(1e30,1e31)", f"hydra/launcher={launcher}",
        "hydra.sweeper.n_trials=2",
    )  # fmt: skip
    assert said.returncode == 1
    assert "2 trials, 2 of which failed: there is no best" in said.stdout
    assert "Traceback" not in said.stderr


def test_the_first_failure_ends_a_study_that_shall_stop(tmp_path: Path) -> None:
    said = launch(
        tmp_path, *STUDY, "method=dense", "train.lr=choice(1e30,1e31)", "on_error=stop", "hydra.sweeper.n_trials=8",
    )  # fmt: skip
    assert said.returncode == 1
    assert "trial 3 of 8" not in said.stdout
    assert "Traceback" not in said.stderr


def test_a_stored_study_goes_on(tmp_path: Path) -> None:
    stored = [f"hydra.sweeper.storage=sqlite:///{tmp_path}/study.db", "hydra.sweeper.study_name=mine"]
    for _ in range(2):
        said = launch(tmp_path, *STUDY, "prune_rate=interval(0.1,0.9)", "hydra.sweeper.n_trials=2", *stored)
        assert said.returncode == 0, said.stdout + said.stderr
    with sqlite3.connect(tmp_path / "study.db") as database:
        values = [value for (value,) in database.execute("select value from trial_values")]
    assert sorted(values) == sorted(validation(tmp_path).values())
    assert len(values) == 4
    assert "best of this command's 2 trials: " in said.stdout
    best = f"validation accuracy {100 * max(values):.2f} %, with prune_rate="
    assert f"best of all 4 trials of the study mine, 2 of them by this command: {best}" in said.stdout


def test_the_same_study_again_runs_nothing(tmp_path: Path) -> None:
    study = [*STUDY, "prune_rate=interval(0.1,0.9)", "hydra.sweeper.n_trials=2", "hydra.sweeper.sampler.seed=1"]
    first = launch(tmp_path, *study)
    stamps = {run.name: (run.folder / files.RESULT).stat().st_mtime_ns for run in read_runs(tmp_path / "runs")}
    again = launch(tmp_path, *study)
    assert (first.returncode, again.returncode) == (0, 0)
    assert "2 of them finished before" in again.stdout
    assert printed_best(first.stdout) == printed_best(again.stdout)
    assert {run.name: (run.folder / files.RESULT).stat().st_mtime_ns for run in read_runs(tmp_path / "runs")} == stamps


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["data.validation=0", "prune_rate=interval(0.1,0.9)"],
            ["data.validation=0: ", "; as in: data.validation=0.1"],
        ),
        (["data.validation=choice(0.1,0.0)"], ["data.validation=0", "data.validation=0.1"]),
        (["prune_rate=interval(0.1,1.9)"], ["prune_rate=1.9", "below 1"]),
        (["prune_rate=interval(0.1,0.9)", "train.optimizer=choice(sgd,sdg)"], ["train.optimizer", "sdg"]),
        ([], ["nothing to search", "; as in: 'prune_rate=interval(0.1,0.9)'"]),
        (["plan=true", "prune_rate=interval(0.1,0.9)"], ["plan=true: ", "; type: plan=false"]),
        (["sweep=prune_rates"], ["sweep=<name>", "hydra/sweeper=grid"]),
        (
            ["prune_rate=interval(0.1,0.9)", "hydra.sweeper.direction=up"],
            ["direction=up", "; type: hydra.sweeper.direction=maximize"],
        ),
        (
            ["prune_rate=interval(0.1,0.9)", "hydra.sweeper.n_trials=0"],
            ["n_trials=0: must be 1 or more; as in: hydra.sweeper.n_trials=20"],
        ),
        (
            ["prune_rate=interval(0.1,0.9)", "hydra/sweeper/sampler=tp"],
            ["sampler=tp", "did you mean: hydra/sweeper/sampler=tpe"],
        ),
        (
            ["prune_rate=interval(0.1,0.9)", "hydra.sweeper.storage=foo:bar"],
            ["hydra.sweeper.storage=foo:bar: ", "; as in: hydra.sweeper.storage=sqlite:///study.db"],
        ),
    ],
)
def test_wrong_studies_are_refused_in_one_line(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    said = launch(tmp_path, "-m", "hydra/sweeper=optuna", "tracker=none", *arguments)
    assert said.returncode == 1
    [line] = said.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("option", "package"),
    [
        ("hydra/sweeper=optuna", "hydra_optuna_sweeper"),
        ("hydra/launcher=joblib", "hydra_joblib_launcher"),
        ("hydra/launcher=ray", "hydra_ray_launcher"),
    ],
)
def test_a_package_that_is_missing_is_named(tmp_path: Path, option: str, package: str) -> None:
    # A path on which everything is installed but the plugin: its folder is no part of hydra_plugins then.
    code = f"""
import pkgutil, sys, importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == 'hydra_plugins.{package}' else find(name, *rest)
walk = pkgutil.walk_packages
def without(*arguments, **named):
    return (each for each in walk(*arguments, **named) if '{package}' not in each.name)
pkgutil.walk_packages = without
sys.path.insert(0, {str(LAUNCH.parent)!r})
sys.argv[0] = {str(LAUNCH)!r}
from hidden_subnet.cli.launch import main
main()
"""
    said = subprocess.run(
        [sys.executable, "-c", code, "-m", option, "prune_rate=0.1,0.5"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert said.returncode == 1
    [line] = said.stderr.splitlines()
    assert option in line
    assert f"pip install {package.replace('_', '-')}" in line


def test_joblib(tmp_path: Path) -> None:
    sweep = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *SMALL]
    said = launch(tmp_path, *sweep, "method=dense", "train.lr=0.1,0.05,1e30")
    assert said.returncode == 1
    assert sorted(run.state for run in read_runs(tmp_path / "runs")) == ["done", "done", "failed"]


LARGE = """
import joblib, numpy
joblib.Parallel(n_jobs=2)(joblib.delayed(numpy.sum)(numpy.zeros(1_000_000)) for _ in range(2))
"""


def test_joblib_hands_nothing_over_in_files(tmp_path: Path) -> None:
    """Its folder may be one that a group writes to, and a pickle that another user puts there would run code."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    fault = {"do": "EACCES", "event": "open", "path": f"^{folder}/joblib_memmapping_folder_[^ ]*/"}
    env = surroundings(fault, JOBLIB_TEMP_FOLDER=str(folder))
    sweep = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *SMALL]
    said = launch(tmp_path, *sweep, "seed=0,1", env=env)
    assert said.returncode == 0, said.stdout + said.stderr
    assert [run.state for run in read_runs(tmp_path / "runs")] == ["done", "done"]
    control = subprocess.run([sys.executable, "-c", LARGE], env=env, capture_output=True, text=True, timeout=300)
    assert "Permission denied" in control.stderr
