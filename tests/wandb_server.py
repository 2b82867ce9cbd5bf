"""A stand-in for W&B's server on the loopback: as much of it as the real client asks for, keeping what it is sent."""

import base64
import json
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY = "canary" + 34 * "7"


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
    def summary(self) -> dict[str, Any]:
        return dict(json.loads(self.files["wandb-summary.json"]))

    @property
    def exit_code(self) -> int | None:
        """Of the last end that it was told of; None before the first."""
        codes = [part["exitcode"] for part in self.streamed if part.get("complete")]
        return codes[-1] if codes else None


class StandIn(ThreadingHTTPServer):
    """`fault` makes it answer 500 ("500") or not at all ("hang")."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.fault, self.released = "", threading.Event()
        self.runs: dict[str, Received] = {}
        self.operations: list[str] = []
        self.seen = bytearray()
        """Every request as it came, headers and body, to be searched."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        import traceback; traceback.print_exc()

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
        """A table is sent as a file of the run and as an artifact; the artifact is taken and not kept."""
        if operation == "CreateArtifact":
            artifact = {"id": "a", "state": "COMMITTED", "artifactSequence": {"id": "s", "latestArtifact": None}}
            return {"createArtifact": {"artifact": artifact}}
        if operation == "UseArtifact":
            return {"useArtifact": {"artifact": {"id": "a"}}}
        print("UNKNOWN", operation, variables, flush=True); return {}

    def stream(self, name: str, part: dict[str, Any]) -> None:
        known = self.runs.setdefault(name, Received())
        known.streamed.append(part)
        sent = part.get("files", {}).get("wandb-history.jsonl")
        if sent:
            known.history[sent["offset"] : sent["offset"] + len(sent["content"])] = sent["content"]


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
        if self.headers.get("Content-Encoding") == "gzip":
            body = zlib.decompress(body, wbits=31)
        self.server.seen += self.requestline.encode() + bytes(self.headers) + body
        if self.server.fault == "hang":
            self.server.released.wait()
        elif self.server.fault == "500":
            self._reply({}, 500)
        elif self.path == "/graphql":
            asked = json.loads(body)
            print("ASKED", asked.get("operationName"), str(asked.get("variables"))[:300], asked["query"][:300].replace("\n"," "), flush=True)
            self._reply({"data": self.server.graphql(asked["operationName"], asked.get("variables") or {})})
        else:
            _, kind, *rest = self.path.split("/")
            if kind == "up":
                self.server.runs[rest[0]].files["/".join(rest[1:])] = body
            elif rest[-1] == "file_stream":
                self.server.stream(rest[2], json.loads(body))
            self._reply({})

    def _reply(self, content: dict[str, Any], code: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving() -> Iterator[StandIn]:
    with StandIn() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()


def basic(key: str) -> bytes:
    """How a key travels in a header."""
    return base64.b64encode(f"api:{key}".encode())


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


def without_settings(environment: dict[str, str] | None = None) -> dict[str, str]:
    """An environment in which nothing of W&B is set."""
    found = os.environ if environment is None else environment
    return {name: value for name, value in found.items() if not name.startswith("WANDB_") and name != "NETRC"}
