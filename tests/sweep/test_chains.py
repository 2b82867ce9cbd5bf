"""Sweeps of chains: what is added, who may be executed when, and a failed parent."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.forked_launch import Launch
from helpers.real_commands import SMALL, attempts, folders, surroundings
from helpers.real_commands import launch as command
from helpers.runs import QUIET

from hidden_subnet.cli.rm import rm
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError
from hidden_subnet.store import claims, files, liveness, sweeps
from hidden_subnet.store.liveness import LivenessProbe
from hidden_subnet.store.sweeps import Sweep
from hidden_subnet.sweep.execute import execute, missing_before
from hidden_subnet.sweep.jobs import Job, jobs_of, leaves, listed_jobs, look
from hidden_subnet.sweep.processes import Slots
from hidden_subnet.sweep.worker import Work

CHAIN = ["method=imp", "method.per_round=0.5", *SMALL]


@pytest.fixture
def sweep(compose: Callable[..., Config], tmp_path: Path) -> Sweep:
    """A root with two children, one of which has a child."""
    words = ["method=imp", "method.per_round=0.5", "data=synthetic", f"out={tmp_path / 'runs'}"]
    configs = [compose(*words, f"prune_rate={rate}") for rate in (0.75, 0.4)]
    return sweeps.write(sweeps.plan(configs, "chain"), {})


def looked_at(sweep: Sweep) -> list[Job]:
    return jobs_of(sweep, LivenessProbe(sweep.out))


def end(sweep: Sweep, run: Path, state: str) -> None:
    """Let an attempt at the run, in the launch of the sweep, end in this state."""
    run.mkdir(exist_ok=True)
    me = liveness.this_process("worker", 90.0, str(sweep.launch))
    attempt = claims.acquire(run, me, LivenessProbe(sweep.out))
    if state == "done":
        files.write_json(attempt.folder / files.RESULT, {"last": {"test": {"top1": 0.5}}})
        assert attempt.commit()
    else:
        claims.end(attempt.folder, state, "why")


def test_a_run_waits_for_its_parent(sweep: Sweep) -> None:
    assert sweep.parents == [None, *[sweep.runs[at].name for at in (0, 1, 0)]]
    assert sweeps.read(sweep.folder).parents == sweep.parents
    for done, claimable in [(None, [0]), (0, [1, 3]), (1, [2, 3]), (3, [2]), (2, [])]:
        if done is not None:
            end(sweep, sweep.runs[done], "done")
        jobs = looked_at(sweep)
        assert [at for at, job in enumerate(jobs) if job.claimable] == claimable
        assert {job.state for job in jobs} <= {"queued", "skipped"}


def test_a_single_run_needs_its_parent_alone(compose: Callable[..., Config], tmp_path: Path) -> None:
    words = ["method=imp", "method.per_round=0.5", "data=synthetic", "model=fc", "model.width=0.1", "train.epochs=1"]
    root, parent, child = (compose(*words, f"out={tmp_path}", f"prune_rate={rate}") for rate in (0, 0.5, 0.75))
    assert [each.prune_rate for each in missing_before(child)] == [0, 0.5]
    assert execute(parent, QUIET).state == "done"
    shutil.rmtree(files.folder_of(root))
    assert missing_before(child) == []
    assert execute(child, QUIET).state == "done"
    assert not files.folder_of(root).exists()
    last = files.folder_of(parent) / "checkpoints" / files.LAST
    last.unlink()
    outcome = execute(replace(child, force=True), QUIET)
    assert outcome.state == "failed"
    again = f"give the command again: python -m hidden_subnet rm --parents {files.folder_of(parent).name}"
    assert outcome.message.endswith(again)


@pytest.mark.parametrize(("state", "verb"), [("failed", "failed"), ("lost", "was lost"), ("stopped", "was stopped")])
def test_a_parent_without_a_result_marks_those_that_start_from_it(sweep: Sweep, state: str, verb: str) -> None:
    end(sweep, sweep.runs[0], "done")
    end(sweep, sweep.runs[1], state)
    jobs = looked_at(sweep)
    assert [job.state for job in jobs] == ["skipped", state, "failed", "queued"]
    assert jobs[2].message == f"its parent {sweep.runs[1].name} {verb}"
    assert [job.blocked for job in jobs] == [False, False, True, False]
    again = sweeps.write(sweeps.plan(sweep.configs, "chain"), {})
    assert [job.state for job in looked_at(again)] == (
        ["skipped", "queued", "queued", "queued"] if state != "stopped" else ["skipped", "stopped", "failed", "queued"]
    )


def test_it_goes_down_the_chain(sweep: Sweep) -> None:
    end(sweep, sweep.runs[0], "failed")
    jobs = listed_jobs(sweep)  # as status reads them
    for job in jobs:
        look(job, sweep, LivenessProbe(sweep.out))
    assert [job.message.removesuffix(" failed") for job in jobs[1:]] == [
        f"its parent {sweep.runs[at].name}" for at in (0, 1, 0)
    ]


def test_an_interrupted_parent_marks_nobody(sweep: Sweep) -> None:
    end(sweep, sweep.runs[0], "interrupted")
    jobs = looked_at(sweep)
    assert [job.state for job in jobs] == ["interrupted", "queued", "queued", "queued"]
    assert [job.claimable for job in jobs] == [True, False, False, False]


def test_as_many_slots_are_planned_as_runs_can_be_executed_at_a_time(sweep: Sweep) -> None:
    jobs = looked_at(sweep)
    assert leaves(jobs) == [jobs[2], jobs[3]]
    for at, left in [(0, [2, 3]), (3, [2]), (1, [2]), (2, [])]:
        jobs[at].state = "done"
        assert leaves(jobs) == [jobs[each] for each in left]


def test_failures_of_one_parent_are_one_failure(compose: Callable[..., Config], tmp_path: Path) -> None:
    rates = [0.1, 0.2, 0.3, 0.4, 0.45, 0.5]
    words = ["method=imp", "method.per_round=0.5", "data=synthetic", f"out={tmp_path / 'runs'}"]
    configs = [compose(*words, f"prune_rate={rate}") for rate in rates]
    sweep = sweeps.write(sweeps.plan([*configs, compose("data=synthetic", f"out={tmp_path / 'runs'}")], "chain"), {})
    end(sweep, sweep.runs[0], "failed")
    jobs = looked_at(sweep)
    assert [job.state for job in jobs] == ["failed"] * 7 + ["queued"]
    work = Work(sweep, jobs, Slots(1, 1), "worker", wait=True)
    work.judge(jobs[0])
    assert work.reason == ""


@pytest.mark.parametrize(("at", "stays"), [(0, True), (1, False)])  # two runs wait for the first, one for the second
def test_a_worker_on_a_cluster_stays_where_several_wait_for_one_run(sweep: Sweep, at: int, stays: bool) -> None:
    for done in range(at):
        end(sweep, sweep.runs[done], "done")
    for going in [at] if at == 0 else [1, 3]:
        sweep.runs[going].mkdir()
        claims.acquire(sweep.runs[going], liveness.this_process("other", 90.0), LivenessProbe(sweep.out))
    work = Work(sweep, looked_at(sweep), Slots(1, 1), "worker", wait=False)
    looks: list[int] = []

    def watch(jobs: list[Job]) -> None:
        looks.append(len(jobs))
        if len(looks) == 3:
            work.reason = "seen enough"

    work.run(watch, 0)
    assert work.reason == ("seen enough" if stays else "")


def test_the_plan_is_a_tree(launch: Launch, tmp_path: Path) -> None:
    said = launch(tmp_path, "-m", "prune_rate=0.75,0.4", "plan=true", *CHAIN)
    assert "adds 2 runs that others start from" in said.stdout
    names = re.findall(r"^ ( *)\S+-pr([0-9.]+)-s0", said.stdout, re.MULTILINE)
    assert names == [("", "0"), ("  ", "0.5"), ("    ", "0.75"), ("  ", "0.4")]
    single = launch(tmp_path, "prune_rate=0.5", "plan=true", *CHAIN)
    assert "plan: 2 runs" in single.stdout


def test_a_parent_is_not_deleted_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, child = (tmp_path / f"digits-conv2-imp-pr{rate}-s0-{rate * 6}" for rate in ("00", "20"))
    for each, more in ((parent, {}), (child, {"parent": {"name": parent.name, "id": "00" * 6}})):
        each.mkdir()
        files.write_json(each / files.RESULT, {"last": {"test": {"top1": 0.5}}, **more})
        (each / files.CONFIG).write_text("")
    settings = {"yes": True, "failed": False, "runs": False}
    with pytest.raises(ConfigError, match=rf"{child.name} starts from it \(its parent\).* rm --parents {parent.name}"):
        rm(tmp_path, [parent.name], parents=False, **settings)
    assert parent.exists()
    rm(tmp_path, [parent.name, child.name], parents=False, **settings)
    assert not parent.exists()


def test_the_parent_of_a_run_that_is_not_done_is_not_deleted_either(
    compose: Callable[..., Config], tmp_path: Path
) -> None:
    words = ["method=imp", "method.per_round=0.5", "data=synthetic", "model=fc", "model.width=0.1", "train.epochs=1"]
    root, child = (compose(*words, f"out={tmp_path}", f"prune_rate={rate}") for rate in (0, 0.5))
    assert execute(root, QUIET).state == "done"
    assert execute(child, QUIET, stopped=lambda: True).state == "interrupted"
    with pytest.raises(ConfigError, match=r" starts from it \(its parent\)"):
        rm(tmp_path, [files.folder_of(root).name], yes=True, failed=False, runs=False, parents=False)


# Whole sweeps


@pytest.mark.slow
def test_ancestors_are_added_and_come_first(tmp_path: Path) -> None:
    said = command(tmp_path, "-m", "prune_rate=0.75,0.5", "seed=0,1", *CHAIN, "hydra.launcher.workers=3")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "adds 2 runs that others start from" in said.stdout
    assert "2 at a time" in said.stdout
    assert len(folders(tmp_path)) == 6
    at = {folder.name: (folder / files.RESULT).stat().st_mtime_ns for folder in folders(tmp_path)}
    for folder in folders(tmp_path):
        result = files.read_result(folder) or {}
        if "parent" in result:
            assert at[result["parent"]["name"]] < (folder / files.CONFIG).stat().st_mtime_ns
    again = command(tmp_path, "-m", "prune_rate=0.75,0.5", "seed=0,1", *CHAIN)
    assert "6 runs, 6 of them finished before" in again.stdout


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_the_launchers_of_hydra_execute_chains(launcher: str, tmp_path: Path) -> None:
    more = ["hydra.launcher.n_jobs=3"] * (launcher == "joblib")
    said = command(tmp_path, "-m", "prune_rate=0.75,0.5,0.4", *CHAIN, f"hydra/launcher={launcher}", *more)
    assert said.returncode == 0, said.stdout + said.stderr
    assert len(folders(tmp_path)) == 4
    assert [attempts(folder) for folder in folders(tmp_path)] == [[(1, "done")]] * 4
    [sweep] = (tmp_path / "runs" / ".sweeps").iterdir()
    assert len(sweeps.read(sweep).runs) == 4


@pytest.mark.slow
def test_a_failed_parent_is_named_and_the_same_command_tries_again(tmp_path: Path) -> None:
    where = {"event": "open", "path": r"pr0\.5-\S+/attempts/1/metrics\.jsonl a$", "once": str(tmp_path / "once")}
    arguments = ["-m", "prune_rate=0.875", "seed=0,1", *CHAIN, "hydra.launcher.workers=1"]
    said = command(tmp_path / "here", *arguments, env=surroundings({"do": "exception", **where}))
    assert said.returncode == 1
    [bad] = [run for run in folders(tmp_path / "here") if not files.is_done(run)]
    lines = [line for line in said.stdout.splitlines() if line.startswith("failed: ")]
    assert lines[0] == f"failed: {bad.name}: RuntimeError: injected"
    assert lines[1].endswith(f": its parent {bad.name} failed")
    assert len(lines) == 3  # the third round's names the second's
    again = command(tmp_path / "here", *arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(folders(tmp_path / "here")) == 8


@pytest.mark.slow
def test_masks_are_found_first(tmp_path: Path) -> None:
    said = command(tmp_path, "-m", "method=finetune", "mask=edge_popup", "prune_rate=0.5,0.9", *SMALL)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "adds 2 runs that others start from" in said.stdout
    again = command(tmp_path, "-m", "prune_rate=0.5,0.9", *SMALL)
    assert "2 runs, 2 of them finished before" in again.stdout
    single = command(tmp_path, "method=fixed", "mask=edge_popup", "prune_rate=0.9", *SMALL)
    assert single.returncode == 0
    assert "starts from" not in single.stdout
