"""GPUs as slots of a machine, shared by processes that may be killed."""

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from helpers.real_commands import (
    LAUNCH,
    ROOT,
    SMALL,
    ended,
    figure,
    folders,
    holder_pid,
    rows,
    start,
    status_of,
    surroundings,
)

from hidden_subnet.config.settings import Config
from hidden_subnet.store import files, provenance, sweeps

pytestmark = pytest.mark.slow
# One of the runs that want a GPU: waits for a slot, says which and when, holds it for a while.
HOLDER = """
import os, sys, time
from pathlib import Path
from hidden_subnet.sweep.places import hold_one
folder, log, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
while (held := hold_one(["gpu0", "gpu1"], 1, folder)) is None:
    time.sleep(0.002)
file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.write(file, f"{time.monotonic()} enter {held[0]} {os.getpid()}\\n".encode())
time.sleep(seconds)
os.write(file, f"{time.monotonic()} leave {held[0]} {os.getpid()}\\n".encode())
"""


def test_f15_two_gpus_and_killed_holders(tmp_path: Path) -> None:
    rng, log = random.Random(15), tmp_path / "log"
    log.touch()
    runs = {}
    for number in range(8):
        # Every second one would hold its slot for ever, and is killed.
        seconds = 1000.0 if number % 2 else 0.3
        run = start(tmp_path, "-c", HOLDER, str(tmp_path / "locks"), str(log), str(seconds))
        runs[run.pid] = run, seconds
    killed: dict[int, float] = {}

    def holding() -> list[list[str]]:
        lines = [line.split() for line in log.read_text().splitlines()]
        over = {int(line[3]) for line in lines if line[1] == "leave"} | killed.keys()
        return [line for line in lines if line[1] == "enter" and int(line[3]) not in over]

    most = 0
    while len(log.read_text().splitlines()) < 8 + 4 or len(killed) < 4:
        now = holding()
        for gpu in ("gpu0", "gpu1"):
            most = max(most, sum(line[2] == gpu for line in now))
        for line in now:
            pid = int(line[3])
            if runs[pid][1] == 1000.0 and rng.random() < 0.2:
                killed[pid] = time.monotonic()
                os.kill(pid, signal.SIGKILL)
        assert all(run.poll() in (None, 0, -signal.SIGKILL) for run, _ in runs.values())
        time.sleep(0.05)
    for run, _ in runs.values():
        ended(run)
    # By what the holders wrote, which no look from outside can miss: each enters after the one before it is over.
    over = {int(pid): float(at) for at, what, _, pid in map(str.split, log.read_text().splitlines()) if what == "leave"}
    over |= killed
    entered = sorted((gpu, float(at), int(pid)) for at, what, gpu, pid in map(str.split, log.read_text().splitlines())
                     if what == "enter")  # fmt: skip
    waited = []
    for (gpu, _, pid), (other, at, _) in pairwise(entered):
        if gpu == other:
            assert at >= over[pid], "two held a GPU"
            if pid in killed:
                waited.append(at - over[pid])
    assert len(killed) == 4
    assert {gpu for gpu, _, _ in entered} == {"gpu0", "gpu1"}
    assert len(entered) == 8
    figure(
        f"F15: 8 runs on 2 GPU slots, {len(killed)} holders SIGKILLed: at most {most} holder a slot, "
        f"a killed one's slot is taken again within {1000 * max(waited):.0f} ms"
    )
    assert most == 1


# A worker whose machine has two GPUs, as far as CUDA_VISIBLE_DEVICES goes.
WORKER = """
import sys
from pathlib import Path
from hidden_subnet.store.sweeps import read
from hidden_subnet.sweep.processes import Slots
from hidden_subnet.sweep.worker import work
if __name__ == "__main__":
    work(read(Path(sys.argv[1])), Slots(count=4, threads=1, gpus=["0", "1"]), lambda jobs: None)
"""


def test_f15_each_run_sees_its_gpu(tmp_path: Path, compose: Callable[..., Config]) -> None:
    runs = [*SMALL, "train.epochs=40", "train.device=cpu", f"out={tmp_path / 'runs'}"]
    sweep = sweeps.write(
        sweeps.plan([compose(*runs, f"seed={seed}") for seed in range(8)], "gpus"), provenance.of_command()
    )
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    env = surroundings(TMPDIR=str(tmp_path), CUDA_VISIBLE_DEVICES="0,1", PYTHONPATH=str(ROOT))
    worker = start(tmp_path, str(script), str(sweep.folder), env=env)
    most, killed = 0, ""
    while worker.poll() is None:
        held: dict[str, set[int]] = {"0": set(), "1": set()}
        for folder in folders(tmp_path):
            try:
                gpu = json.loads((files.working(folder) / files.PROVENANCE).read_text())["gpus"]
            except (FileNotFoundError, NotADirectoryError):
                continue
            if (pid := holder_pid(folder)) and rows(folder) >= 2:
                held[gpu].add(pid)
                if not killed:
                    os.kill(pid, signal.SIGKILL)
                    killed = folder.name
        for pids in held.values():
            # Those that are alive still were so together.
            most = max(most, sum(Path(f"/proc/{pid}").exists() for pid in pids))
        time.sleep(0.01)
    said = ended(worker)
    states = {folder.name: status_of(folder).state for folder in folders(tmp_path)}
    assert states.pop(killed) == "lost", said
    assert list(states.values()) == ["done"] * 7, said
    seen = {json.loads((tmp_path / "runs" / name / files.PROVENANCE).read_text())["gpus"] for name in states}
    figure(
        f"F15: a worker with 4 slots and 2 GPUs, 8 runs, one killed: at most {most} run a GPU, "
        f"the others done, CUDA_VISIBLE_DEVICES of the runs {sorted(seen)}"
    )
    assert most == 1
    assert seen == {"0", "1"}


ON_CORE = """
import os, runpy, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
sys.argv[:] = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_two_sweeps_share_a_core(tmp_path: Path) -> None:
    """They take turns: the shorter one is done before the longer one, which was there first."""
    core = min(os.sched_getaffinity(0))
    env = surroundings(HIDDEN_SUBNET_LOCKS=str(tmp_path / "locks"))
    command = ["-c", ON_CORE, str(core), str(LAUNCH), "-m", *SMALL, "train.epochs=20"]
    longer = start(tmp_path / "longer", *command, f"seed={','.join(map(str, range(12)))}", env=env)
    while not list((tmp_path / "longer").glob("runs/*/result.json")):
        assert longer.poll() is None, ended(longer)
        time.sleep(0.05)
    shorter = start(tmp_path / "shorter", *command, "seed=0,1,2", env=env)
    said = ended(shorter)
    ended(longer)
    assert (shorter.returncode, longer.returncode) == (0, 0), said
    assert re.search(rf"waiting for a core of .* \(core {core}: process \d+ of ", said), said
    spans = sorted(
        ((folder / files.PROVENANCE).stat().st_mtime, (folder / files.RESULT).stat().st_mtime, sweep)
        for sweep in ("longer", "shorter") for folder in folders(tmp_path / sweep)
    )  # fmt: skip
    order = [sweep for _, _, sweep in spans]
    overlaps = sum(started < before for (_, before, _), (started, _, _) in pairwise(spans))
    figure(f"sweeps of 12 and 3 runs on one core, by turns: {overlaps} overlaps, order {' '.join(order)}")
    assert (order.count("longer"), order.count("shorter")) == (12, 3)
    assert overlaps == 0
    assert order[-1] == "longer"
