"""Real commands, workers and kills for the fault tests, and the comparison of two runs."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from helpers import forked_launch
from helpers.forked_launch import TIMEOUT

from hidden_subnet.store import checkpoints, claims, files
from hidden_subnet.store.claims import RunStatus
from hidden_subnet.store.liveness import LivenessProbe

ROOT = Path(__file__).parents[2]
LAUNCH = forked_launch.LAUNCH
FULL = os.environ.get("HIDDEN_SUBNET_FAULTS") == "full"
"""Whether to make as many trials as docs/reliability.md states; a few otherwise."""
SMALL = ["data=synthetic", "model.width=0.125", "train.epochs=2", "train.threads=1", "tracker=none"]
LONG = ["data=synthetic", "model.width=0.5", "train.epochs=25", "train.threads=1", "tracker=none"]
TIMES = {"seconds", "images_per_second"}


def figure(line: str) -> None:
    """Print a figure of the table in docs/reliability.md, and append it to the file HIDDEN_SUBNET_FIGURES."""
    print(line)
    if path := os.environ.get("HIDDEN_SUBNET_FIGURES"):
        with Path(path).open("a") as file:
            file.write(line + "\n")


def surroundings(fault: dict[str, Any] | None = None, **more: str) -> dict[str, str]:
    """The environment of a command; `fault`: what faults/injected/sitecustomize.py does in each of its processes."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    if fault is not None:
        env["HIDDEN_SUBNET_FAULT"] = json.dumps(fault)
        env["PYTHONPATH"] = str(ROOT / "tests" / "faults" / "injected")
    return env


def launch(cwd: Path, *arguments: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run launch.py in these surroundings, by default those without a fault."""
    cwd.mkdir(exist_ok=True)
    return forked_launch.launch(cwd, *arguments, env=env or surroundings())


def command(cwd: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `python -m hidden_subnet`."""
    return forked_launch.launch(cwd, *arguments, script=forked_launch.PROGRAM)


def start(cwd: Path, *command: str, env: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    """Start `python` with these arguments in a session of its own."""
    cwd.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd, env=env or surroundings(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def ended(process: "subprocess.Popen[str]") -> str:
    said, _ = process.communicate(timeout=TIMEOUT)
    return said


def is_one_line(said: "subprocess.CompletedProcess[str]", word: str = "error: ") -> bool:
    """Refused, and told so in one line."""
    lines = [line for line in (said.stdout + said.stderr).splitlines() if word in line]
    return said.returncode not in (0, None) and len(lines) == 1 and "Traceback" not in said.stdout + said.stderr


def wait_until(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.01)


def folders(cwd: Path) -> list[Path]:
    """Folders of the runs that have started."""
    return sorted(path.parent for path in (cwd / "runs").glob("*/config.yaml"))


def status_of(folder: Path) -> RunStatus:
    return claims.run_status(folder, LivenessProbe(folder.parent))


def holder_pid(folder: Path) -> int:
    """Id of the process that executes the run; 0 if none does."""
    return claims.holder_pid(files.working(folder)) or 0


def rows(folder: Path) -> int:
    return files.count_rows(files.working(folder))


def attempts(folder: Path) -> list[tuple[int, str]]:
    """Number and state of the attempts at a run that is done."""
    return [(entry["number"], entry["state"]) for entry in claims.history(folder)]


def scores_of(folder: Path) -> str:
    """Digest of all that a finished run has trained, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(checkpoints.load(folder / "checkpoints" / files.LAST)["trained"].items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def difference(one: Path, other: Path) -> str:
    """Name of a file in which two finished runs differ in any bit, apart from times and hosts; "" if none does."""
    for which in (files.FIRST, files.BEST, files.LAST):
        a, b = (checkpoints.load(folder / "checkpoints" / which)["trained"] for folder in (one, other))
        if a.keys() != b.keys() or not all(torch.equal(a[key], b[key]) for key in a):
            return which
    a, b = (_without_times(files.read_rows(folder)) for folder in (one, other))
    if a != b:
        return files.METRICS
    a, b = (_outcome(folder) for folder in (one, other))
    return "" if a == b else files.RESULT


def _without_times(rows: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def _outcome(folder: Path) -> dict[str, Any]:
    result = files.read_result(folder)
    assert result is not None
    return {key: value for key, value in result.items() if key not in (*TIMES, "environment")}


def assert_settled(folder: Path) -> None:
    """Assert that a finished run has all its files in their final place, and no others."""
    assert not (folder / files.ATTEMPTS).exists()
    there = {path.name for path in folder.iterdir()}
    assert {files.CONFIG, files.METRICS, files.RESULT, files.PROVENANCE, files.LOG, "checkpoints"} <= there
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {files.FIRST, files.BEST, files.LAST}
    numbers = [number for number, _ in attempts(folder)]
    assert numbers == sorted(set(numbers))
    assert attempts(folder)[-1][1] == "done"
    epochs = [line for line in (folder / files.LOG).read_text().splitlines() if line.startswith("epoch=")]
    assert len({line.split()[0] for line in epochs}) == len(files.read_rows(folder))


def runs_of_sweep(cwd: Path) -> Path:
    """The folder of the only sweep."""
    [manifest] = (cwd / "runs").glob(".sweeps/*/manifest.json")
    return manifest.parent
