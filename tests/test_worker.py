"""What a worker decides: what it may take, when it gives up a run, itself, or the sweep."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from hidden_subnet import claims, owners, record
from hidden_subnet.execute import Display, Origin, execute
from hidden_subnet.owners import Observer
from hidden_subnet.settings import Config, OnError
from hidden_subnet.sweep import manifest, worker
from hidden_subnet.sweep.job import DEATHS, Job, jobs_of, look
from hidden_subnet.sweep.manifest import Sweep
from hidden_subnet.sweep.pool import Child, Slots

SILENT = 90.0


@pytest.fixture
def sweep(compose: Callable[..., Config], tmp_path: Path) -> Sweep:
    configs = [compose("data=synthetic", f"seed={seed}", f"out={tmp_path / 'runs'}") for seed in range(8)]
    return manifest.write(configs, "seed", {})


def working(sweep: Sweep) -> worker.Work:
    jobs = jobs_of(sweep, Observer(sweep.out))
    return worker.Work(sweep, jobs, Slots(1, 1), "worker", wait=True)


def ended(doing: worker.Work, state: str, message: str = "") -> None:
    """The next run that is queued ends so."""
    job = next(job for job in doing.jobs if job.state == "queued")
    job.state, job.message, job.claimable = state, message, False
    job.final = state in ("failed", "lost")
    worker._judge(doing, job)


def test_same_error_in_the_first_five_runs_ends_the_sweep(sweep: Sweep) -> None:
    doing = working(sweep)
    for number in range(4):
        ended(doing, "failed", f"RuntimeError: loss {number}.5 in /tmp/{number}")  # numbers aside
        assert doing.reason == ""
    ended(doing, "failed", "RuntimeError: loss 9.5 in /tmp/9")
    assert doing.reason.startswith("the first 5 runs failed with the same error and none is done: RuntimeError: loss")
    assert manifest.stop_reason(sweep.folder) == doing.reason  # for the other workers


def test_one_success_or_other_errors_keep_the_sweep_going(sweep: Sweep) -> None:
    doing = working(sweep)
    ended(doing, "done")
    for _ in range(6):
        ended(doing, "failed", "RuntimeError")
    assert doing.reason == ""
    doing = working(sweep)
    for letter in "abcdef":
        ended(doing, "failed", f"RuntimeError {letter}")
    assert doing.reason == ""
    assert manifest.stop_reason(sweep.folder) is None


def other_host(sweep: Sweep) -> Path:
    """The sign of life of a worker elsewhere."""
    path = sweep.folder / manifest.WORKERS / "elsewhere.json"
    path.parent.mkdir(exist_ok=True)
    owner = replace(owners.this_process("elsewhere", SILENT), host="elsewhere", machine="another boot")
    path.write_text(json.dumps({**asdict(owner), "slots": 1}))
    return path


def three_failures(doing: worker.Work, message: str = "CUDA error") -> None:
    for letter in "abc":
        ended(doing, "failed", f"{message} {letter}")


def test_three_failures_in_a_row_end_a_worker_whose_colleagues_elsewhere_succeed(sweep: Sweep) -> None:
    doing = working(sweep)
    path = other_host(sweep)
    doing.jobs[-1].state = "done"
    three_failures(doing)
    assert "the last 3 runs on this host failed while others' succeed" in doing.reason
    assert manifest.stop_reason(sweep.folder) is None  # the others go on

    doing = working(sweep)
    os.utime(path, (1, 1))  # the other died long ago
    doing.jobs[-1].state = "done"
    three_failures(doing)
    assert doing.reason == ""


def test_a_success_between_failures_breaks_the_row(sweep: Sweep) -> None:
    doing = working(sweep)
    other_host(sweep)
    ended(doing, "failed", "a")
    ended(doing, "lost", "b")
    ended(doing, "done")
    ended(doing, "failed", "c")
    assert doing.reason == ""


def test_on_error_stop_ends_the_sweep_at_the_first_failure(sweep: Sweep) -> None:
    for config in sweep.configs:
        config.on_error = OnError.stop
    doing = working(sweep)
    ended(doing, "done")
    assert doing.reason == ""
    ended(doing, "failed", "it did")
    assert doing.reason.startswith("on_error=stop: ")
    assert manifest.stop_reason(sweep.folder) == doing.reason


def claim(sweep: Sweep, launch: str | None = None) -> claims.Attempt:
    folder = sweep.runs[0]
    folder.mkdir(parents=True, exist_ok=True)
    me = owners.this_process("worker", SILENT, str(sweep.launch) if launch is None else launch)
    return claims.take(folder, me, Observer(folder.parent))


def die(sweep: Sweep) -> None:
    """A claim whose process is gone, with nobody to say it."""
    pid = os.fork()
    if pid == 0:
        claim(sweep)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def look_at(sweep: Sweep) -> Job:
    job = Job(sweep.configs[0], sweep.runs[0])
    look(job, sweep, Observer(sweep.out))
    return job


def test_run_whose_owners_keep_dying_is_given_up(sweep: Sweep) -> None:
    for death in range(1, DEATHS + 1):
        die(sweep)
        job = look_at(sweep)
        assert job.state == "lost"
        assert job.claimable == (death < DEATHS)
    assert f"died {DEATHS} times" in job.message


@pytest.mark.parametrize("state", ["failed", "lost"])
def test_failures_of_an_earlier_launch_are_tried_again_and_those_of_this_one_are_not(state: str, sweep: Sweep) -> None:
    attempt = claim(sweep)
    claims.end(attempt.folder, state, "it ended")
    os.utime(attempt.folder / claims.ENDED, (0, 0))  # clocks are set back and forth; launches have ids
    job = look_at(sweep)
    assert (job.state, job.message, job.claimable) == (state, "it ended", False)
    again = manifest.write(sweep.configs, "seed", {})
    job = look_at(again)
    assert (job.state, job.message, job.claimable) == ("queued", "", True)
    assert look_at(replace(again, launch=None)).state == state


def test_failure_before_there_was_an_attempt_is_known_to_all(sweep: Sweep) -> None:
    sweep.runs[0].mkdir()
    (sweep.runs[0] / record.CONFIG).write_text("[]")
    manifest.note_failure(sweep, sweep.runs[0].name, "config.yaml is damaged")
    job = look_at(sweep)
    assert (job.state, job.message, job.claimable) == ("failed", "config.yaml is damaged", False)
    assert look_at(manifest.write(sweep.configs, "seed", {})).state == "queued"


@pytest.mark.parametrize("end", ["failed", "lost", "interrupted"])
def test_run_that_another_worker_has_had_while_this_one_started_it_is_judged_anew(
    end: str, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    doing, outcomes = working(sweep), []

    def start_slowly(job: Job, config: Config, slots: Slots, origin: Origin) -> Child:
        claims.end(claim(sweep).folder, end, "it ended")
        quiet = Display(lambda row: None, lambda epoch, batch, batches: None, lambda text: None)
        outcomes.append(execute(config, quiet, origin, stopped=lambda: True))
        doing.reason = "this run is enough"
        return Child(job, *4 * [None])  # type: ignore[arg-type]

    monkeypatch.setattr(worker.pool, "start", start_slowly)
    worker._start_runs(doing, doing.jobs)
    [outcome] = outcomes
    assert outcome.state == "busy"
    assert outcome.message.endswith(f" meanwhile, and is {end}")
    assert record.attempts(sweep.runs[0]) == [1]
    assert look_at(sweep).claimable == (end == "interrupted")


def test_worker_joins_the_next_launch(sweep: Sweep) -> None:
    doing = working(sweep)
    claims.end(claim(sweep).folder, "failed", "it did")
    ended(doing, "failed", "it did")
    worker._look_around(doing, sweep.folder / "presence")
    assert not doing.jobs[0].claimable
    os.utime(sweep.folder / manifest.MANIFEST, (1, 1))
    again = manifest.write(sweep.configs, "seed", {})
    doing.looked = -1e9
    worker._look_around(doing, sweep.folder / "presence")
    assert (doing.sweep.launch, doing.jobs[0].claimable) == (again.launch, True)


def test_runs_that_failed_before_come_last(sweep: Sweep) -> None:
    claims.end(claim(sweep, "an earlier launch").folder, "failed", "it did")
    jobs = jobs_of(sweep, Observer(sweep.out))
    assert worker._order(jobs, 0) == [*jobs[1:], jobs[0]]


def test_interrupted_runs_go_on_and_running_ones_are_left_alone(sweep: Sweep) -> None:
    attempt = claim(sweep)
    job = look_at(sweep)
    assert (job.state, job.claimable) == ("running", False)
    claims.end(attempt.folder, "interrupted", "saved")
    job = look_at(sweep)
    assert (job.state, job.claimable) == ("interrupted", True)


def test_forced_run_is_done_only_by_this_launch(sweep: Sweep) -> None:
    sweep.configs[0].force = True
    folder = sweep.runs[0]
    folder.mkdir()
    record.write_json(folder / record.RESULT, {})
    record.write_json(folder / record.PROVENANCE, {"launch": "an earlier one"})
    assert look_at(sweep).state == "queued"
    record.write_json(folder / record.PROVENANCE, {"launch": sweep.launch})
    assert look_at(sweep).state == "done"
    sweep.configs[0].force = False
    record.write_json(folder / record.PROVENANCE, {"launch": "an earlier one"})
    assert look_at(sweep).state == "done"


@pytest.mark.parametrize(("task", "first"), [(None, 0), ("12_0", 0), ("12_1", 25), ("12_3", 75)])
def test_workers_of_an_array_begin_at_different_runs(task: str | None, first: int) -> None:
    assert worker.first_of(task, 100, 4) == first
