"""A file server that does not answer: for some seconds no sweep ends, no run fails, none is executed twice; and who
waits for it ends by SIGTERM."""

import signal
import time
from pathlib import Path

import pytest
from helpers.real_commands import (
    FULL,
    LAUNCH,
    SMALL,
    attempts,
    ended,
    figure,
    folders,
    holder_pid,
    rows,
    start,
    status_of,
    surroundings,
    wait_until,
)

pytestmark = pytest.mark.slow
SECONDS = 4.0
SHARED = (
    r"(^|/)(attempts|stop|manifest\.json|result\.json|claim\.json|ended\.json|config\.yaml|metrics\.jsonl|log)( |$)"
)
RUNS = ["-m", "seed=0,1,2,3,4", "hydra.launcher.workers=2", *SMALL, "train.epochs=60"]


@pytest.mark.parametrize("code", ["EIO", "ESTALE", "ETIMEDOUT"] if FULL else ["EIO"])
def test_f31_server_that_does_not_answer(code: str, tmp_path: Path) -> None:
    away = tmp_path / "away"
    fault = {"do": code, "event": "open os.listdir", "path": SHARED, "during": str(away), "seconds": SECONDS}
    sweep = start(tmp_path, str(LAUNCH), *RUNS, env=surroundings(fault))
    wait_until(lambda: [folder for folder in folders(tmp_path) if rows(folder) > 3], "a run")
    away.touch()
    said = ended(sweep)
    assert sweep.returncode == 0, said
    assert said.count("some files cannot be read now") == 1, said
    done = [attempts(folder) for folder in folders(tmp_path)]
    figure(f"F31 ({code} for {SECONDS:.0f} s): {len(done)}/5 runs done, {sum(map(len, done)) - 5} executed again")
    assert done == [[(1, "done")]] * 5


@pytest.mark.parametrize("command", ["launch", "status", "results", "logs"])
def test_sigterm_ends_who_waits_for_a_silent_server(command: str, tmp_path: Path) -> None:
    """The reader, and the command that waits for another worker's run; the run itself goes on."""
    away = tmp_path / "away"
    fault = {"do": "silence", "event": "open os.listdir", "path": SHARED, "during": str(away), "seconds": 1e6}
    endless = ["-m", "seed=0", "hydra.launcher.workers=1", *SMALL, "train.epochs=1000000"]
    worker = start(tmp_path, str(LAUNCH), *endless)
    try:
        wait_until(lambda: [folder for folder in folders(tmp_path) if rows(folder) > 1 and holder_pid(folder)], "a run")
        [run] = folders(tmp_path)
        commands = {
            "launch": [str(LAUNCH), *endless],
            "status": ["-m", "hidden_subnet", "status", "--watch"],
            "results": ["-m", "hidden_subnet", "results"],
            "logs": ["-m", "hidden_subnet", "logs", "-f", run.name],
        }
        if command == "results":
            away.touch()
        reader = start(tmp_path, *commands[command], env=surroundings(fault))
        assert reader.stdout is not None
        if command != "results":
            while command == "launch" and "waiting for 1 run" not in reader.stdout.readline():
                assert reader.poll() is None
            away.touch()
        time.sleep(5)  # it has met the silence, or does so after the signal
        reader.send_signal(signal.SIGTERM)
        said = ended(reader)
        assert reader.returncode in (130, -signal.SIGTERM), said
        assert worker.poll() is None
    finally:
        worker.terminate()
        assert ended(worker)
    assert status_of(run).state == "interrupted"
