"""Runs that are killed, and files that are damaged: the same command ends with the bits of an undisturbed run."""

import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.real_commands import (
    FULL,
    ROOT,
    attempts,
    difference,
    ended,
    figure,
    folders,
    launch,
    start,
    status_of,
    surroundings,
)
from helpers.runs import tensor_byte

from hidden_subnet.store import checkpoints, files

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
# 24 steps an epoch, with random order, crop and flip to go on with.
RUN = ["data=synthetic", "model.width=0.125", "train.epochs=3", "train.batch_size=20", "data.crop=1", "data.flip=true"]
RUN += ["tracker=none", "train.threads=1"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run that nothing disturbed, and its batches: t and e."""
    base = tmp_path_factory.mktemp("whole")
    subprocess.run([sys.executable, HERE / "killed_at.py", "0", "batches", *RUN], cwd=base, check=True)
    [folder] = folders(base)
    return folder, (base / "batches").read_text()


def killed(cwd: Path, batch: int, *arguments: str) -> Path:
    run = start(cwd, str(HERE / "killed_at.py"), str(batch), "batches", *RUN, *arguments)
    said = ended(run)
    assert run.returncode == -signal.SIGKILL, said
    [folder] = folders(cwd)
    assert status_of(folder).state == "lost"
    return folder


def test_f01_sigkill_in_random_batches(tmp_path: Path, whole: tuple[Path, str]) -> None:
    undisturbed, batches = whole
    rng, trials = random.Random(1), 30 if FULL else 3
    same = evaluating = 0
    for trial in range(trials):
        # Every third in an evaluation, which few batches are.
        choice = [n for n, letter in enumerate(batches, 1) if trial % 3 or letter == "e"]
        batch = rng.choice(choice)
        evaluating += batches[batch - 1] == "e"
        minutes = "checkpoint.minutes=" + ("0" if trial % 2 else "0.0005")  # at every step, and every 30 ms
        folder = killed(tmp_path / str(trial), batch, minutes)
        again = launch(tmp_path / str(trial), *RUN, minutes)
        assert again.returncode == 0, again.stdout + again.stderr
        assert attempts(folder) == [(1, "lost"), (2, "done")]
        same += difference(folder, undisturbed) == ""
    # The control: the position in the data is forgotten, and the order of the epoch begins again.
    control = tmp_path / "control"
    folder = killed(control, len(batches) * 2 // 3, "checkpoint.minutes=0")
    path = files.working(folder) / "checkpoints" / files.RESUME
    state = checkpoints.load(path)
    assert state["batch"] > 0
    checkpoints.save(path, {**state, "batch": 0})
    assert launch(control, *RUN).returncode == 0
    differs = difference(folder, undisturbed) != ""
    figure(
        f"F1: bit-identical {same}/{trials} after SIGKILL in random batches ({evaluating} in an evaluation), "
        f"control without the position in the data differs {int(differs)}/1"
    )
    assert same == trials
    assert differs


def test_f02_sigkill_at_every_boundary(tmp_path: Path) -> None:
    stride = 1 if FULL else 12
    said = subprocess.run(
        [sys.executable, HERE / "every_boundary.py", tmp_path / "base", str(stride)],
        env={**surroundings(), "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    scenes = json.loads(said.stdout)
    kills = sum(scene["kills"] for scene in scenes.values())
    wrong = {name: scene["wrong"] for name, scene in scenes.items() if scene["wrong"]}
    bad = sum(map(len, wrong.values()))
    parts = ", ".join(f"{name}: {scene['boundaries']} boundaries" for name, scene in scenes.items())
    figure(f"F2: old or new state, and the same bits at the end, {kills - bad}/{kills} kills ({parts})")
    assert not wrong, said.stderr
    assert kills >= 30


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[tensor_byte(path)] ^= 1 << 5
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def test_f03_damaged_checkpoints(tmp_path: Path, whole: tuple[Path, str]) -> None:
    undisturbed, batches = whole
    base = tmp_path / "base"
    # Copies of a run have the same dead process; the first to be taken over removes its mark, then only silence tells.
    killed(base, len(batches) // 2, "checkpoint.minutes=0", "claim.silent_seconds=1")
    cases: list[tuple[Callable[[Path], None], Callable[[Path], None] | None]] = [
        (flip_a_bit, None), (cut, None), (empty, None), (cut, flip_a_bit),
    ]  # fmt: skip
    cases = cases if FULL else [cases[0], cases[-1]]
    trials, detected, same = len(cases), 0, 0
    for number, (damage, to_older) in enumerate(cases):
        cwd = tmp_path / str(number)
        shutil.copytree(base, cwd)
        [folder] = folders(cwd)
        newest = files.working(folder) / "checkpoints" / files.RESUME
        damage(newest)
        if to_older:
            to_older(newest.with_name(f"{files.RESUME}.old"))
        again = launch(cwd, *RUN)
        assert again.returncode == 0, again.stdout + again.stderr
        detected += ("starts from the beginning" if to_older else "resumes from the one before it") in again.stdout
        same += difference(folder, undisturbed) == ""
    figure(f"F3: damaged checkpoints detected {detected}/{trials}, bit-identical at the end {same}/{trials}")
    assert detected == same == trials
