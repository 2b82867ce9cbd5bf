"""The workspace that `dashboard` saves, as the real wandb-workspaces sends it to a stand-in for W&B's server."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.run_folders import config, finish
from helpers.wandb_server import StandIn

from hidden_subnet.cli.main import main
from hidden_subnet.config.settings import Train
from hidden_subnet.store import files
from hidden_subnet.trackers import sent

pytest_plugins = ["helpers.wandb_server"]
pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture
def key(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return what the command prints, or the line with which it ends."""
    with pytest.raises(SystemExit) as end:
        main(["dashboard", *words])
    return end.value.code if isinstance(end.value.code, str) else capsys.readouterr().out.strip()


def spec(server: StandIn) -> dict[str, Any]:
    (view,) = server.views.values()
    return dict(json.loads(view["spec"])["section"])


def panels(server: StandIn) -> dict[str, list[dict[str, Any]]]:
    """Panels by the name of their section, each with its type."""
    return {
        section["name"]: [{"type": panel["viewType"], **panel.get("config", {})} for panel in section["panels"]]
        for section in spec(server)["panelBankConfig"]["sections"]
    }


@pytest.mark.slow
def test_it_is_made_once_and_then_updated(key: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ((), ("--project", "hidden_subnet", "--entity", "me")):
        assert said(capsys, *words) == f"saved the workspace: {key.url}/me/hidden_subnet?nw=hiddensubnet"
    (view,) = key.views.values()
    assert key.operations.count("UpsertView2") == 2
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("me", "hidden_subnet", "hidden_subnet")
    assert view["id"] == view["name"]  # the second one has taken the place of the first


@pytest.mark.slow
def test_its_panels(key: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "--entity", "me")
    found = panels(key)
    assert list(found) == [
        "accuracy against prune_rate", "learning curves", "density and flip rate by layer", "settings",
        "collapsed and failed",
    ]  # fmt: skip
    scatter = next(each for each in found["accuracy against prune_rate"] if each["type"] == "Scatter Plot")
    assert (scatter["xAxis"], scatter["yAxis"]) == ("config:prune_rate.value", "summary:last/test/top1")
    assert [each["metrics"] for each in found["learning curves"]] == [
        ["validation/top1"], ["validation/top1"], ["train/loss", "validation/loss"], ["lr"],
    ]  # fmt: skip
    assert {each["xAxis"] for each in found["learning curves"]} == {"epoch"}
    assert [each.get("metricRegex") for each in found["density and flip rate by layer"]] == [
        "^density/", "^flip_rate/", None, None,
    ]  # fmt: skip
    (parallel,) = [each for each in found["settings"] if each["type"] == "Parallel Coordinates Plot"]
    assert [each["accessor"] for each in parallel["columns"]] == [
        "config:method.value", "config:model.value", "config:prune_rate.value", "summary:last/test/top1",
    ]  # fmt: skip
    bars = [each for each in found["collapsed and failed"] if each["type"] == "Bar Chart"]
    assert [(each["metrics"], each["groupBy"], each["groupAgg"]) for each in bars] == [
        (["collapsed"], "method.value", "sum"), (["failed"], "method.value", "sum"),
    ]  # fmt: skip


@pytest.mark.slow
def test_runs_are_grouped_by_sweep_in_the_list_and_not_in_the_panels(
    key: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, "--entity", "me")
    section = spec(key)
    (runs,) = section["runSets"]
    assert [(each["section"], each["name"]) for each in runs["grouping"]] == [("run", "group")]
    settings = [section["settings"], *(each["localPanelSettings"] for each in section["panelBankConfig"]["sections"])]
    assert {each["useRunsTableGroupingInPanels"] for each in settings} == {False}


@pytest.mark.slow
def test_it_is_of_the_project_and_the_settings_of_the_runs_in_the_folder(
    key: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key.projects.add("mine")
    for lr in (0.1, 0.2):
        folder = finish(tmp_path / "runs", config(train=Train(lr=lr)), 0.9)
        (folder / files.WANDB_ID).write_text(f"id{lr}\n")
        sent.write(folder, sent.Sent(f"id{lr}", {"project": "mine", "entity": "lab"}, rows=1, ended=True))
    assert "/lab/mine?nw=" in said(capsys, "--out", str(tmp_path / "runs"))
    (parallel,) = [each for each in panels(key)["settings"] if each["type"] == "Parallel Coordinates Plot"]
    assert "config:config.value.train.lr" in [each["accessor"] for each in parallel["columns"]]


def test_what_is_missing_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(capsys) == "error: dashboard needs a key for W&B: set WANDB_API_KEY, or type: wandb login"
    monkeypatch.setenv("WANDB_API_KEY", 40 * "7")
    for name in [name for name in sys.modules if name.startswith("wandb_workspaces")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert said(capsys) == (
        "error: dashboard: needs the package wandb-workspaces (pip install 'hidden_subnet[dashboard]'); "
        "type: pip install wandb-workspaces"
    )


@pytest.mark.slow
def test_a_project_that_is_not_there_and_a_server_that_does_not_answer_are_one_line(
    key: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "--project", "other").startswith("error: me/other: W&B has no such project")
    key.refused = {"UpsertView2"}
    line = said(capsys)
    assert line.startswith("error: W&B does not answer: ")
    assert "\n" not in line
