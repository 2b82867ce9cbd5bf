"""Signals: a run that is asked to stop loses nothing, and one that is stopped for a while and wakes spoils nothing."""

import os
import signal
import time
from pathlib import Path

import pytest
from helpers.real_commands import (
    LAUNCH,
    LONG,
    SMALL,
    assert_settled,
    attempts,
    difference,
    ended,
    figure,
    folders,
    holder_pid,
    launch,
    rows,
    runs_of_sweep,
    start,
    status_of,
    surroundings,
    wait_until,
)

from hidden_subnet.store import checkpoints, files

pytestmark = pytest.mark.slow
SILENT = "claim.silent_seconds=2"


def test_f05_asked_to_stop(tmp_path: Path) -> None:
    endless = [*LONG, "train.epochs=100000", "checkpoint.minutes=60"]
    seconds, lost = {}, {}
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        cwd = tmp_path / number.name
        run = start(cwd, str(Path(__file__).parent / "killed_at.py"), "0", "batches", *endless)
        wait_until(lambda cwd=cwd: folders(cwd) and rows(folders(cwd)[0]) >= 3, "three epochs")
        began = time.monotonic()
        run.send_signal(number)
        said = ended(run)
        seconds[number.name] = time.monotonic() - began
        assert run.returncode == 130, said
        assert "the same command" in said
        [folder] = folders(cwd)
        assert status_of(folder).state == "interrupted"
        state = checkpoints.load(files.working(folder) / "checkpoints" / files.RESUME)
        lost[number.name] = (cwd / "batches").read_text().count("t") - state["step"]
    cwd = tmp_path / "sweep"
    sweep = start(cwd, str(LAUNCH), "-m", "seed=0,1", "hydra.launcher.workers=2", *endless)
    wait_until(lambda: sum(rows(folder) >= 3 for folder in folders(cwd)) == 2, "two runs")
    began = time.monotonic()
    os.killpg(sweep.pid, signal.SIGTERM)
    said = ended(sweep)
    seconds["a sweep"] = time.monotonic() - began
    assert sweep.returncode == 130, said
    assert {status_of(folder).state for folder in folders(cwd)} == {"interrupted"}
    told = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    figure(f"F5: steps lost {sum(lost.values())} in {len(lost)} signals; until the exit: {told}")
    assert set(lost.values()) == {0}


def test_f17_stopped_owner_is_taken_over_and_wakes(tmp_path: Path) -> None:
    """The owner and its launcher are stopped in the middle of a run; a worker from another shell does the run."""
    runs = [*LONG, "train.epochs=60", "checkpoint.minutes=0.0005", SILENT]
    assert launch(tmp_path / "whole", "-m", "seed=0,1", *runs).returncode == 0
    cwd = tmp_path / "stopped"
    sweep = start(cwd, str(LAUNCH), "-m", "seed=0,1", "hydra.launcher.workers=2", *runs)
    wait_until(lambda: sum(rows(folder) >= 3 for folder in folders(cwd)) == 2, "two runs")
    stopped = folders(cwd)[0]
    asleep = [sweep.pid, holder_pid(stopped)]
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    worker = start(cwd, "-m", "hidden_subnet", "worker", str(runs_of_sweep(cwd)))
    said = ended(worker)
    assert worker.returncode == 0, said
    assert all((folder / files.RESULT).exists() for folder in folders(cwd))
    before = (stopped / files.RESULT).stat()
    for pid in reversed(asleep):
        os.kill(pid, signal.SIGCONT)
    said = ended(sweep)
    assert sweep.returncode == 0, said
    wait_until(lambda: not Path(f"/proc/{asleep[1]}").exists(), "the end of the owner that woke")
    after = (stopped / files.RESULT).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert attempts(stopped) == [(1, "lost"), (2, "done")]
    for mine, undisturbed in zip(folders(cwd), folders(tmp_path / "whole"), strict=True):
        assert_settled(mine)
        assert difference(mine, undisturbed) == ""
    figure(
        "F17: stopped in the middle, taken over by another shell's worker, woken: nothing spoilt, committed once 1/1"
    )


# Where the owner is stopped: the audit event, and what its paths match.
PLACES = {
    "before its claim": ("os.rename", r"attempts/\.\w+ \S+attempts/1$"),
    "before its commit": ("os.link", r"attempts/1/result\.json \S+/result\.json$"),
    "before its files go up": ("open", r"attempts/1/provenance\.json r$"),
    "within that": ("os.rename", r"attempts/1/checkpoints/best\.ckpt \S+/checkpoints/best\.ckpt$"),
    "before its folder goes": ("os.rename", r"attempts/1 \S+attempts/\.\w+$"),
}


def test_f17_stopped_at_the_worst_moments(tmp_path: Path) -> None:
    runs = [*SMALL, SILENT, "checkpoint.minutes=0"]
    assert launch(tmp_path / "whole", *runs).returncode == 0
    [undisturbed] = folders(tmp_path / "whole")
    unspoilt = 0
    for number, (event, path) in enumerate(PLACES.values()):
        cwd, reached = tmp_path / str(number), tmp_path / f"reached {number}"
        env = surroundings({"do": "SIGSTOP", "event": event, "path": path, "once": str(reached)})
        first = start(cwd, str(LAUNCH), *runs, env=env)
        wait_until(reached.exists, f"at {path}")
        wait_until(lambda pid=first.pid: _is_stopped(pid), "stopped")
        end = time.monotonic() + 120
        while (again := launch(cwd, *runs)).returncode != 0:
            assert "is being executed by" in again.stdout, again.stdout + again.stderr
            assert time.monotonic() < end
        [folder] = folders(cwd)
        before = (folder / files.RESULT).stat()
        os.kill(first.pid, signal.SIGCONT)
        said = ended(first)
        assert "Traceback" not in said
        after = (folder / files.RESULT).stat()
        assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
        assert [state for _, state in attempts(folder)].count("done") == 1
        assert_settled(folder)
        unspoilt += difference(folder, undisturbed) == ""
    figure(
        f"F17: stopped {', '.join(PLACES)}, and woken after another has done the run: unspoilt {unspoilt}/{len(PLACES)}"
    )
    assert unspoilt == len(PLACES)


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
