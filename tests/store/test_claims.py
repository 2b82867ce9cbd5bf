"""Claims: one holder at a time, takeover if it is dead or sends no heartbeat, a commit that only one can make."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from helpers.claiming import SILENT, claim, foreign, in_child, probe, state, stop_heartbeat, work, write_result

from hidden_subnet.store import claims, files, liveness
from hidden_subnet.store.claims import BusyError, acquire, run_status


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
        assert os.listdir(run / files.ATTEMPTS) == ["1"]


def test_live_holder_keeps_its_run(run: Path) -> None:
    assert state(run) == "queued"
    claim(run)
    assert state(run) == "running"
    with pytest.raises(BusyError, match=f"process {os.getpid()}"):
        claim(run)


def test_run_with_a_newer_attempt_than_the_caller_knows_is_not_taken(run: Path) -> None:
    claims.end(claim(run).folder, "failed", "it did")
    with pytest.raises(BusyError, match="in the meantime and is failed"):
        acquire(run, liveness.this_process("worker", SILENT), probe(run), after=0)
    assert acquire(run, liveness.this_process("worker", SILENT), probe(run), after=1).number == 2


def test_run_of_a_dead_holder_is_resumed_from_its_files(run: Path) -> None:
    def die() -> None:
        work(claim(run), epochs=2)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(die) == -signal.SIGKILL
    now = run_status(run, probe(run))
    assert (now.state, now.attempt, now.ended_at) == ("lost", 1, None)
    assert "died" in now.message
    second = claim(run)
    assert second.number == 2
    assert [row["epoch"] for row in files.read_rows(second.folder)] == [0, 1, 2]
    assert (second.folder / "checkpoints" / files.RESUME).read_text() == f"{files.RESUME} of 1"
    assert (second.folder / files.LOG).read_text() == "log of 1\n"
    first = run / files.ATTEMPTS / "1"
    assert json.loads((first / claims.ENDED).read_text())["state"] == "lost"
    assert not (first / "checkpoints" / files.RESUME).exists()  # the large file, which the second attempt has now


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


def test_another_process_with_the_pid_of_a_dead_holder_is_not_the_holder(run: Path) -> None:
    attempt = claim(run)
    content = json.loads((attempt.folder / claims.CLAIM).read_text())
    (attempt.folder / claims.CLAIM).write_text(json.dumps({**content, "started": "1"}))
    assert state(run) == "lost"


def test_holder_without_heartbeat_is_superseded_and_cannot_commit(run: Path) -> None:
    first = foreign(run)
    work(first)
    stop_heartbeat(first)
    assert "sent no heartbeat" in run_status(run, probe(run)).message
    second = claim(run)
    assert first.is_superseded()
    assert not second.is_superseded()
    work(second)
    write_result(second)
    write_result(first)
    assert second.commit()
    assert not first.commit()
    assert json.loads((run / files.RESULT).read_text())["by"] == 2
    claims.end(first.folder, "failed", "its folder is gone")
    assert not (run / files.ATTEMPTS).exists()


def test_superseded_holder_that_wakes_and_commits_first_wins(run: Path) -> None:
    first = foreign(run)
    work(first)
    stop_heartbeat(first)
    second = claim(run)
    work(second)
    write_result(first)
    write_result(second)
    assert first.commit()
    assert second.is_superseded()
    assert not second.commit()
    second.release()
    assert json.loads((run / files.RESULT).read_text())["by"] == 1
    assert [(entry["number"], entry["state"]) for entry in claims.history(run)] == [(1, "done")]
    assert not (run / files.ATTEMPTS).exists()


def test_process_of_this_machine_without_heartbeat_is_alive_unless_it_is_suspended(run: Path) -> None:
    pid = os.fork()
    if pid == 0:
        claim(run)
        signal.pause()
    try:
        while state(run) != "running":
            time.sleep(0.01)
        stop_heartbeat(claims.Attempt(run, 1, liveness.this_process("worker", SILENT)))
        assert state(run) == "running"
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED)
        assert state(run) == "lost"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_heartbeat_shows_life_and_notices_that_the_holder_is_superseded(run: Path) -> None:
    me = replace(liveness.this_process("worker", 1.0), machine="another boot")
    first = acquire(run, me, probe(run))
    stop_heartbeat(first)
    with first:
        beaten = False
        for _ in range(600):
            beaten = beaten or state(run) == "running"
            if beaten:
                break
            first.superseded.wait(0.05)
        assert beaten
        (run / files.ATTEMPTS / "2").mkdir()
        assert first.superseded.wait(60)


def test_attempt_numbers_are_never_reused(run: Path) -> None:
    first = claim(run)
    work(first)
    write_result(first)
    assert first.commit()
    assert not (run / files.ATTEMPTS).exists()
    second = claim(run, fresh=True)
    assert second.number == 2
    files.clear(run)
    work(second)
    write_result(second)
    assert second.commit()
    assert [(entry["number"], entry["state"]) for entry in claims.history(run)] == [(1, "done"), (2, "done")]
    assert claim(run, fresh=True).number == 3


def test_fresh_attempt_inherits_nothing(run: Path) -> None:
    first = claim(run)
    work(first)
    claims.end(first.folder, "failed", "it did")
    second = claim(run, fresh=True)
    assert files.read_rows(second.folder) == []
    assert os.listdir(second.folder / "checkpoints") == []


def test_history_has_every_attempt(run: Path) -> None:
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
    write_result(last)
    assert last.commit()
    recorded = json.loads((run / files.PROVENANCE).read_text())
    assert recorded["by"] == 4
    assert [(entry["number"], entry["state"]) for entry in recorded["attempts"]] == [
        (1, "failed"), (2, "interrupted"), (3, "lost"), (4, "done"),
    ]  # fmt: skip
    assert recorded["attempts"][0]["message"] == "failed, it said"
    assert "died" in recorded["attempts"][2]["message"]
    assert recorded["attempts"][3]["pid"] == os.getpid()


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


def test_holder_on_another_machine_is_judged_by_its_heartbeat(run: Path) -> None:
    attempt = foreign(run, pid=1)
    assert state(run) == "running"
    stop_heartbeat(attempt)
    assert state(run) == "lost"


@pytest.mark.parametrize(
    ("said", "late", "expected"),
    [
        ({"12_3": "RUNNING"}, True, "running"),
        ({"12_3": "COMPLETING"}, True, "running"),
        ({"12_3": "NODE_FAIL"}, True, "lost"),
        ({"12_3": "SUSPENDED"}, True, "running"),
        ({"12_3": "PENDING"}, True, "lost"),  # requeued, so not executing
        ({"12_4": "RUNNING"}, True, "lost"),
        (None, True, "running"),
        ({"12_3": "NODE_FAIL"}, False, "running"),  # Slurm is not asked yet
    ],
)
def test_holder_under_slurm_is_judged_by_its_job_once_its_heartbeat_is_late(
    said: dict[str, str] | None, late: bool, expected: str, run: Path
) -> None:
    attempt = foreign(run, slurm="12_3")
    stop_heartbeat(attempt, SILENT / 2 if late else SILENT / 10)
    assert run_status(run, probe(run, said)).state == expected


def test_released_claim_leaves_nothing(run: Path) -> None:
    claim(run).release()
    assert os.listdir(run) == []
    assert state(run) == "queued"
