"""A full disk and a folder that cannot be written: one clear line, and nothing that was saved is lost."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from helpers.real_commands import LAUNCH, SMALL, difference, figure, folders, is_one_line, launch

from hidden_subnet.store import checkpoints, files

pytestmark = pytest.mark.slow
# 0.1 MB what is trained, and again its momentum.
RUN = ["data=synthetic", "model=conv2", "model.width=0.25", "train.epochs=3", "train.threads=1", "tracker=none"]
RUN += ["checkpoint.minutes=0"]
# Root may read everything, unless it lays that right down.
DROP = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
UNPRIVILEGED = DROP if os.geteuid() == 0 else []


def mount(stack: ExitStack, *arguments: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    subprocess.run(["mount", *arguments], check=True)
    stack.callback(subprocess.run, ["umount", "-l", arguments[-1]], check=True)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as open_until_the_end:
        yield open_until_the_end


def test_f04_full_disk(tmp_path: Path, stack: ExitStack) -> None:
    whole = launch(tmp_path / "whole", *RUN)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    cwd = tmp_path / "full"
    (cwd / "runs").mkdir(parents=True)
    mount(stack, "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(cwd / "runs"))
    ballast = cwd / "runs" / "ballast"
    clear = intact = 0
    reached: list[int] = []
    sizes = (2_000, 1_900, 1_700, 1_500, 1_300)
    for kilobytes in sizes:  # ever more room, so that it fails ever later
        ballast.write_bytes(b"x" * kilobytes * 1024)
        said = launch(cwd, *RUN)
        if said.returncode == 0:
            break
        clear += is_one_line(said, "No space left on device")
        saved = [checkpoints.load_newest(files.working(folder) / "checkpoints" / files.RESUME)
                 for folder in folders(cwd)]  # fmt: skip
        intact += all(complaints == [] for _, complaints in saved)
        reached.append(saved[0][0]["step"] if saved and saved[0][0] else 0)
    failed = len(reached)
    assert reached == sorted(reached)  # nothing saved was lost
    ballast.unlink()
    again = launch(cwd, *RUN)
    assert again.returncode == 0, again.stdout + again.stderr
    [folder] = folders(cwd)
    same = difference(folder, folders(tmp_path / "whole")[0]) == ""
    # A sweep whose runs cannot even begin ends, and says why.
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    sweep = launch(cwd, "-m", "prune_rate=0.2,0.3", *SMALL)
    assert sweep.returncode not in (0, None)
    assert "Traceback" not in sweep.stdout + sweep.stderr, sweep.stdout + sweep.stderr
    assert "No space left on device" in sweep.stdout + sweep.stderr
    figure(
        f"F4 full disk: one clear line and exit code not 0 {clear}/{failed}, "
        f"earlier checkpoint whole {intact}/{failed}, with room again bit-identical {int(same)}/1; "
        f"a sweep ends with the reason 1/1"
    )
    assert failed >= 1
    assert clear == intact == failed
    assert same


def test_f04_read_only_folder(tmp_path: Path, stack: ExitStack) -> None:
    assert launch(tmp_path, *SMALL).returncode == 0
    runs = str(tmp_path / "runs")
    mount(stack, "--bind", runs, runs)
    subprocess.run(["mount", "-o", "remount,ro,bind", runs], check=True)
    commands = [["seed=1", *SMALL], ["-m", "seed=1,2", *SMALL]]
    clear = sum(is_one_line(launch(tmp_path, *command), "error: ") for command in commands)
    figure(f"F4 read-only folder: one clear line and exit code not 0 {clear}/{len(commands)}")
    assert clear == len(commands)


def test_f04_run_folder_that_may_not_be_read(tmp_path: Path) -> None:
    """The others of its sweep are done, and every command that looks says which it is; then it is well again."""
    command = ["-m", "seed=1,2", *SMALL]
    assert launch(tmp_path, *command).returncode == 0
    [closed, _] = folders(tmp_path)
    os.chmod(closed, 0)
    try:
        for asked in (
            ["launch", *command],
            ["launch", *command, "plan=true"],
            ["status"],
            ["status", "seed"],
            ["results"],
        ):
            if asked[0] == "launch":
                line = [sys.executable, str(LAUNCH), *asked[1:]]
            else:
                line = [sys.executable, "-m", "hidden_subnet", *asked]
            said = subprocess.run([*UNPRIVILEGED, *line], cwd=tmp_path, capture_output=True, text=True, timeout=120)
            assert "Traceback" not in said.stdout + said.stderr, said.stderr
            assert said.returncode == (1 if asked == ["launch", *command] else 0), (asked, said.stdout + said.stderr)
    finally:
        os.chmod(closed, 0o755)
    assert launch(tmp_path, *command).returncode == 0
