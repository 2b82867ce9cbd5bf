"""The decisions of a worker: which runs it takes, and when it gives up a run, stops itself, or stops the sweep."""

import errno
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from helpers.unanswered import unanswered

from hidden_subnet.config.settings import Config, OnError
from hidden_subnet.store import claims, files, liveness, sweeps
from hidden_subnet.store.liveness import LivenessProbe, Observation, heartbeat
from hidden_subnet.store.sweeps import Presence, Sweep
from hidden_subnet.sweep.execute import LaunchInfo, RunObserver, execute
from hidden_subnet.sweep.jobs import DEATHS, UNANSWERED, Job, jobs_of, listed_jobs, look, try_look
from hidden_subnet.sweep.processes import Child, Slots
from hidden_subnet.sweep.worker import StartRun, Work, first_of, in_order

SILENT = 90.0


@pytest.fixture
def configs(compose: Callable[..., Config], tmp_path: Path) -> list[Config]:
    return [compose("data=synthetic", f"seed={seed}", f"out={tmp_path / 'runs'}") for seed in range(8)]


@pytest.fixture
def sweep(configs: list[Config]) -> Sweep:
    return sweeps.write(sweeps.plan(configs, "seed"), {})


def no_start(job: Job, config: Config, slots: Slots, launch: LaunchInfo) -> Child:
    pytest.fail("no run is to be started here")


def working(sweep: Sweep, start_run: StartRun = no_start) -> Work:
    jobs = jobs_of(sweep, LivenessProbe(sweep.out))
    return Work(sweep, jobs, Slots(1, 1), "worker", wait=True, start_run=start_run)


def ended(work: Work, state: str, message: str = "") -> None:
    """Let the next queued run end in this state."""
    job = next(job for job in work.jobs if job.state == "queued")
    job.state, job.message, job.claimable = state, message, False
    job.final = state in ("failed", "lost")
    work.judge(job)


def test_same_error_in_the_first_five_runs_ends_the_sweep(sweep: Sweep) -> None:
    work = working(sweep)
    for number in range(4):
        ended(work, "failed", f"RuntimeError: loss {number}.5 in /tmp/{number}")  # numbers aside
        assert work.reason == ""
    ended(work, "failed", "RuntimeError: loss 9.5 in /tmp/9")
    assert work.reason.startswith("the first 5 runs failed with the same error and none is done: RuntimeError: loss")
    assert sweeps.stop_reason(sweep.folder) == work.reason  # for the other workers


def test_one_success_or_other_errors_keep_the_sweep_going(sweep: Sweep) -> None:
    work = working(sweep)
    ended(work, "done")
    for _ in range(6):
        ended(work, "failed", "RuntimeError")
    assert work.reason == ""
    work = working(sweep)
    for letter in "abcdef":
        ended(work, "failed", f"RuntimeError {letter}")
    assert work.reason == ""
    assert sweeps.stop_reason(sweep.folder) is None


def other_host(sweep: Sweep) -> Path:
    """Write the heartbeat file of a worker on another host."""
    path = sweep.folder / sweeps.WORKERS / "elsewhere.json"
    path.parent.mkdir(exist_ok=True)
    holder = replace(liveness.this_process("elsewhere", SILENT), host="elsewhere", machine="another boot")
    path.write_text(json.dumps({**asdict(holder), "slots": 1}))
    return path


def three_failures(work: Work, message: str = "CUDA error") -> None:
    for letter in "abc":
        ended(work, "failed", f"{message} {letter}")


def test_three_failures_in_a_row_end_a_worker_whose_colleagues_elsewhere_succeed(sweep: Sweep) -> None:
    work = working(sweep)
    path = other_host(sweep)
    work.jobs[-1].state = "done"
    three_failures(work)
    assert "the last 3 runs on this host failed while others' succeed" in work.reason
    assert sweeps.stop_reason(sweep.folder) is None  # the others continue

    work = working(sweep)
    work.seen[path] = Observation(heartbeat(path), time.monotonic() - SILENT)  # the other has died
    work.jobs[-1].state = "done"
    three_failures(work)
    assert work.reason == ""


def test_a_success_between_failures_breaks_the_row(sweep: Sweep) -> None:
    work = working(sweep)
    other_host(sweep)
    ended(work, "failed", "a")
    ended(work, "lost", "b")
    ended(work, "done")
    ended(work, "failed", "c")
    assert work.reason == ""


def test_on_error_stop_ends_the_sweep_at_the_first_failure(configs: list[Config]) -> None:
    sweep = sweeps.write(sweeps.plan([replace(config, on_error=OnError.stop) for config in configs], "seed"), {})
    work = working(sweep)
    ended(work, "done")
    assert work.reason == ""
    ended(work, "failed", "it did")
    assert work.reason.startswith("on_error=stop: ")
    assert sweeps.stop_reason(sweep.folder) == work.reason


def claim(sweep: Sweep, launch: str | None = None) -> claims.Attempt:
    folder = sweep.runs[0]
    folder.mkdir(parents=True, exist_ok=True)
    me = liveness.this_process("worker", SILENT, str(sweep.launch) if launch is None else launch)
    return claims.acquire(folder, me, LivenessProbe(folder.parent))


def die(sweep: Sweep) -> None:
    """Leave a claim whose process has died without recording its end."""
    pid = os.fork()
    if pid == 0:
        claim(sweep)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def look_at(sweep: Sweep) -> Job:
    job = listed_jobs(sweep)[0]
    look(job, sweep, LivenessProbe(sweep.out))
    return job


def test_run_whose_holders_keep_dying_is_given_up(sweep: Sweep) -> None:
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
    again = sweeps.write(sweeps.plan(sweep.configs, "seed"), {})
    job = look_at(again)
    assert (job.state, job.message, job.claimable) == ("queued", "", True)
    assert look_at(replace(again, launch=None)).state == state


def test_failure_before_there_was_an_attempt_is_known_to_all(sweep: Sweep) -> None:
    sweep.runs[0].mkdir()
    (sweep.runs[0] / files.CONFIG).write_text("[]")
    sweeps.record_failure(sweep, sweep.runs[0].name, "config.yaml is damaged")
    job = look_at(sweep)
    assert (job.state, job.message, job.claimable) == ("failed", "config.yaml is damaged", False)
    assert look_at(sweeps.write(sweeps.plan(sweep.configs, "seed"), {})).state == "queued"


@pytest.mark.parametrize("end", ["failed", "lost", "interrupted"])
def test_run_that_another_worker_executes_while_this_one_starts_it_is_not_taken(end: str, sweep: Sweep) -> None:
    outcomes = []

    def start_slowly(job: Job, config: Config, slots: Slots, launch: LaunchInfo) -> Child:
        claims.end(claim(sweep).folder, end, "it ended")
        quiet = RunObserver(lambda row: None, lambda epoch, batch, batches: None, lambda text: None)
        outcomes.append(execute(config, quiet, launch, stopped=lambda: True))
        work.reason = "this run is enough"
        return Child(job, *4 * [None])  # type: ignore[arg-type]

    work = working(sweep, start_slowly)
    work.start_runs(work.jobs)
    [outcome] = outcomes
    assert outcome.state == "busy"
    assert outcome.message.endswith(f" in the meantime and is {end}")
    assert files.attempts(sweep.runs[0]) == [1]
    assert look_at(sweep).claimable == (end == "interrupted")


def test_worker_joins_the_next_launch(sweep: Sweep) -> None:
    work = working(sweep)
    claims.end(claim(sweep).folder, "failed", "it did")
    ended(work, "failed", "it did")
    work.look_around()
    assert not work.jobs[0].claimable
    os.utime(sweep.folder / sweeps.MANIFEST, (1, 1))
    again = sweeps.write(sweeps.plan(sweep.configs, "seed"), {})
    work.asked_whether = work.looked = -1e9
    work.look_around()
    assert (work.sweep.launch, work.jobs[0].claimable) == (again.launch, True)


def test_runs_that_failed_before_come_last(sweep: Sweep) -> None:
    claims.end(claim(sweep, "an earlier launch").folder, "failed", "it did")
    jobs = jobs_of(sweep, LivenessProbe(sweep.out))
    assert in_order(jobs, 0) == [*jobs[1:], jobs[0]]


def test_interrupted_runs_may_be_claimed_and_running_ones_may_not(sweep: Sweep) -> None:
    attempt = claim(sweep)
    job = look_at(sweep)
    assert (job.state, job.claimable) == ("running", False)
    claims.end(attempt.folder, "interrupted", "saved")
    job = look_at(sweep)
    assert (job.state, job.claimable) == ("interrupted", True)


def test_forced_run_is_done_only_by_this_launch(configs: list[Config]) -> None:
    sweep = sweeps.write(sweeps.plan([replace(config, force=True) for config in configs], "seed"), {})
    folder = sweep.runs[0]
    folder.mkdir()
    files.write_json(folder / files.RESULT, {})
    files.write_json(folder / files.PROVENANCE, {"launch": "an earlier one"})
    assert look_at(sweep).state == "queued"
    files.write_json(folder / files.PROVENANCE, {"launch": sweep.launch})
    assert look_at(sweep).state == "done"
    sweep = sweeps.write(sweeps.plan(configs, "seed"), {})
    files.write_json(folder / files.PROVENANCE, {"launch": "an earlier one"})
    assert look_at(sweep).state == "done"


@pytest.mark.parametrize(("task", "first"), [(None, 0), ("12_0", 0), ("12_1", 25), ("12_3", 75)])
def test_workers_of_an_array_begin_at_different_runs(task: str | None, first: int) -> None:
    assert first_of(task, 100, 4) == first


def test_stop_file_that_a_server_does_not_show_ends_nothing(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    work = working(sweep)
    with unanswered(errno.ESTALE, sweeps.STOP):
        for _ in range(3):
            work.asked_whether = -1e9
            work.look_around()
    assert work.reason == ""
    assert capsys.readouterr().out.count("some files cannot be read now") == 1
    sweeps.stop(sweep.folder, "by a user")
    work.asked_whether = -1e9
    work.look_around()
    assert work.reason == "by a user"


@pytest.mark.parametrize("name", [files.RESULT, files.ATTEMPTS])
def test_runs_that_a_server_does_not_show_are_not_failed(name: str, sweep: Sweep) -> None:
    started: list[Job] = []

    def start(job: Job, config: Config, slots: Slots, launch: LaunchInfo) -> Child:
        started.append(job)
        return Child(job, *4 * [None])  # type: ignore[arg-type]

    for run in sweep.runs:
        run.mkdir()
    with unanswered(errno.EIO, name):
        work = working(sweep, start)
        for _ in range(3):
            work.looked = -1e9
            work.look_around()
            work.start_runs(work.jobs)
            for job in work.jobs:
                job.not_before = 0.0
    assert {job.state for job in work.jobs} == {"queued"}
    assert started == []
    work.looked = -1e9
    work.look_around()
    work.start_runs(work.jobs)
    assert started == [work.jobs[0]]


def test_run_that_a_server_never_shows_fails_in_the_end(sweep: Sweep) -> None:
    job = listed_jobs(sweep)[0]
    job.folder.mkdir()
    with unanswered(errno.EIO, files.RESULT):
        for _ in range(UNANSWERED - 1):
            assert "Input/output error" in try_look(job, sweep, LivenessProbe(sweep.out))
        assert job.state == "queued"
        try_look(job, sweep, LivenessProbe(sweep.out))
    assert (job.state, job.claimable) == ("failed", False)


def test_worker_shows_that_it_lives_whatever_it_does(sweep: Sweep) -> None:
    me = liveness.this_process("w", 0.2)
    file, beats = sweep.folder / sweeps.WORKERS / "w.json", set()
    with Presence(sweep.folder, me, slots=2):
        assert json.loads(file.read_text()) == {**asdict(me), "slots": 2}
        end = time.monotonic() + 60
        while len(beats) < 3 and time.monotonic() < end:  # busy, as with a look at thousands of runs
            beats.add(heartbeat(file))
        assert len(beats) == 3
        file.unlink()  # by somebody who took it for dead
        while not file.exists() and time.monotonic() < end:
            pass
        assert [worker.slots for worker in sweeps.live_workers(sweep.folder, LivenessProbe(sweep.out))] == [2]
    assert list(file.parent.iterdir()) == []


def test_workers_that_a_server_does_not_show_are_not_dead(sweep: Sweep) -> None:
    path = other_host(sweep)
    with unanswered(errno.ESTALE, path.name), pytest.raises(OSError, match="Stale file handle"):
        sweeps.live_workers(sweep.folder, LivenessProbe(sweep.out))
    assert len(sweeps.live_workers(sweep.folder, LivenessProbe(sweep.out))) == 1
