"""A stand-in for W&B's server on the loopback: as much of it as the real client asks for, keeping what it is sent.

PYTEST_DONT_REWRITE: tests import its names before pytest loads it for its fixtures.
"""

import itertools
import json
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from hidden_subnet import trackers
from hidden_subnet.config.registries import load_parts
from hidden_subnet.config.settings import Config, Data, Init, MethodSettings, Model, Pruning, Tracker, TrackerMode
from hidden_subnet.methods.edge_popup import EdgePopupSettings
from hidden_subnet.trackers import summary
from hidden_subnet.trackers import sync as sync_module
from hidden_subnet.trackers.background import Patience

load_parts()  # the configs below are not composed

# W&B needs long to start on a machine that is busy with other tests.
PATIENT = Patience(start_seconds=60.0, end_seconds=90.0)
open_trackers = partial(trackers.open_trackers, patience=PATIENT)
report_sweep = partial(summary.report_sweep, patience=PATIENT)
sync = partial(sync_module.sync, patience=PATIENT)

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
    trackers: Iterable[str] = ("wandb",),
    mode: str = "auto",
    labels: Iterable[str] = (),
    method: MethodSettings | None = None,
) -> Config:
    return Config(
        model=Model(name="conv2"),
        init=Init(name="signed_constant"),
        data=Data(name="digits"),
        pruning=Pruning(name="layerwise"),
        method=method or EdgePopupSettings(),
        tracker=Tracker(to=dict.fromkeys(trackers, True), mode=TrackerMode[mode], tags=list(labels)),
        prune_rate=0.9,
    )


@dataclass
class Received:
    """A run as the server has it."""

    history: list[str] = field(default_factory=list)
    """Lines by their offset: a client that knows how many there are goes on behind them, another overwrites them."""
    upserts: list[dict[str, Any]] = field(default_factory=list)
    """The variables of each UpsertBucket: the first is complete, later ones may hold what changed only."""
    streamed: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    starts: int = 0
    """How often a client began to send."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Without the columns that W&B adds (_step, _runtime, _timestamp), and without media."""
        rows = [json.loads(line) for line in self.history]
        return [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]

    @property
    def created(self) -> dict[str, Any]:
        return self.upserts[0]

    @property
    def config(self) -> dict[str, Any]:
        settings = json.loads(self.created["config"])
        return {key: value["value"] for key, value in settings.items() if key != "_wandb"}

    @property
    def config_at_the_end(self) -> dict[str, Any]:
        settings = json.loads(next(each["config"] for each in reversed(self.upserts) if each.get("config")))
        return {key: value["value"] for key, value in settings.items() if key != "_wandb"}

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads(self.files["wandb-summary.json"]))

    @property
    def exit_code(self) -> int | None:
        """Exit code of the last end that it was told of; None before the first."""
        codes = [part["exitcode"] for part in self.streamed if part.get("complete")]
        return codes[-1] if codes else None


@dataclass
class Artifact:
    """An artifact as the server has it."""

    type: str
    run: str
    """Id of the run whose client has sent it."""
    digest: str
    state: str = "PENDING"
    files: dict[str, bytes] = field(default_factory=dict)
    manifest: bytes = b""

    def described(self, name: str) -> dict[str, Any]:
        project = {"id": "p", "internalId": "p", "name": "hidden_subnet", "entity": {"name": "me"}}
        sequence = {"__typename": "ArtifactSequence", "name": name, "project": project}
        nothing = ("versionIndex", "description", "metadata", "historyStep", "commitHash", "updatedAt")
        return {
            "__typename": "Artifact", "id": name, "artifactSequence": sequence, "artifactType": {"name": self.type},
            "ttlDurationSeconds": -1, "ttlIsInherited": True, "tags": [], "state": self.state, "digest": self.digest,
            "size": sum(map(len, self.files.values())), "fileCount": len(self.files), "createdAt": "", "aliases": [],
            **dict.fromkeys(nothing),
        }  # fmt: skip


class StandIn(ThreadingHTTPServer):
    """`fault` makes it answer 500 ("500"), not at all ("hang"), or be gone for ever ("gone")."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.fault, self.released = "", threading.Event()
        self.runs: dict[str, Received] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.views: dict[str, dict[str, Any]] = {}
        """Workspaces by name, as they were saved."""
        self.projects = {"hidden_subnet"}
        self.alerts: list[dict[str, Any]] = []
        self.operations: list[str] = []
        self.seen = bytearray()
        """Every request without its headers, to be searched."""
        self.stopped: set[str] = set()
        """Ids of runs that somebody has stopped on the web page, or early termination has."""
        self.refused: set[str] = set()
        """Operations that are answered 403."""
        self.authorizations: set[str] = set()
        """The headers in which the client's key travels."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that are killed reset their connections

    def environment(self) -> dict[str, str]:
        return {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": self.url}

    def graphql(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        self.operations.append(operation)
        project = {"id": "p", "name": "hidden_subnet", "entity": {"id": "e", "name": "me"}}
        if operation == "RunResumeStatus":
            known = self.runs.get(variables["name"])
            return {"model": {**project, "bucket": known and self._bucket(variables["name"], known)}}
        if operation == "UpsertBucket":
            known = self.runs.setdefault(variables["name"], Received())
            known.upserts.append(variables)
            known.starts += bool(variables["displayName"])
            bucket = {"id": variables["name"], "name": variables["name"], "config": "{}", "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": len(known.upserts) == 1}}
        if operation == "CreateRunFiles":
            at = f"{self.url}/up/{variables['run']}"
            files = [{"name": name, "uploadUrl": f"{at}/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}
        if operation == "RunStoppedStatus":
            return {"project": {"run": {"stopped": variables["runId"] in self.stopped}}}
        if operation == "NotifyScriptableRunAlert":
            self.alerts.append(variables)
            return {"notifyScriptableRunAlert": {"success": True}}
        if operation == "View":
            found = [view for name, view in self.views.items() if name == variables["viewName"]]
            views = [{"node": {"id": v["name"], "displayName": v["displayName"], "spec": v["spec"]}} for v in found]
            return {"project": {"allViews": {"edges": views}} if variables["name"] in self.projects else None}
        if operation == "UpsertView2":
            inserted = variables["name"] not in self.views
            self.views[variables["name"]] = variables
            return {"upsertView": {"view": {"id": variables["name"], "name": variables["name"]}, "inserted": inserted}}
        if operation in ("Viewer", "GetDefaultEntity"):  # asked before an artifact, as which a table is also sent
            return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
        return self._artifact(operation, variables)

    def _bucket(self, name: str, known: Received) -> dict[str, Any]:
        return {
            "id": name,
            "name": name,
            "displayName": known.created["displayName"],
            "config": known.created["config"],
            "summaryMetrics": "{}",
            "logLineCount": 0,
            "historyLineCount": len(known.history),
            "historyTail": json.dumps(known.history[-1:]),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "tags": known.created["tags"],
            "notes": "",
            "wandbConfig": '{"t": 1}',
        }

    def _artifact(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Keep artifacts by their names; one with the digest of an earlier one is not uploaded again."""
        if operation == "CreateArtifact":
            asked = variables["input"]
            name, digest = asked["artifactCollectionName"], asked["digest"]
            known = self.artifacts.get(name)
            if known is None or known.digest != digest:
                known = self.artifacts[name] = Artifact(asked["artifactTypeName"], asked["runName"], digest)
            artifact = {"id": name, "state": known.state, "artifactSequence": {"latestArtifact": None}}
            return {"createArtifact": {"artifact": artifact}}
        if operation == "CreateArtifactManifest":
            name = variables["artifactID"]
            upload = {"uploadUrl": f"{self.url}/artifact/{name}/manifest", "uploadHeaders": []}
            manifest = {"id": f"{name}/manifest", "file": {"id": "f", **upload}}
            return {"createArtifactManifest": {"artifactManifest": manifest}}
        if operation == "CreateArtifactFiles":
            nodes = []
            for each in variables["input"]["artifactFiles"]:
                name, at = each["artifactID"], f"{self.url}/artifact/{each['artifactID']}/files/{each['name']}"
                node = {"storagePath": each["name"], "uploadUrl": at, "uploadHeaders": [], "uploadMultipartUrls": None}
                nodes.append({"node": {**node, "artifact": {"id": name}}})
            return {"createArtifactFiles": {"files": {"edges": nodes}}}
        if operation == "CommitArtifact":
            known = self.artifacts[variables["artifactID"]]
            known.state = "COMMITTED"
            return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": known.digest}}}
        if operation == "ArtifactByID":
            return {"artifact": self.artifacts[variables["id"]].described(variables["id"])}
        if operation == "ArtifactType":
            return {"project": None}
        return {}

    def stream(self, name: str, part: dict[str, Any]) -> None:
        known = self.runs.setdefault(name, Received())
        known.streamed.append(part)
        sent = part.get("files", {}).get("wandb-history.jsonl")
        if sent:
            known.history[sent["offset"] : sent["offset"] + len(sent["content"])] = sent["content"]


class SweepStandIn(StandIn):
    """Also has one sweep, a grid, whose points it gives to `wandb agent` with `more` arguments, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.sweep, self.points, self.more = "", list[dict[str, Any]](), dict[str, Any]()

    def give(self, **more: Any) -> None:
        """Have the next agent get all points again, as of runs that were preempted if there are `more` arguments."""
        grid = yaml.safe_load(self.sweep)["parameters"]
        values = itertools.product(
            *(entry["values"] if "values" in entry else [entry["value"]] for entry in grid.values())
        )
        self.points, self.more = [dict(zip(grid, row, strict=True)) for row in values], more

    def graphql(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "name": "hidden_subnet", "entity": {"id": "e", "name": "me"}}
        if operation == "UpsertSweep":
            self.sweep = variables["config"]
            self.give()
            sweep = {"name": "swp12345", "project": project}
            return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}
        if operation == "SweepWithRuns":
            nothing = ("description", "heartbeatAt", "bestLoss", "controller", "scheduler")
            sweep = {"id": "s", "name": "swp12345", "method": "grid", "state": "RUNNING", "config": self.sweep}
            sweep |= {"createdAt": "", "updatedAt": "", "earlyStopJobRunning": False, "runs": {"edges": []}}
            return {"project": {"sweep": sweep | dict.fromkeys(nothing)}}
        if operation == "CreateAgent":
            return {"createAgent": {"agent": {"id": "agent1"}}}
        if operation == "Heartbeat":
            commands = [] if json.loads(variables["runState"] or "{}") else [self._command()]
            return {"agentHeartbeat": {"agent": {"id": "agent1"}, "commands": json.dumps(commands)}}
        return super().graphql(operation, variables)

    def _command(self) -> dict[str, Any]:
        if not self.points:
            return {"type": "exit"}
        point = self.points.pop(0) | self.more
        run = f"agentrun{len(self.points)}"
        args = {name: {"value": value} for name, value in point.items()}
        kind = "resume" if self.more else "run"
        return {"type": kind, "run_id": run, "program": yaml.safe_load(self.sweep)["program"], "args": args}


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/fault/"):
            self.server.fault = self.path.removeprefix("/fault/")
            if self.server.fault == "gone":
                self.server.shutdown()
                self.server.socket.close()
            self._reply({})
        else:
            self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = zlib.decompress(body, wbits=31)
        self.server.seen += self.requestline.encode() + body
        self.server.authorizations.add(self.headers.get("Authorization", ""))
        if self.server.fault == "gone":
            self.close_connection = True
        elif self.server.fault == "hang":
            self.server.released.wait()
        elif self.server.fault == "500":
            self._reply({}, 500)
        elif self.path == "/graphql":
            asked = json.loads(body)
            name = asked.get("operationName") or asked["query"].split()[1].partition("(")[0]
            if name in self.server.refused:
                self._reply({"errors": [{"message": "permission denied"}]}, 403)
                return
            self._reply({"data": self.server.graphql(name, asked.get("variables") or {})})
        else:
            _, kind, *rest = self.path.split("/")
            if kind == "up":
                self.server.runs[rest[0]].files["/".join(rest[1:])] = body
            elif kind == "artifact":
                known = self.server.artifacts[rest[0]]
                if rest[1] == "manifest":
                    known.manifest = body
                else:
                    known.files["/".join(rest[2:])] = body
            elif rest[-1] == "file_stream":
                self.server.stream(rest[2], json.loads(body))
                self._reply({"stopped": rest[2] in self.server.stopped})
                return
            self._reply({})

    def _reply(self, content: dict[str, Any], code: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(server: StandIn | None = None) -> Iterator[StandIn]:
    with server or StandIn() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()


def records(folder: Path) -> list[list[dict[str, Any]]]:
    """Records that W&B's own reader finds, a list for each time that the run was opened, in order."""
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


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no W&B settings, and a home and working directory of its own for what should not be written there."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    # Set by the tracker: to be taken back.
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ERROR_REPORTING", "WANDB_INIT_TIMEOUT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name in ("home", "cwd"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.chdir(tmp_path / "cwd")
    if "wandb" in sys.modules:  # it reads its variables once in a process
        sys.modules["wandb"].teardown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "digits-conv2-0123456789ab"
    folder.mkdir()
    return folder


@pytest.fixture
def server() -> Iterator[StandIn]:
    with serving() as server:
        yield server
