"""One of four runs ends badly, in every way: the others finish, and what happened is known."""

import subprocess
from pathlib import Path

import pytest
from real import FULL, SMALL, figure, folders, launch, standing, surroundings

from hidden_subnet import record

pytestmark = pytest.mark.slow
# The fault strikes the one run when it writes a row, from within (injected/sitecustomize.py).
BAD = "pr0.4"
WHERE = {"event": "open", "path": r"pr0\.4-\S+/attempts/1/metrics\.jsonl a$"}
SWEEP = ["-m", "prune_rate=0.2,0.3,0.4,0.6", *SMALL]
# How it ends, and what the summary says of it.
ENDS = {
    "exception": ("failed", "RuntimeError: injected"),
    "exception at its start": ("failed", "RuntimeError: injected"),
    "unpicklable": ("failed", "UnpicklableError: injected"),
    "sys.exit": ("failed", "SystemExit: injected"),
    "memory": ("failed", "MemoryError"),
    "SIGKILL": ("lost", "died of SIGKILL"),
    "segfault": ("lost", "died of SIGSEGV"),
    "_exit with 0": ("lost", "exit code 0"),
}


def the_bad_run(cwd: Path, said: "subprocess.CompletedProcess[str]", fault: str) -> Path:
    """Its folder; the others are done, its state and the summary are right, and the exit code is 1."""
    state, message = ENDS[fault]
    assert said.returncode == 1, fault + said.stdout + said.stderr
    states = {folder.name: standing(folder).state for folder in folders(cwd)}
    [bad] = [folder for folder in folders(cwd) if BAD in folder.name]
    assert states.pop(bad.name) == state, fault
    assert list(states.values()) == ["done"] * 3, fault
    line = next(line for line in said.stdout.splitlines() if line.startswith(f"{state}: {bad.name}"))
    assert message in line, fault
    return bad


def test_f08_every_bad_end(tmp_path: Path) -> None:
    right = 0
    for number, (fault, (state, _)) in enumerate(ENDS.items()):
        cwd = tmp_path / str(number)
        once = str(tmp_path / f"once {number}")
        where = WHERE | {"path": WHERE["path"].replace(" a$", " r$")} if "start" in fault else WHERE
        said = launch(cwd, *SWEEP, env=surroundings({"do": fault.split()[0], **where, "once": once}))
        bad = the_bad_run(cwd, said, fault)
        if state == "failed":
            error = record.working(bad) / record.ERROR
            assert error.read_text().splitlines()[0] == "Traceback (most recent call last):"
            assert str(error) in said.stdout
        if fault == "segfault":
            assert "Fatal Python error: Segmentation fault" in (record.working(bad) / record.LOG).read_text()
        if FULL or number == 0:
            again = launch(cwd, *SWEEP)
            assert again.returncode == 0, again.stdout + again.stderr
            assert {standing(folder).state for folder in folders(cwd)} == {"done"}
        right += 1
    figure(
        f"F8 local: {', '.join(ENDS)}: "
        f"the others finish, state, traceback, summary and exit code are right {right}/{len(ENDS)}"
    )
    assert right == len(ENDS)


def test_f08_on_error_stop(tmp_path: Path) -> None:
    fault = {"do": "exception", **WHERE, "path": WHERE["path"].replace("4", "3")}
    said = launch(tmp_path, *SWEEP, "on_error=stop", "hydra.launcher.workers=1", env=surroundings(fault))
    assert said.returncode == 1
    assert "on_error=stop" in said.stdout
    states = sorted(standing(folder).state for folder in folders(tmp_path))
    assert states == ["done", "failed"]  # and two were not begun
    figure("F8 on_error=stop: ends the sweep after the first failure 1/1")
