"""Claims: one owner at a time, takeover of the dead and the silent, a commit that only one can make."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from claiming import SILENT, claim, fall_silent, foreign, in_child, observer, result, state, work

from hidden_subnet import claims, owners, record
from hidden_subnet.claims import BusyError, standing, take
from hidden_subnet.owners import Observer


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "run-0123456789ab"
    folder.mkdir(parents=True)
    return folder


def race(run: Path, barrier: Barrier, number: int) -> None:
    barrier.wait()
    try:
        claim(run)
        code = 0
    except BusyError:
        code = 3
    barrier.wait()
    os._exit(code)


@pytest.mark.slow
def test_of_many_processes_one_gets_the_claim(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for trial in range(10):
        run = tmp_path / str(trial)
        run.mkdir()
        barrier = context.Barrier(6)
        racers = [context.Process(target=race, args=(run, barrier, number)) for number in range(6)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join(60)
        assert sorted(racer.exitcode or 0 for racer in racers) == [0, 3, 3, 3, 3, 3]
        assert os.listdir(run / record.ATTEMPTS) == ["1"]


def test_owner_that_lives_keeps_its_run(run: Path) -> None:
    assert state(run) == "queued"
    claim(run)
    assert state(run) == "running"
    with pytest.raises(BusyError, match=f"process {os.getpid()}"):
        claim(run)


def test_run_that_was_judged_before_its_newest_attempt_is_not_taken(run: Path) -> None:
    claims.end(claim(run).folder, "failed", "it did")
    with pytest.raises(BusyError, match="meanwhile, and is failed"):
        take(run, owners.this_process("worker", SILENT), observer(run), after=0)
    assert take(run, owners.this_process("worker", SILENT), observer(run), after=1).number == 2


def test_dead_owner_is_taken_over_with_what_it_left(run: Path) -> None:
    def die() -> None:
        work(claim(run), epochs=2)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(die) == -signal.SIGKILL
    now = standing(run, observer(run))
    assert (now.state, now.attempt, now.ended_at) == ("lost", 1, None)
    assert "died" in now.message
    second = claim(run)
    assert second.number == 2
    assert [row["epoch"] for row in record.read_rows(second.folder)] == [0, 1, 2]
    assert (second.folder / "checkpoints" / record.RESUME).read_text() == f"{record.RESUME} of 1"
    assert (second.folder / record.LOG).read_text() == "log of 1\n"
    first = run / record.ATTEMPTS / "1"
    assert json.loads((first / claims.ENDED).read_text())["state"] == "lost"
    assert not (first / "checkpoints" / record.RESUME).exists()  # the large one, once it is had


def test_zombie_is_dead(run: Path) -> None:
    pid = os.fork()
    if pid == 0:
        claim(run)
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        assert state(run) == "lost"
    finally:
        os.waitpid(pid, 0)


def test_another_process_with_the_pid_of_the_dead_is_not_it(run: Path) -> None:
    attempt = claim(run)
    content = json.loads((attempt.folder / claims.CLAIM).read_text())
    (attempt.folder / claims.CLAIM).write_text(json.dumps({**content, "started": "1"}))
    assert state(run) == "lost"


def test_silent_owner_is_passed_over_and_cannot_commit(run: Path) -> None:
    first = foreign(run)
    work(first)
    fall_silent(first)
    assert "no sign of life" in standing(run, observer(run)).message
    second = claim(run)
    assert first.is_passed_over()
    assert not second.is_passed_over()
    work(second)
    result(second)
    result(first)
    assert second.commit()
    assert not first.commit()
    assert json.loads((run / record.RESULT).read_text())["by"] == 2
    claims.end(first.folder, "failed", "its folder is gone")
    assert not (run / record.ATTEMPTS).exists()


def test_silent_owner_that_wakes_first_commits_and_its_successor_does_not(run: Path) -> None:
    first = foreign(run)
    work(first)
    fall_silent(first)
    second = claim(run)
    work(second)
    result(first)
    result(second)
    assert first.commit()
    assert second.is_passed_over()
    assert not second.commit()
    second.drop()
    assert json.loads((run / record.RESULT).read_text())["by"] == 1
    assert [(entry["number"], entry["state"]) for entry in claims.history(run)] == [(1, "done")]
    assert not (run / record.ATTEMPTS).exists()


def test_silent_process_of_this_machine_is_alive_unless_it_is_stopped(run: Path) -> None:
    pid = os.fork()
    if pid == 0:
        claim(run)
        signal.pause()
    try:
        while state(run) != "running":
            time.sleep(0.01)
        before = os.stat(run / record.ATTEMPTS / "1" / claims.CLAIM).st_mtime - SILENT - 10
        os.utime(run / record.ATTEMPTS / "1" / claims.CLAIM, (before, before))
        assert state(run) == "running"
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED)
        assert state(run) == "lost"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_heartbeat_is_a_sign_of_life_and_tells_who_is_passed_over(run: Path) -> None:
    me = replace(owners.this_process("worker", 1.0), machine="another boot")
    first = take(run, me, observer(run))
    fall_silent(first)
    with first:
        beaten = False
        for _ in range(600):
            beaten = beaten or state(run) == "running"
            if beaten:
                break
            first.passed_over.wait(0.05)
        assert beaten
        (run / record.ATTEMPTS / "2").mkdir()
        assert first.passed_over.wait(60)


def test_numbers_are_never_used_again(run: Path) -> None:
    first = claim(run)
    work(first)
    result(first)
    assert first.commit()
    assert not (run / record.ATTEMPTS).exists()
    second = claim(run, fresh=True)
    assert second.number == 2
    record.clear(run)
    work(second)
    result(second)
    assert second.commit()
    assert [(entry["number"], entry["state"]) for entry in claims.history(run)] == [(1, "done"), (2, "done")]
    assert claim(run, fresh=True).number == 3


def test_fresh_attempt_takes_nothing_over(run: Path) -> None:
    first = claim(run)
    work(first)
    claims.end(first.folder, "failed", "it did")
    second = claim(run, fresh=True)
    assert record.read_rows(second.folder) == []
    assert os.listdir(second.folder / "checkpoints") == []


def test_history_tells_every_attempt(run: Path) -> None:
    for ended in ("failed", "interrupted"):
        attempt = claim(run)
        work(attempt)
        claims.end(attempt.folder, ended, f"{ended}, it said")
        assert state(run) == ended

    def die() -> None:
        work(claim(run))
        os._exit(0)

    in_child(die)
    last = claim(run)
    work(last)
    result(last)
    assert last.commit()
    told = json.loads((run / record.PROVENANCE).read_text())
    assert told["by"] == 4
    assert [(entry["number"], entry["state"]) for entry in told["attempts"]] == [
        (1, "failed"), (2, "interrupted"), (3, "lost"), (4, "done"),
    ]  # fmt: skip
    assert told["attempts"][0]["message"] == "failed, it said"
    assert "died" in told["attempts"][2]["message"]
    assert told["attempts"][3]["pid"] == os.getpid()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"host": 1}', "\x00"])
def test_damaged_claim_is_a_lost_run(content: str, run: Path) -> None:
    attempt = claim(run)
    (attempt.folder / claims.CLAIM).write_text(content)
    assert state(run) == "lost"
    assert claim(run).number == 2


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_damaged_end_is_a_lost_run(content: str, run: Path) -> None:
    attempt = claim(run)
    (attempt.folder / claims.ENDED).write_text(content)
    assert state(run) == "lost"
    assert claim(run).number == 2


def test_owner_on_another_machine_is_judged_by_its_silence(run: Path) -> None:
    attempt = foreign(run, pid=1)
    assert state(run) == "running"
    fall_silent(attempt)
    assert state(run) == "lost"


@pytest.mark.parametrize(
    ("said", "late", "expected"),
    [
        ({"12_3": "RUNNING"}, True, "running"),
        ({"12_3": "COMPLETING"}, True, "running"),
        ({"12_3": "NODE_FAIL"}, True, "lost"),
        ({"12_3": "PENDING"}, True, "lost"),  # queued again, so not executing
        ({"12_4": "RUNNING"}, True, "lost"),
        (None, True, "running"),
        ({"12_3": "NODE_FAIL"}, False, "running"),  # nobody asks yet
    ],
)
def test_owner_under_slurm_is_judged_by_its_job_once_it_is_late(
    said: dict[str, str] | None, late: bool, expected: str, run: Path
) -> None:
    attempt = foreign(run, slurm="12_3")
    if late:
        before = os.stat(attempt.folder / claims.CLAIM).st_mtime - SILENT / 2
        os.utime(attempt.folder / claims.CLAIM, (before, before))
    assert standing(run, Observer(run.parent, lambda: said)).state == expected


def test_dropped_claim_leaves_nothing(run: Path) -> None:
    claim(run).drop()
    assert os.listdir(run) == []
    assert state(run) == "queued"
