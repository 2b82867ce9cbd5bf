"""Lines about W&B, and when they are said; the little of the machine that is sent; folders that are left."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.real_commands import launch, surroundings
from helpers.wandb_server import KEY, RESULT, ROWS, StandIn, make, open_trackers, records

from hidden_subnet.store.redact import without_folders
from hidden_subnet.trackers import first_lines
from hidden_subnet.trackers.places import without_paths, without_places
from hidden_subnet.trackers.wandb_environment import may_have_key

pytest_plugins = ["helpers.wandb_server"]
pytestmark = pytest.mark.usefixtures("clean")

TINY = ["data=synthetic", "model=fc", "model.width=0.1", "train.epochs=1", "train.threads=1"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("runs", "runs"),
        ("/home/me/my data", "…/my data"),
        ("~/runs/", "…/runs"),
        ({"a": ["/x/y.py:Net", 1, None]}, {"a": ["…/y.py:Net", 1, None]}),
    ],
)
def test_absolute_paths_become_names(value: Any, told: Any) -> None:
    assert without_paths(value) == told


def test_a_result_without_its_place() -> None:
    result = {"environment": {"host": "h", "torch": "2"}, "pretrained": {"file": "/a/b.pt"}}
    assert without_places(result) == {"environment": {"torch": "2"}, "pretrained": {"file": "…/b.pt"}}
    assert without_folders("cannot read '/home/me/x y/net.py'") == "cannot read '…/net.py'"


@pytest.mark.parametrize("file", ["", ".netrc", "_netrc", ".config/wandb/settings"])
def test_without_a_place_for_a_key_the_client_is_not_loaded(tmp_path: Path, file: str) -> None:
    if file:
        path = tmp_path / "home" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert may_have_key() == bool(file)


def test_a_line_says_where_the_run_goes_before_the_server_is_asked(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make()
    assert first_lines(config, sweep=False) == []
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    assert first_lines(config, sweep=False) == [
        f"W&B: online, hidden_subnet, in the account of the key, at {server.url}"
    ]
    monkeypatch.delenv("WANDB_BASE_URL")
    monkeypatch.setenv("WANDB_ENTITY", "lab")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    sys.modules["wandb"].teardown()  # it reads its variables once in a process
    assert first_lines(config, sweep=True) == ["W&B: online, lab/mine"]
    config.tracker.project = "other"
    assert first_lines(config, sweep=True) == ["W&B: online, lab/other"]
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert first_lines(config, sweep=True) == []
    assert first_lines(make([]), sweep=True) == []
    assert server.operations == []


def launched(cwd: Path, environment: dict[str, str], *arguments: str) -> list[str]:
    done = launch(cwd, *TINY, *arguments, env=environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["-m", "seed=0,1"]])
def test_without_a_key_a_line_at_the_end_is_all(tmp_path: Path, arguments: list[str]) -> None:
    cwd = tmp_path / "cwd"
    lines = launched(cwd, surroundings(HOME=str(tmp_path / "home")), *arguments)
    about = [line for line in lines if "W&B" in line or "wandb" in line]
    assert about == lines[-1:]
    assert lines[-1].startswith(f"W&B was offline: python -m hidden_subnet sync {cwd / 'runs'}/")
    assert [path.name for path in cwd.iterdir()] == ["runs"]
    assert [path for path in (tmp_path / "home").rglob("*") if "wandb" in path.name] == []
    assert empty(cwd) == []


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["-m", "seed=0,1"]])
def test_with_a_key_a_line_at_the_start_is_all(tmp_path: Path, server: StandIn, arguments: list[str]) -> None:
    cwd = tmp_path / "cwd"
    environment = surroundings(HOME=str(tmp_path / "home"), WANDB_ENTITY="lab", **server.environment())
    lines = launched(cwd, environment, *arguments)
    about = [line for line in lines if "W&B" in line or "wandb" in line]
    assert about == [f"W&B: online, lab/hidden_subnet, at {server.url}"]
    assert about == lines[:1]
    assert empty(cwd) == []
    assert len(server.runs) == (3 if arguments else 1)
    again = launched(cwd, environment, *arguments)
    assert about[0] not in again or arguments  # nothing is sent of a run that was done before


def empty(folder: Path) -> list[Path]:
    """Return the empty folders in those of W&B's client."""
    return [path for path in folder.rglob("wandb/**/*") if path.is_dir() and not list(path.iterdir())]


def track(folder: Path, *, paths: bool, mode: str = "auto") -> None:
    config = make(mode=mode)
    config.tracker.paths, config.data.root = paths, str(folder.parent / "images")
    (tracker,) = open_trackers(config, folder, None, pytest.fail)
    for row in ROWS:
        tracker.log(row)
    tracker.finish({**RESULT, "environment": {"host": "this-machine", "torch": "2.14"}})


PLACES = ("host", "program", "executable", "root", "args")


@pytest.mark.slow
def test_nothing_says_on_which_machine_it_ran(folder: Path, server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    track(folder, paths=False)
    (run,) = server.runs.values()
    assert not run.created["host"]
    assert not run.created["program"]
    assert "wandb-metadata.json" not in run.files
    sent = bytes(server.seen)
    assert [text for text in (str(folder.parent), sys.executable, "this-machine") if text.encode() in sent] == []
    assert folder.name.encode() in sent


@pytest.mark.slow
def test_it_is_sent_where_asked_for(folder: Path, server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the positive control of the test before."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    track(folder, paths=True)
    (run,) = server.runs.values()
    assert run.created["host"] == os.uname().nodename
    assert json.loads(run.files["wandb-metadata.json"]).keys() >= {*PLACES[:-1]}
    sent = bytes(server.seen)
    assert [text for text in (str(folder), sys.executable, "this-machine") if text.encode() not in sent] == []


@pytest.mark.slow
def test_offline_records_say_neither(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    track(folder, paths=False, mode="offline")
    (found,) = records(folder)
    text = json.dumps(found)
    assert [word for word in (str(folder.parent), sys.executable, "this-machine") if word in text] == []
    assert empty(folder) == []
