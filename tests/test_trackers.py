"""Trackers mirror what they are told, keep out of the training's way, and leak nothing."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hidden_subnet.config import (
    Config,
    Data,
    DataName,
    Dense,
    EdgePopup,
    Init,
    InitName,
    Method,
    Model,
    ModelName,
    Pruning,
    PruningName,
    Tracker,
    TrackerMode,
    TrackerName,
    as_dict,
)
from hidden_subnet.trackers import background, open_trackers
from hidden_subnet.trackers.background import InBackground
from hidden_subnet.trackers.wandb_tracker import _mode, columns, run_id, summary, tags

KEY = "canary" + 34 * "7"
ROWS = [
    {"epoch": 0, "step": 0, "validation/loss": 2.5, "density": 0.1},
    {"epoch": 1, "step": 21, "lr": 0.1, "train/loss": 0.7, "validation/loss": 0.6, "density": 0.1},
    {"epoch": 2, "step": 42, "lr": 0.05, "train/loss": 0.3, "validation/loss": 0.2, "density": 0.1},
]
RESULT = {
    "schema": 1,
    "name": "a-run",
    "projection": {"prune_rate": 0.9},
    "chance": 0.1,
    "untrained": {"unpruned": {"loss": 2.5, "top1": 0.11, "top5": 0.5}, "first_mask": None},
    "last": {"epoch": 2, "train": None, "test": {"loss": 0.3, "top1": 0.97, "top5": 1.0}},
    "best": {"epoch": 1, "train": None, "test": {"loss": 0.2, "top1": 0.98, "top5": 1.0}},
    "layers": [{"name": "features.0", "kept": 288}],
    "density": 0.1,
    "environment": {"python": "3.11"},
}


def make(
    tracker: str = "wandb", mode: str = "auto", labels: tuple[str, ...] = (), method: Method | None = None
) -> Config:
    return Config(
        model=Model(name=ModelName.conv2),
        init=Init(name=InitName.signed_constant),
        data=Data(name=DataName.digits),
        pruning=Pruning(name=PruningName.layerwise),
        method=method or EdgePopup(),
        tracker=Tracker(name=TrackerName[tracker], mode=TrackerMode[mode], tags=list(labels)),
        prune_rate=0.9,
    )


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no W&B settings, and a home and working directory of its own for what should not be written there."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("WANDB_CACHE_DIR", "WANDB_ERROR_REPORTING"):  # set by the tracker: to be taken back
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name in ("home", "cwd"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "digits-conv2-0123456789ab"
    folder.mkdir()
    return folder


def records(folder: Path) -> list[list[dict[str, Any]]]:
    """What W&B's own reader finds, a list for each time that the run was opened, in order."""
    found = []
    for path in sorted(folder.glob("wandb/*run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
        said = subprocess.run(command, capture_output=True, check=True).stdout
        found.append([json.loads(line) for line in said.splitlines()])
    return found


def of_type(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in found if record["type"] == kind]


def rows_in(found: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The logged rows, without the columns that W&B adds (_step, _runtime, _timestamp)."""
    rows = [item["item"] for item in of_type(found, "history")]
    return [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]


def test_offline_run_read_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    config = make(mode="offline", labels=("try",))
    random.seed(1)
    generators = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    hooks = sys.exit, sys.excepthook, [signal.getsignal(number) for number in (2, 12, 15)]
    warnings: list[str] = []

    (tracker,) = open_trackers(config, folder, "my-sweep", warnings.append)
    for row in ROWS:
        tracker.log(row)
    tracker.finish(RESULT)

    assert warnings == []
    assert capfd.readouterr() == ("", "")
    assert hooks == (sys.exit, sys.excepthook, [signal.getsignal(number) for number in (2, 12, 15)])
    assert generators == (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    )

    (found,) = records(folder)
    assert rows_in(found) == ROWS
    (run,) = of_type(found, "run")
    assert run["run_id"] == (folder / "wandb_id").read_text().strip()
    assert (run["project"], run["run_group"], run["job_type"]) == ("hidden_subnet", "my-sweep", "edge_popup")
    assert run["tags"] == ["try", "my-sweep"]
    assert run["display_name"] == "digits-conv2-edge_popup-signed_constant-pr0.9-s0"
    sent = {key: value for key, value in run["config"]["update"].items() if key != "_wandb"}
    assert sent == columns(config)
    assert sent["config"] == as_dict(config)
    assert {"glob_name": "*", "step_metric": "epoch"}.items() <= of_type(found, "metric")[1].items()
    final: dict[str, Any] = {}
    for record in of_type(found, "summary"):
        final |= record["update"]
    assert summary(RESULT).items() <= final.items()
    assert of_type(found, "exit")[0].get("exit_code", 0) == 0

    written = [path for path in folder.rglob("*") if path.is_file()]
    assert len(written) > 3
    assert [path for path in written if KEY.encode() in path.read_bytes()] == []
    assert list((folder.parent / "home").iterdir()) == []
    assert list((folder.parent / "cwd").iterdir()) == []


def test_interrupted_run_goes_on_under_its_id(folder: Path) -> None:
    (tracker,) = open_trackers(make(), folder, None, pytest.fail)
    for row in ROWS[:2]:
        tracker.log(row)
    tracker.interrupt()
    (tracker,) = open_trackers(make(), folder, None, pytest.fail)
    tracker.log(ROWS[2])
    tracker.fail("RuntimeError: broken")
    first, second = records(folder)
    assert rows_in(first) + rows_in(second) == ROWS
    assert of_type(first, "run")[0]["run_id"] == of_type(second, "run")[0]["run_id"]
    assert len(of_type(first, "preempting")) == 1
    assert of_type(second, "preempting") == []
    assert [of_type(part, "exit")[0]["exit_code"] for part in (first, second)] == [1, 1]
    assert "run_group" not in of_type(first, "run")[0]


def test_id_is_made_once(folder: Path, tmp_path: Path) -> None:
    first = run_id(folder)
    assert run_id(folder) == first
    assert run_id(tmp_path) != first
    assert len(first) >= 8


def test_tags_are_unique_and_short() -> None:
    assert tags(make(labels=("a", "s", "a")), "s") == ["a", "s"]
    assert tags(make(), "x" * 300) == ["x" * 64]
    assert tags(make(), None) == []


def test_columns() -> None:
    masked, dense = columns(make()), columns(make(method=Dense()))
    assert (masked["prune_rate"], masked["density"]) == (0.9, 0.1)
    assert (dense["prune_rate"], dense["density"]) == (0.0, 1.0)
    assert (dense["model"], dense["data"], dense["method"]) == ("conv2", "digits", "dense")
    assert (dense["init"], dense["seed"]) == ("signed_constant", 0)


def test_summary_holds_every_number_of_the_result() -> None:
    assert summary(RESULT) == {
        "chance": 0.1,
        "untrained/unpruned/loss": 2.5,
        "untrained/unpruned/top1": 0.11,
        "untrained/unpruned/top5": 0.5,
        "last/epoch": 2,
        "last/test/loss": 0.3,
        "last/test/top1": 0.97,
        "last/test/top5": 1.0,
        "best/epoch": 1,
        "best/test/loss": 0.2,
        "best/test/top1": 0.98,
        "best/test/top5": 1.0,
        "density": 0.1,
    }


def mode(asked: str, **settings: Any) -> str:
    import wandb

    return _mode(TrackerMode[asked], wandb.Settings(silent=True, **settings))


def test_mode_without_a_key() -> None:
    assert mode("auto") == "offline"
    assert mode("offline") == "offline"
    assert mode("auto", mode="disabled") == "disabled"
    with pytest.raises(RuntimeError, match="needs a key"):
        mode("online")


def test_mode_with_a_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert mode("auto") == "online"
    assert mode("auto", mode="offline") == "offline"
    assert mode("offline") == "offline"
    assert mode("online", mode="offline") == "online"


def test_mode_with_a_key_in_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "keys"
    netrc.write_text(f"machine wandb.example.org\n login user\n password {KEY}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert mode("auto", base_url="https://wandb.example.org") == "online"
    assert mode("auto", base_url="https://other.example.org") == "offline"


def test_wandb_switched_off_by_its_variable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert open_trackers(make(), folder, None, pytest.fail) == []


def test_no_tracker(folder: Path) -> None:
    assert open_trackers(make("none"), folder, None, pytest.fail) == []
    assert list(folder.iterdir()) == []


def test_tensorboard_read_back(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tracker,) = open_trackers(make("tensorboard"), folder, "s", pytest.fail)
    for row in ROWS[:2]:
        tracker.log(row)
    tracker.interrupt()
    (tracker,) = open_trackers(make("tensorboard"), folder, "s", pytest.fail)
    tracker.log(ROWS[2])
    tracker.finish(RESULT)
    assert capfd.readouterr() == ("", "")
    events: dict[tuple[str, int], float] = {}
    for path in (folder / "tensorboard").iterdir():
        reader = EventAccumulator(str(path))
        reader.Reload()
        for tag in reader.Tags()["scalars"]:
            events |= {(tag, event.step): event.value for event in reader.Scalars(tag)}
    logged = {(key, int(row["epoch"])): value for row in ROWS for key, value in row.items() if key != "epoch"}
    assert events == pytest.approx(logged)


def test_tensorboard_that_cannot_write_warns_once(folder: Path) -> None:
    (folder / "tensorboard").write_text("a file in the way")
    warnings: list[str] = []
    (tracker,) = open_trackers(make("tensorboard"), folder, None, warnings.append)
    for row in ROWS:
        tracker.log(row)
    tracker.finish(RESULT)
    assert len(warnings) == 1
    assert "TensorBoard is off for this run" in warnings[0]


def test_wandb_without_a_key_forced_online_warns_once(folder: Path) -> None:
    warnings: list[str] = []
    (tracker,) = open_trackers(make(mode="online"), folder, None, warnings.append)
    for row in ROWS:
        tracker.log(row)
    tracker.finish(RESULT)
    assert len(warnings) == 1
    assert "WANDB_API_KEY" in warnings[0]


class Faulty:
    """Notes what it is told, raises at the epoch `at`, and does not come back from `stuck`."""

    def __init__(self, at: int = -1, stuck: threading.Event | None = None) -> None:
        self.at, self.stuck, self.told = at, stuck, list[float | str]()

    def log(self, row: dict[str, float]) -> None:
        if row["epoch"] == self.at:
            raise SystemExit("disk\nfull")
        if self.stuck is not None:
            self.stuck.wait()
        self.told.append(row["epoch"])

    def finish(self, result: dict[str, Any]) -> None:
        self.told.append("finish")

    def fail(self, message: str) -> None:
        self.told.append(message)

    def interrupt(self) -> None:
        self.told.append("interrupt")


def test_calls_arrive_in_order() -> None:
    for end, last in [
        (lambda tracker: tracker.finish({}), "finish"),
        (lambda tracker: tracker.fail("why"), "why"),
        (lambda tracker: tracker.interrupt(), "interrupt"),
    ]:
        inner = Faulty()
        tracker = InBackground("it", lambda inner=inner: inner, pytest.fail, pytest.fail)
        for row in ROWS:
            tracker.log(row)
        end(tracker)
        assert inner.told == [0, 1, 2, last]


def test_row_changed_after_it_was_logged() -> None:
    opened, inner, row = threading.Event(), Faulty(), {"epoch": 0.0}

    def start() -> Faulty:
        opened.wait()
        return inner

    tracker = InBackground("it", start, pytest.fail)
    tracker.log(row)
    row["epoch"] = 7.0
    opened.set()
    tracker.finish({})
    assert inner.told == [0.0, "finish"]


def test_exception_turns_the_tracker_off_with_one_warning() -> None:
    inner, warnings, abandoned = Faulty(at=1), list[str](), list[str]()
    tracker = InBackground("it", lambda: inner, warnings.append, lambda: abandoned.append("once"))
    for row in ROWS:
        tracker.log(row)
    tracker.finish({})
    assert inner.told == [0]
    assert warnings == ["it is off for this run (SystemExit: disk); its own files are complete"]
    assert abandoned == ["once"]


def test_end_does_not_wait_for_a_stuck_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "END_SECONDS", 0.1)
    stuck, warnings, abandoned = threading.Event(), list[str](), list[str]()
    tracker = InBackground("it", lambda: Faulty(stuck=stuck), warnings.append, lambda: abandoned.append("once"))
    for row in ROWS:
        tracker.log(row)
    tracker.fail("why")
    stuck.set()
    assert len(warnings) == 1
    assert "did not answer" in warnings[0]
    assert abandoned == ["once"]


def test_end_does_not_wait_for_a_tracker_that_never_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "START_SECONDS", 0.0)
    stuck, warnings = threading.Event(), list[str]()

    def start() -> Faulty:
        stuck.wait()
        return Faulty()

    tracker = InBackground("it", start, warnings.append)
    tracker.interrupt()
    stuck.set()
    assert len(warnings) == 1


# A whole process with the default tracker: what it prints is its warnings, and it must also exit by itself.
PROCESS = """
import json, os, signal, sys, time
from pathlib import Path
from hidden_subnet.trackers import background, open_trackers, wandb_tracker
from test_trackers import RESULT, ROWS, make
background.START_SECONDS, background.END_SECONDS, wandb_tracker.UPLOAD_SECONDS = 4.0, 6.0, 3.0
folder, fault, end = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
warnings = []
(tracker,) = open_trackers(make(), folder, "my-sweep", warnings.append)
for row in ROWS:
    tracker.log(row)
    if row["epoch"] == 1 and fault:
        while not any("run started" in log.read_text() for log in folder.glob("wandb/*run-*/logs/debug.log")):
            time.sleep(0.05)
        time.sleep(0.5)
        if fault == "kill":
            from wandb.sdk import wandb_setup
            os.kill(wandb_setup.singleton()._connection._proc._process.pid, signal.SIGKILL)
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


def process(folder: Path, fault: str = "", end: str = "finish", url: str | None = None) -> list[str]:
    """The warnings of a run in a process of its own, which prints nothing else and leaves no helper behind."""
    here = Path(__file__).parent
    environment = {
        **os.environ,
        "PYTHONPATH": f"{here}:{here.parent}",
        **({"WANDB_API_KEY": KEY, "WANDB_BASE_URL": url} if url else {}),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, str(folder), fault, end],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    pid, warnings = json.loads(done.stdout)
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert [line for line in running.splitlines() if "wandb-core" in line and f"--pid {pid}" in line] == []
    assert [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()] == []
    return list(warnings)


class StandIn(ThreadingHTTPServer):
    """As much of W&B's server as its client needs; `fault` makes it answer 500 or not at all."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.fault, self.released = "", threading.Event()
        self.calls: list[tuple[str, dict[str, Any]]] = []
        """GraphQL operations and their variables."""
        self.streamed: list[dict[str, Any]] = []
        self.known: set[str] = set()

    def rows(self) -> list[dict[str, float]]:
        lines = [
            line
            for part in self.streamed
            for line in part.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
        ]
        rows = [json.loads(line) for line in lines]
        return [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]

    def graphql(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "name": "hidden_subnet", "entity": {"id": "e", "name": "me"}}
        if operation == "RunResumeStatus":
            return {"model": {**project, "bucket": None}}
        if operation == "UpsertBucket":
            known = variables["name"] in self.known
            self.known.add(variables["name"])
            bucket = {"id": "b", "name": variables["name"], "config": "{}", "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": not known}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/up/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        return {}


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/fault/"):
            self.server.fault = self.path.removeprefix("/fault/")
            self._reply({})
        else:
            self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.fault == "hang":
            self.server.released.wait()
        elif self.server.fault == "500":
            self._reply({}, 500)
        elif self.path == "/graphql":
            asked = json.loads(body)
            self.server.calls.append((asked["operationName"], asked["variables"]))
            self._reply({"data": self.server.graphql(*self.server.calls[-1])})
        else:
            if self.path.endswith("/file_stream"):
                self.server.streamed.append(json.loads(body))
            self._reply({})

    def _reply(self, content: dict[str, Any], code: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.released.set()
        server.shutdown()


@pytest.mark.slow
def test_online_run_arrives(folder: Path, server: StandIn) -> None:
    assert process(folder, url=server.url) == []
    assert server.rows() == ROWS
    created = next(variables for operation, variables in server.calls if operation == "UpsertBucket")
    assert created["name"] == (folder / "wandb_id").read_text().strip()
    assert created["groupName"] == "my-sweep"
    assert server.streamed[-1]["exitcode"] == 0
    assert server.streamed[-1]["complete"] is True


@pytest.mark.slow
def test_online_run_interrupted_is_preempting_and_keeps_its_id(folder: Path, server: StandIn) -> None:
    assert process(folder, end="interrupt", url=server.url) == []
    assert any(part.get("preempting") for part in server.streamed)
    assert server.streamed[-1]["exitcode"] == 1
    assert process(folder, url=server.url) == []
    assert server.streamed[-1]["exitcode"] == 0
    assert len(server.known) == 1


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["hang", "500"])
def test_server_that_fails_from_the_start(folder: Path, server: StandIn, fault: str) -> None:
    server.fault = fault
    assert len(process(folder, url=server.url)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["hang", "500"])
def test_server_that_fails_amid_the_run(folder: Path, server: StandIn, fault: str) -> None:
    (warning,) = process(folder, fault=f"{server.url}/fault/{fault}", url=server.url)
    assert "wandb sync" in warning
    assert server.fault == fault
    (found,) = records(folder)
    assert rows_in(found) == ROWS


@pytest.mark.slow
def test_no_network(folder: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        assert len(process(folder, url=url)) == 1


@pytest.mark.slow
def test_killed_helper(folder: Path) -> None:
    assert len(process(folder, fault="kill")) == 1
