"""Two users and one folder of runs: with umask 022 the second is told why not, with umask 002 they share it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.hostile_environments import as_user
from helpers.real_commands import LAUNCH, TIMEOUT, figure

pytestmark = pytest.mark.slow
SMALL = ["data=digits", "model=fc", "model.width=0.125", "train.epochs=1", "train.threads=1", "tracker=none"]
GROUP = 20200


def command(folder: Path, user: int, umask: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    line = [*as_user(user, GROUP), sys.executable, *arguments]
    return subprocess.run(
        ["sh", "-c", f'umask {umask}; exec "$@"', "sh", *line],
        cwd=folder, env={**os.environ, "HOME": "/nowhere", "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=TIMEOUT,
    )  # fmt: skip


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not one of pytest's folders, which are closed to others."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        (folder / "runs").mkdir()
        os.chown(folder / "runs", 0, GROUP)
        (folder / "runs").chmod(0o2775)
        yield folder


def test_f29_the_second_user_learns_whose_folder_it_is(folder: Path) -> None:
    out = f"out={folder}/runs"
    first = command(folder, 12345, "022", str(LAUNCH), "-m", "seed=0,1", *SMALL, out)
    assert first.returncode == 0, first.stdout + first.stderr
    [done, _] = sorted(folder.glob("runs/digits-*"))
    refused = [
        command(folder, 12346, "022", str(LAUNCH), "-m", "seed=0,1,2", *SMALL, out),
        command(folder, 12346, "022", str(LAUNCH), "seed=0", "force=true", *SMALL, out),
        command(folder, 12346, "022", "-m", "hidden_subnet", "results", f"{folder}/runs"),
        command(folder, 12346, "022", "-m", "hidden_subnet", "rm", done.name, "--yes", "--out", f"{folder}/runs"),
        command(folder, 12346, "022", "-m", "hidden_subnet", "export", str(done)),
    ]
    for said in refused:
        lines = [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, said.stdout + said.stderr
        assert "belongs to user 12345, and user 12346 may not write there; " in lines[0]
        assert "umask 002" in lines[0]
        assert said.returncode == 1
    assert len(list(folder.glob("runs/digits-*"))) == 2  # nothing began
    # What only reads works, and what writes does so elsewhere.
    (folder / "mine").mkdir()
    os.chown(folder / "mine", 12346, GROUP)
    again = command(folder, 12346, "022", str(LAUNCH), "seed=0", *SMALL, out)
    assert again.returncode == 0, again.stdout + again.stderr
    shown = command(folder, 12346, "022", "-m", "hidden_subnet", "results", "runs", "--out", "mine")
    assert shown.returncode == 0, shown.stderr
    assert (folder / "mine" / "results.csv").exists()
    asked = ("controls", str(done), "--seeds", "1", "--out", "mine")
    shown = command(folder, 12346, "022", "-m", "hidden_subnet", *asked)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert (folder / "mine" / f"{done.name}.controls.json").exists()
    assert not (done / "controls.json").exists()
    figure(f"F29 a second user and umask 022: told whose folder, before it runs {len(refused)}/5; reads 3/3")


def test_f29_umask_002_shares_a_folder(folder: Path) -> None:
    out = f"out={folder}/runs"
    for user, seeds in ((12345, "0,1"), (12346, "0,1,2")):
        said = command(folder, user, "002", str(LAUNCH), "-m", f"seed={seeds}", *SMALL, out)
        assert said.returncode == 0, said.stdout + said.stderr
    said = command(folder, 12346, "002", str(LAUNCH), "seed=0", "force=true", *SMALL, out)
    assert said.returncode == 0, said.stdout + said.stderr
    figure("F29 setgid and umask 002: a second user continues, and repeats, the runs of the first 2/2")


def test_f30_links_that_another_user_plants_in_a_run_are_not_followed(folder: Path) -> None:
    out, private = f"out={folder}/runs", folder / "private"
    settings = [*SMALL[:-1], "tracker=tensorboard", out]
    assert command(folder, 12345, "002", str(LAUNCH), *settings).returncode == 0
    [run] = folder.glob("runs/digits-*")
    private.mkdir(mode=0o700)
    for name in ("last.ckpt", "first.ckpt", "keep"):
        (private / name).write_text("of root")
    before = {path: (path.read_text(), path.stat().st_ctime_ns) for path in private.iterdir()}
    plant = "for each in checkpoints tensorboard wandb; do rm -rf $each; ln -s ../../private $each; done"
    subprocess.run([*as_user(12345, GROUP), "sh", "-c", f"cd {run} && {plant}"], check=True)
    for asked in ([*settings, "force=true"], [f"evaluate={run}"]):  # as root, who may read and write all
        said = subprocess.run(
            [sys.executable, str(LAUNCH), *asked],
            cwd=folder, capture_output=True, text=True, timeout=TIMEOUT,
        )  # fmt: skip
        lines = [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("error: ")]
        assert said.returncode == 1
        assert len(lines) == 1
        assert "is a symbolic link, which is neither read nor written here; remove it" in lines[0]
        assert "Traceback" not in said.stderr
    assert {path: (path.read_text(), path.stat().st_ctime_ns) for path in private.iterdir()} == before
    figure("F30 links planted in a run, then force=true and evaluate= as root: refused 2/2, nothing followed")
