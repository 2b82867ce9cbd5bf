"""F16: whatever becomes of W&B, a run's own result is the same to the bit, and it says so once."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.real_commands import figure
from helpers.wandb_server import StandIn, serving

from hidden_subnet.config.convert import as_dict, to_yaml
from hidden_subnet.config.identity import folder_name
from hidden_subnet.config.settings import Config
from hidden_subnet.store import checkpoints, files
from hidden_subnet.trackers import sent

pytest_plugins = ["helpers.wandb_server"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean")]

# A run; after its first epoch, once the client has begun, W&B comes to harm. Prints how long the run took.
RUN = """
import os, subprocess, sys, time, urllib.request
from pathlib import Path
from hidden_subnet.store.files import load_config
from hidden_subnet.sweep.execute import RunObserver, execute
from hidden_subnet.trackers import open_trackers
config, fault = load_config(Path(sys.argv[1])), sys.argv[2]

def on_row(row):
    if row["epoch"] != 1 or not fault:
        return
    deadline = time.monotonic() + 30
    logs = lambda: Path(config.out).glob("*/wandb/*run-*/logs/debug.log")
    while not any("run started" in log.read_text() for log in logs()) and time.monotonic() < deadline:
        time.sleep(0.05)
    if fault == "kill":
        subprocess.run(["pkill", "-KILL", "-P", str(os.getpid()), "wandb-core"], check=True)
    elif fault.startswith("http"):
        urllib.request.urlopen(fault)

began = time.monotonic()
outcome = execute(config, RunObserver(on_row, lambda *step: None, lambda text: None), open_trackers=open_trackers)
print(outcome.state, time.monotonic() - began)
"""


def run(config: Config, fault: str = "", server: StandIn | None = None) -> tuple[Path, float]:
    """The run's folder and how long it took, in seconds; a process of its own, which has to end by itself."""
    out = Path(config.out)
    out.mkdir(exist_ok=True)
    (out / "settings.yaml").write_text(to_yaml(as_dict(config)))
    environment = {**os.environ, **(server.environment() if server else {}), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(out / "settings.yaml"), fault],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    state, seconds = done.stdout.split()
    assert state == "done"
    return out / folder_name(config), float(seconds)


def outcome(folder: Path) -> tuple[dict[str, Any], list[dict[str, float]], dict[str, list[float]]]:
    """Result, rows and scores, without what a clock says, and memory, of which W&B's client takes some."""
    result = files.read_result(folder)
    assert result is not None
    rows = [
        {key: value for key, value in row.items() if key not in ("seconds", "images_per_second")}
        for row in files.read_rows(folder)
    ]
    last = checkpoints.load(folder / "checkpoints" / files.LAST, "cpu")
    measured = {"seconds": 0, "environment": {**result["environment"], "peak_memory": 0}}
    return {**result, **measured}, rows, {key: value.tolist() for key, value in last["trained"].items()}


def test_f16_no_fault_of_wandb_touches_a_run(tmp_path: Path, compose: Callable[..., Config]) -> None:
    def config(name: str, tracker: str = "wandb") -> Config:
        small = ["data=synthetic", "model.width=0.125", "train.epochs=4", "train.threads=1"]
        return compose(*small, f"tracker={tracker}", f"out={tmp_path / name}")

    undisturbed, alone = run(config("none", "none"))
    expected = outcome(undisturbed)
    added, same, complete, warned = [], 0, 0, 0
    for fault in ("gone", "500", "hang", "kill", "full"):
        settings = config(fault)
        folder = tmp_path / fault / folder_name(settings)
        if fault == "full":
            with full_disk(folder / "wandb"):
                folder, seconds = run(settings, fault)
        elif fault == "kill":
            folder, seconds = run(settings, fault)
        else:
            with serving() as other:
                folder, seconds = run(settings, f"{other.url}/fault/{fault}", other)
        added.append(seconds - alone)
        found = outcome(folder)
        said = [line for line in (folder / files.LOG).read_text().splitlines() if " is off for this run " in line]
        same += found[0] == expected[0] and found[2] == expected[2]
        complete += found[1] == expected[1] and len(found[1]) == 5
        warned += len(said) == 1
        # W&B has not all of it, and the run knows.
        assert not sent.is_complete(folder), fault
    figure(
        f"F16: 5 faults (server gone, 500, hang, core killed, disk full): results identical {same}/5, "
        f"rows complete {complete}/5, one warning each {warned}/5, at most {max(added):.0f} s added"
    )
    assert (same, complete, warned) == (5, 5, 5)


def test_opening_a_tracker_does_not_hold_the_training_up(tmp_path: Path, server: StandIn) -> None:
    """Each in a process of its own, in which W&B is loaded meanwhile by another thread."""
    here = Path(__file__).parents[1]
    blocked = []
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        environment = {**os.environ, **server.environment(), "PYTHONPATH": f"{here}:{here.parent}"}
        said = subprocess.check_output(
            [sys.executable, "-c", OPEN, str(folder)], env=environment, text=True, timeout=60
        )
        blocked.append(float(said))
    assert len(server.runs) == 5
    figure(f"a run's tracker: its opening holds the training up for {1000 * max(blocked):.0f} ms at most (n = 5)")


OPEN = """
import sys, time
from pathlib import Path
from helpers.wandb_server import RESULT, ROWS, make
from hidden_subnet.trackers import open_trackers
config = make()
began = time.monotonic()
(tracker,) = open_trackers(config, Path(sys.argv[1]), None, sys.exit)
tracker.log(ROWS[0])
print(time.monotonic() - began)
tracker.finish(RESULT)
"""


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """A file system of four pages."""
    if os.geteuid():
        pytest.skip("only root may mount a small file system")
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)
