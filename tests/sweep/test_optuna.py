"""Optuna's sweeper and joblib's launcher as a user starts them; the trial that is printed as the best is the best."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from helpers.real_commands import LAUNCH, launch, surroundings

from hidden_subnet.store import files, sweeps
from hidden_subnet.store.read import dig, read_runs
from hydra_plugins.hidden_subnet.optuna_pruner import make_pruner
from hydra_plugins.hidden_subnet.optuna_study import SAMPLERS

pytestmark = pytest.mark.slow
optuna = pytest.importorskip("optuna", minversion="4.9")
pytest.importorskip("hydra_plugins.hydra_joblib_launcher")

SMALL = ["data=synthetic", "model.width=0.125", "train.epochs=2", "tracker=none"]
STUDY = ["-m", "hydra/sweeper=optuna", *SMALL]


def validation(cwd: Path) -> dict[str, float]:
    """Validation accuracy of each finished run after the last epoch, by the run's name."""
    runs = {run.name: dig(run.result, "last.validation.top1") for run in read_runs(cwd / "runs")}
    return {name: value for name, value in runs.items() if value is not None}


def trials_in(cwd: Path) -> "list[optuna.trial.FrozenTrial]":
    """The trials of the only search in this folder, from its file."""
    [journal] = (cwd / "runs" / sweeps.SWEEPS).glob("*/study.journal")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    [name] = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage).trials


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
    assert {trial.user_attrs["run"]: trial.value for trial in trials_in(tmp_path)} == found
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
    assert re.search(r"best of 6 trials, \d of which failed: ", said.stdout)
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
    for n_trials in (2, 4):
        study = [*STUDY, "prune_rate=interval(0.1,0.9)", f"hydra.sweeper.n_trials={n_trials}", *stored]
        said = launch(tmp_path, *study)
        assert said.returncode == 0, said.stdout + said.stderr
    with sqlite3.connect(tmp_path / "study.db") as database:
        values = [value for (value,) in database.execute("select value from trial_values")]
    assert sorted(values) == sorted(validation(tmp_path).values())
    assert len(values) == 4
    best = f"validation accuracy {100 * max(values):.2f} % after the last epoch, with prune_rate="
    assert f"best of 4 trials, 2 of them by this command: {best}" in said.stdout
    turned = launch(tmp_path, *study, "hydra.sweeper.direction=minimize")
    assert turned.returncode == 1
    assert "type: hydra.sweeper.direction=maximize" in turned.stderr


def test_the_same_study_again_runs_nothing(tmp_path: Path) -> None:
    study = [*STUDY, "prune_rate=interval(0.1,0.9)", "hydra.sweeper.n_trials=2"]
    first = launch(tmp_path, *study)
    stamps = {run.name: (run.folder / files.RESULT).stat().st_mtime_ns for run in read_runs(tmp_path / "runs")}
    again = launch(tmp_path, *study)
    assert (first.returncode, again.returncode) == (0, 0)
    assert "trial" not in again.stdout.replace("2 trials", "")
    assert printed_best(first.stdout) == printed_best(again.stdout)
    assert {run.name: (run.folder / files.RESULT).stat().st_mtime_ns for run in read_runs(tmp_path / "runs")} == stamps
    # The runs of another search, with the same values, are known too.
    grid = ["hydra/sweeper/sampler=grid", "seed=0,1"]
    for _ in range(2):
        assert launch(tmp_path, *STUDY, *grid).returncode == 0
    assert len(validation(tmp_path)) == 4


def test_a_failed_run_is_tried_again_by_the_same_command(tmp_path: Path) -> None:
    search = [*STUDY, "method=dense", "train.lr=choice(1e30,0.1)", "hydra/sweeper/sampler=grid"]
    for _ in range(2):
        said = launch(tmp_path, *search)
        assert said.returncode == 1
        assert "best of 2 trials, 1 of which failed" in said.stdout
    states = [(float(trial.params["train.lr"]), trial.state.name) for trial in trials_in(tmp_path)]
    assert states == [(1e30, "FAIL"), (0.1, "COMPLETE"), (1e30, "FAIL")]


def test_a_search_that_is_killed_goes_on(tmp_path: Path) -> None:
    """No trial is lost, none is chosen twice, and no finished run is executed again."""
    search = [*STUDY, "prune_rate=interval(0.1,0.9)", "train.epochs=60", "hydra.sweeper.n_trials=6"]
    search += ["hydra.sweeper.sampler.seed=3"]
    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    kills = 0
    for wanted in (0, 2, 4):
        with subprocess.Popen(
            [sys.executable, str(LAUNCH), *search],
            cwd=tmp_path / "killed", start_new_session=True, stdout=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            runs = tmp_path / "killed" / "runs"
            while len([*runs.glob("*/attempts/*/metrics.jsonl")]) == 0 or len([*runs.glob("*/result.json")]) < wanted:
                assert process.poll() is None
                time.sleep(0.02)
            kills += 1
            os.killpg(process.pid, signal.SIGKILL)
    assert kills == 3
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/result.json")}
    assert 4 <= len(before) < 6
    assert "RUNNING" in {trial.state.name for trial in trials_in(tmp_path / "killed")}
    said = launch(tmp_path / "killed", *search)
    assert said.returncode == 0, said.stdout + said.stderr
    trials = trials_in(tmp_path / "killed")
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 6
    assert {trial.user_attrs["run"]: trial.value for trial in trials} == validation(tmp_path / "killed")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    whole = launch(tmp_path / "whole", *search)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert validation(tmp_path / "whole") == validation(tmp_path / "killed")


@pytest.mark.parametrize(("pruner", "launcher"), [("asha", "local"), ("hyperband", "local"), ("asha", "joblib")])
def test_a_pruned_trial_is_stopped_and_settled(pruner: str, launcher: str, tmp_path: Path) -> None:
    search = [*STUDY, "method=dense", "train.epochs=100", "train.lr=choice(0.03,1e-9,1e-8,1e-7)"]
    search += ["hydra/sweeper/sampler=grid", f"hydra.sweeper.pruner={pruner}", f"hydra/launcher={launcher}"]

    def launched(*words: str) -> tuple[str, dict[str, str], list[str]]:
        said = launch(tmp_path, *search, *words)
        assert said.returncode == 0, said.stdout + said.stderr
        runs = {run.name: run.state for run in read_runs(tmp_path / "runs")}
        return said.stdout, runs, [trial.state.name for trial in trials_in(tmp_path)]

    said, runs, states = launched()
    assert re.search(rf"stopped(?: and saved)?: pruned by {pruner} after epoch \d+", said)
    stopped = [name for name, state in runs.items() if state == "stopped"]
    assert stopped
    assert sorted(runs.values()) == ["done"] * (4 - len(stopped)) + ["stopped"] * len(stopped)
    assert states.count("PRUNED") == len(stopped)
    assert f"4 trials, {len(stopped)} of which were stopped" in said
    assert printed_best(said)[1] == "train.lr=0.03"
    complete = [trial for trial in trials_in(tmp_path) if trial.state.name == "COMPLETE"]
    assert all([*trial.intermediate_values] == [*range(1, 101)] for trial in complete)
    assert launched()[1:] == (runs, states)
    said, runs, states = launched("resume_stopped=true")
    assert [*runs.values()] == ["done"] * 4
    assert states[4:] == ["COMPLETE"] * len(stopped)
    assert "best of 4 trials" in said


@pytest.mark.parametrize("name", ["median", "asha", "hyperband"])
def test_pruners_stop_what_is_worse_and_nothing_at_first(name: str) -> None:
    study = optuna.create_study(direction="maximize", pruner=make_pruner(name, 81))
    stopped = {}
    for number in range(30):
        trial = study.ask()
        for epoch in range(1, 82):
            trial.report((number % 3) / 3 + epoch / 1000, epoch)
            if trial.should_prune():
                stopped[number] = epoch
                break
        study.tell(
            trial,
            state=optuna.trial.TrialState.PRUNED if number in stopped else None,
            values=None if number in stopped else 0.5,
        )
    assert stopped
    assert min(stopped.values()) >= 3
    assert {number % 3 for number in stopped} <= {0, 1}


@pytest.mark.parametrize("sampler", [*SAMPLERS])
def test_every_sampler_chooses_among_all_kinds_of_values(sampler: str, tmp_path: Path) -> None:
    space = ["method=choice(dense,edge_popup)", "train.lr=tag(log,interval(0.01,1))", "seed=range(0,3)"]
    space.append("train.batch_size=int(interval(20,30))")
    if sampler == "grid":
        space[1:] = ["prune_rate=range(0.1,0.4,0.1)", "seed=range(0,3)"]
    said = launch(tmp_path, *STUDY, *space, f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.n_trials=3",
                  "hydra.sweeper.n_jobs=3")  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr
    assert "Warning" not in said.stdout + said.stderr
    trials = trials_in(tmp_path)
    assert {trial.params["method"] for trial in trials} <= {"dense", "edge_popup"}
    assert {trial.params["seed"] for trial in trials} <= {0, 1, 2}
    if sampler == "grid":
        assert re.findall(r"prune_rate=(\S+)", said.stdout)[:3] == ["0.1", "0.1", "0.1"]
    else:
        assert all(0.01 <= trial.params["train.lr"] <= 1 for trial in trials)
        assert {trial.params["train.batch_size"] for trial in trials} <= {*range(20, 31)}


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
            ["prune_rate=interval(0.1,0.9)", "hydra.sweeper.sampler=tp"],
            ["sampler=tp: must be one of tpe, random,", "as in: hydra/sweeper/sampler=tpe"],
        ),
        (
            ["prune_rate=interval(0.1,0.9)", "+hydra.sweeper.sampler.nothing=1"],
            ["sampler.nothing=1", "as in: hydra/sweeper/sampler=tpe"],
        ),
        (
            ["prune_rate=interval(0.1,0.9)", "hydra/sweeper/sampler=grid"],
            ["prune_rate=interval(0.1,0.9): ", "as in: 'prune_rate=range(0.1,0.9,0.1)'"],
        ),
        (
            ["prune_rate=interval(0.1,0.9)", "hydra.sweeper.pruner=half"],
            ["pruner=half: must be one of none, median, asha, hyperband; as in: hydra.sweeper.pruner=median"],
        ),
        (["prune_rate=interval(0.9,0.1)"], ["to a larger one; as in: 'prune_rate=interval(0.1,0.9)'"]),
        (["train.lr=tag(log,interval(0,1))"], ["begins above 0; as in: 'train.lr=tag(log,interval(0.001,1))'"]),
        (["seed=range(0,0)"], ["seed=range(0,0): has no values; as in: 'seed=choice(0,1)'"]),
        (
            ["prune_rate=interval(0.1,0.9)", "hydra.sweeper.max_failure_rate=2"],
            ["max_failure_rate=2: must be from 0 to 1; as in: hydra.sweeper.max_failure_rate=0.5"],
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
    ("option", "module", "package"),
    [
        ("hydra/sweeper=optuna", "optuna", "optuna"),
        ("hydra/launcher=joblib", "hydra_joblib_launcher", "hydra-joblib-launcher"),
        ("hydra/launcher=ray", "hydra_ray_launcher", "hydra-ray-launcher"),
    ],
)
def test_a_package_that_is_missing_is_named(tmp_path: Path, option: str, module: str, package: str) -> None:
    # A path on which everything is installed but this: a plugin's folder is no part of hydra_plugins then.
    code = f"""
import pkgutil, sys, importlib.metadata, importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == 'hydra_plugins.{module}' else find(name, *rest)
version = importlib.metadata.version
def version_without(name):
    if name == '{module}':
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = version_without
walk = pkgutil.walk_packages
def without(*arguments, **named):
    return (each for each in walk(*arguments, **named) if not each.name.startswith('hydra_plugins.{module}'))
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
    assert f"pip install {package}" in line.replace("'", "")


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
