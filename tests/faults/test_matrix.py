"""One of four runs ends badly, in every possible way: the others finish, and the user learns what happened."""

from pathlib import Path

import pytest
from helpers.bad_ends import ENDS, SWEEP, WHERE, the_bad_run
from helpers.real_commands import FULL, figure, folders, launch, status_of, surroundings

from hidden_subnet.store import files

pytestmark = pytest.mark.slow


def test_f08_every_bad_end(tmp_path: Path) -> None:
    right = 0
    for number, (fault, (state, _)) in enumerate(ENDS.items()):
        cwd = tmp_path / str(number)
        once = str(tmp_path / f"once {number}")
        where = WHERE | {"path": WHERE["path"].replace(" a$", " r$")} if "start" in fault else WHERE
        said = launch(cwd, *SWEEP, env=surroundings({"do": fault.split()[0], **where, "once": once}))
        bad = the_bad_run(cwd, said, fault)
        if state == "failed":
            error = files.working(bad) / files.ERROR
            assert error.read_text().splitlines()[0] == "Traceback (most recent call last):"
            assert str(error) in said.stdout
        if fault == "segfault":
            assert "Fatal Python error: Segmentation fault" in (files.working(bad) / files.LOG).read_text()
        if FULL or number == 0:
            again = launch(cwd, *SWEEP)
            assert again.returncode == 0, again.stdout + again.stderr
            assert {status_of(folder).state for folder in folders(cwd)} == {"done"}
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
    states = sorted(status_of(folder).state for folder in folders(tmp_path))
    assert states == ["done", "failed"]  # and two were not begun
    figure("F8 on_error=stop: ends the sweep after the first failure 1/1")
