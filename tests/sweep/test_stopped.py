"""A run that is stopped on purpose is saved and marked `stopped`, is left so, and continues when asked to."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.real_commands import command, launch
from helpers.runs import QUIET, assert_same_run, small

import hidden_subnet
from hidden_subnet.config.settings import Config, Data
from hidden_subnet.report.plan import planned
from hidden_subnet.store import claims, files, sweeps
from hidden_subnet.store.liveness import LivenessProbe
from hidden_subnet.store.read import read_run
from hidden_subnet.sweep.execute import Outcome, RunObserver, execute
from hidden_subnet.sweep.jobs import jobs_of
from hidden_subnet.training.callbacks import Row


def at_chance(out: Path, **changes: object) -> Config:
    """Return a run that learns nothing, with stop_collapsed."""
    config = small(out, method="dense", lr=1e-9)
    return replace(config, **{"stop_collapsed": True, "stop_collapsed_epoch": 2, **changes})  # type: ignore[arg-type]


def test_a_run_at_chance_is_saved_and_left_until_it_is_to_continue(tmp_path: Path) -> None:
    whole = execute(at_chance(tmp_path / "whole", stop_collapsed=False), QUIET)
    assert whole.state == "done"
    config = at_chance(tmp_path / "stopped")
    first = execute(config, QUIET)
    assert first.state == "stopped"
    assert first.message.startswith("at chance after epoch 2, with ")
    assert [row["epoch"] for row in files.read_rows(files.working(first.folder))] == [0, 1, 2]
    assert (read_run(first.folder).state, read_run(first.folder).error) == ("stopped", first.message)
    for again in (config, replace(config, stop_collapsed=False)):  # the mark is the run's, not the command's
        outcome = execute(again, QUIET)
        assert (outcome.state, outcome.message) == ("stopped", first.message)
        assert files.attempts(first.folder) == [1]
    assert execute(replace(config, resume_stopped=True), QUIET).state == "done"
    assert_same_run(whole.folder, first.folder)
    assert execute(config, QUIET).state == "skipped"


def test_other_runs_are_not_stopped(tmp_path: Path) -> None:
    learns = replace(small(tmp_path, lr=0.5, epochs=6), stop_collapsed=True, stop_collapsed_epoch=5)
    learns = replace(learns, data=Data(name="digits"))
    last = at_chance(tmp_path, stop_collapsed_epoch=3)
    for config in (learns, last, at_chance(tmp_path / "off", stop_collapsed=False)):
        assert execute(config, QUIET).state == "done"


def test_two_devices_stop_together(tmp_path: Path) -> None:
    config = at_chance(tmp_path)
    outcome = execute(replace(config, train=replace(config.train, devices=2)), QUIET)
    assert outcome.state == "stopped"


def asked_to_stop(config: Config, reason: str) -> Outcome:
    """Execute a run of many epochs, which another process asks to stop after its first."""

    def on_row(row: Row) -> None:
        if row["epoch"] == 1:
            claims.ask_to_stop(files.folder_of(config), reason)

    return execute(config, RunObserver(on_row, QUIET.on_step, QUIET.say))


def test_a_run_that_is_asked_to_stop(tmp_path: Path) -> None:
    config = small(tmp_path, epochs=2000)
    outcome = asked_to_stop(config, "pruned by asha after epoch 1")
    assert (outcome.state, outcome.message) == ("stopped", "pruned by asha after epoch 1")
    assert claims.is_stopped(outcome.folder)
    # The request was for that attempt.
    taken: list[int] = []
    count = RunObserver(QUIET.on_row, lambda epoch, batch, batches: taken.append(batch), QUIET.say)
    resumed = execute(replace(config, resume_stopped=True), count, stopped=lambda: len(taken) >= 300)
    assert resumed.state == "interrupted"
    assert not claims.is_stopped(outcome.folder)
    claims.ask_to_stop(tmp_path / "gone", "a run that is done")  # does nothing


def test_a_sweep_leaves_it_until_resume_stopped(tmp_path: Path) -> None:
    config = at_chance(tmp_path)
    execute(config, QUIET)
    for changed, state, claimable, plan in (
        (config, "stopped", False, "stopped"),
        (replace(config, resume_stopped=True), "queued", True, "to do"),
        (replace(config, force=True), "queued", True, "stopped"),
    ):
        sweep = sweeps.write(sweeps.plan([changed], "seed"), {})
        [job] = jobs_of(sweep, LivenessProbe(tmp_path))
        assert (job.state, job.claimable, job.is_settled) == (state, claimable, not claimable)
        [run] = planned([changed])
        assert (run.state, run.runs) == (plan, claimable)


def test_in_python_a_stopped_run_has_no_result(tmp_path: Path) -> None:
    words = [
        "data=synthetic",
        "model.width=0.125",
        "method=dense",
        "train.lr=1e-9",
        "train.epochs=3",
        f"out={tmp_path}",
    ]
    with pytest.raises(RuntimeError, match=r"at chance after epoch 1.*resume_stopped=True"):
        hidden_subnet.run(*words, stop_collapsed=True, stop_collapsed_epoch=1)
    assert hidden_subnet.run(*words, resume_stopped=True).record["collapsed"] is True


@pytest.mark.slow
def test_a_grid_says_which_runs_were_stopped(tmp_path: Path) -> None:
    grid = ["-m", "data=synthetic", "model.width=0.125", "tracker=none", "method=dense", "train.lr=1e-9,0.1"]
    grid += ["train.epochs=20", "stop_collapsed=true", "stop_collapsed_epoch=10"]

    def launched(*words: str) -> str:
        said = launch(tmp_path, *grid, *words)
        assert said.returncode == 0, said.stdout + said.stderr
        return said.stdout

    def states() -> list[str]:
        with (tmp_path / "runs" / "results.csv").open() as file:
            return sorted(row["state"] for row in csv.DictReader(file))

    said = launched()
    assert "stopped: at chance after epoch 10" in said
    assert "1 run stopped before the last epoch; to continue, add resume_stopped=true" in said
    assert states() == ["done", "stopped"]
    said = launched()
    assert "2 runs, 1 of them finished before (force=true runs them again), 1 stopped before" in said
    status = command(tmp_path, "status", "train.lr")
    assert "1 done, 0 running, 1 stopped" in status.stdout
    assert "lr 1e-09): at chance after epoch 10, with" in status.stdout
    launched("resume_stopped=true")
    assert states() == ["done", "done"]
