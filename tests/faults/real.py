"""Real launches, workers and kills for the fault tests, and what makes two runs the same."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from hidden_subnet import checkpoints, claims, record
from hidden_subnet.claims import Standing
from hidden_subnet.owners import Observer

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch.py"
FULL = os.environ.get("HIDDEN_SUBNET_FAULTS") == "full"
"""As many trials as the README's table has; a few otherwise."""
TIMEOUT = 300
"""Seconds; generous: it only tells a hang."""
SMALL = ["data=synthetic", "model.width=0.125", "train.epochs=2", "train.threads=1", "tracker=none"]
LONG = ["data=synthetic", "model.width=0.5", "train.epochs=25", "train.threads=1", "tracker=none"]
TIMES = {"seconds", "images_per_second"}


def figure(line: str) -> None:
    """Tell a figure of the README's reliability table."""
    print(line)
    if path := os.environ.get("HIDDEN_SUBNET_FIGURES"):
        with Path(path).open("a") as file:
            file.write(line + "\n")


def surroundings(fault: dict[str, Any] | None = None, **more: str) -> dict[str, str]:
    """The environment of a command; `fault`: what injected/sitecustomize.py does in each of its processes."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    if fault is not None:
        env["HIDDEN_SUBNET_FAULT"] = json.dumps(fault)
        env["PYTHONPATH"] = str(Path(__file__).parent / "injected")
    return env


def launch(cwd: Path, *arguments: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    cwd.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, str(LAUNCH), *arguments],
        cwd=cwd, env=env or surroundings(), capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip


def start(cwd: Path, *command: str, env: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    """`command` after `python`, in a session of its own."""
    cwd.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd, env=env or surroundings(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def ended(process: "subprocess.Popen[str]") -> str:
    said, _ = process.communicate(timeout=TIMEOUT)
    return said


def wait_until(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.01)


def folders(cwd: Path) -> list[Path]:
    """Of the runs that have begun."""
    return sorted(path.parent for path in (cwd / "runs").glob("*/config.yaml"))


def standing(folder: Path) -> Standing:
    return claims.standing(folder, Observer(folder.parent))


def owner(folder: Path) -> int:
    """The process that executes the run; 0 where none does."""
    return claims.owner_pid(record.working(folder)) or 0


def rows(folder: Path) -> int:
    return record.count_rows(record.working(folder))


def attempts(folder: Path) -> list[tuple[int, str]]:
    """Number and state of the attempts at a run that is done."""
    return [(entry["number"], entry["state"]) for entry in claims.history(folder)]


def difference(one: Path, other: Path) -> str:
    """What of two runs that are done is not the same to the bit, times and hosts aside; "" if all is."""
    for which in (record.FIRST, record.BEST, record.LAST):
        a, b = (checkpoints.load(folder / "checkpoints" / which)["trained"] for folder in (one, other))
        if a.keys() != b.keys() or not all(torch.equal(a[key], b[key]) for key in a):
            return which
    a, b = (_without_times(record.read_rows(folder)) for folder in (one, other))
    if a != b:
        return record.METRICS
    a, b = (_outcome(folder) for folder in (one, other))
    return "" if a == b else record.RESULT


def _without_times(rows: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def _outcome(folder: Path) -> dict[str, Any]:
    result = record.read_result(folder)
    assert result is not None
    return {key: value for key, value in result.items() if key not in (*TIMES, "environment")}


def assert_settled(folder: Path) -> None:
    """Nothing of a run that is done lies elsewhere than in its place."""
    assert not (folder / record.ATTEMPTS).exists()
    there = {path.name for path in folder.iterdir()}
    assert {record.CONFIG, record.METRICS, record.RESULT, record.PROVENANCE, record.LOG, "checkpoints"} <= there
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {record.FIRST, record.BEST, record.LAST}
    numbers = [number for number, _ in attempts(folder)]
    assert numbers == sorted(set(numbers))
    assert attempts(folder)[-1][1] == "done"
    epochs = [line for line in (folder / record.LOG).read_text().splitlines() if line.startswith("epoch=")]
    assert len({line.split()[0] for line in epochs}) == len(record.read_rows(folder))


def runs_of_sweep(cwd: Path) -> Path:
    """The folder of the one sweep."""
    [manifest] = (cwd / "runs").glob(".sweeps/*/manifest.json")
    return manifest.parent
