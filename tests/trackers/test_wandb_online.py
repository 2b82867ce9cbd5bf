"""A run on W&B's real client against a stand-in for its server: what arrives, and what a fault costs."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.wandb_server import KEY, RESULT, ROWS, StandIn, make, records, rows_in

from hidden_subnet.config.identity import slug
from hidden_subnet.trackers import sent
from hidden_subnet.trackers.wandb_environment import init_arguments
from hidden_subnet.trackers.wandb_tracker import columns, origin, summary

pytest_plugins = ["helpers.wandb_server"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean")]

# A whole process with the default tracker: what it prints is its warnings, and it must also exit by itself.
PROCESS = """
import json, os, subprocess, sys, time
from pathlib import Path
from hidden_subnet.trackers import open_trackers, wandb_tracker
from hidden_subnet.trackers.background import Patience
from helpers.wandb_server import PATIENT, RESULT, ROWS, make
folder, fault, end = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
patience = PATIENT
if fault or "HASTY" in os.environ:
    # A fault comes after the start, which takes long on a busy machine.
    start_seconds = PATIENT.start_seconds if fault else 4.0
    patience = Patience(start_seconds, end_seconds=6.0)
    wandb_tracker.INIT_SECONDS, wandb_tracker.UPLOAD_SECONDS = start_seconds + 2, 3.0
warnings = []
(tracker,) = open_trackers(make(), folder, "my-sweep", warnings.append, patience)
for row in ROWS[int(sys.argv[4]) : int(sys.argv[5])]:
    tracker.log(row)
    if row["epoch"] == 1 and fault:
        while not any("run started" in log.read_text() for log in folder.glob("wandb/*run-*/logs/debug.log")):
            time.sleep(0.05)
        time.sleep(0.5)
        if fault == "kill":
            subprocess.run(["pkill", "-KILL", "-P", str(os.getpid()), "wandb-core"], check=True)
            time.sleep(0.5)
        else:
            import urllib.request
            urllib.request.urlopen(fault)
if end == "finish":
    tracker.finish(RESULT)
else:
    tracker.interrupt()
print(json.dumps([os.getpid(), warnings]))
"""


def process(
    folder: Path,
    fault: str = "",
    end: str = "finish",
    url: str | None = None,
    rows: tuple[int, int] = (0, 3),
    works: bool = True,
) -> list[str]:
    """The warnings of a run in a process of its own, which prints nothing else and leaves no helper behind.

    `fault` comes amid the run; a server that `works` from the start is waited for as long as it takes.
    """
    here = Path(__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{here}:{here.parent}",
        **({} if works else {"HASTY": ""}),
        **({"WANDB_API_KEY": KEY, "WANDB_BASE_URL": url} if url else {}),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, str(folder), fault, end, *map(str, rows)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert (done.returncode, done.stderr) == (0, "")
    pid, warnings = json.loads(done.stdout)
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert [line for line in running.splitlines() if "wandb-core" in line and f"--pid {pid}" in line] == []
    assert [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()] == []
    return list(warnings)


def without_empty(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out empty mappings, which W&B does not keep."""
    inner = {key: without_empty(value) if isinstance(value, dict) else value for key, value in settings.items()}
    return {key: value for key, value in inner.items() if value != {}}


def test_online_run_arrives(folder: Path, server: StandIn) -> None:
    assert process(folder, url=server.url) == []
    ((name, run),) = server.runs.items()
    assert name == (folder / "wandb_id").read_text().strip()
    assert run.rows == ROWS
    assert run.config == without_empty(columns(make())) | origin(make(), folder)
    assert (run.created["groupName"], run.created["tags"]) == ("my-sweep", ["my-sweep"])
    assert (run.created["displayName"], run.created["jobType"]) == (slug(make()), "edge_popup")
    assert summary(RESULT).items() <= run.summary.items()
    assert run.exit_code == 0
    assert sent.read(folder) == sent.Sent(name, init_arguments(make(), "my-sweep"), rows=3, ended=True)


def test_preempted_run_goes_on_under_its_id(folder: Path, server: StandIn) -> None:
    """The rows of the second process come behind those of the first, once each."""
    assert process(folder, end="interrupt", url=server.url, rows=(0, 2)) == []
    (run,) = server.runs.values()
    assert any(part.get("preempting") for part in run.streamed)
    assert run.exit_code == 1
    assert process(folder, url=server.url, rows=(2, 3)) == []
    assert len(server.runs) == 1
    assert run.exit_code == 0
    assert run.rows == ROWS
    assert [json.loads(line)["_step"] for line in run.history] == [0, 1, 2]


@pytest.mark.parametrize("fault", ["hang", "500"])
def test_server_that_fails_from_the_start(folder: Path, server: StandIn, fault: str) -> None:
    server.fault = fault
    assert len(process(folder, url=server.url, works=False)) == 1


@pytest.mark.parametrize("fault", ["hang", "500"])
def test_server_that_fails_amid_the_run(folder: Path, server: StandIn, fault: str) -> None:
    (warning,) = process(folder, fault=f"{server.url}/fault/{fault}", url=server.url)
    assert "hidden_subnet sync" in warning
    assert server.fault == fault
    (found,) = records(folder)
    assert rows_in(found) == ROWS


def test_no_network(folder: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        assert len(process(folder, url=url, works=False)) == 1


def test_killed_helper(folder: Path) -> None:
    assert len(process(folder, fault="kill")) == 1
