"""W&B's own environment variables: each is heeded, refused, or answered in one line, as docs/configuration.md says."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.wandb_server import RESULT, ROWS, StandIn, make, of_type, open_trackers, records, rows_in, sync

from hidden_subnet.config.convert import as_dict, to_yaml
from hidden_subnet.config.identity import slug
from hidden_subnet.config.settings import Config, TrackerMode
from hidden_subnet.errors import ConfigError
from hidden_subnet.store import files
from hidden_subnet.trackers import check_trackers, sent
from hidden_subnet.trackers.wandb_environment import (
    NOT_HEEDED,
    asked_mode,
    disabled_by,
    init_arguments,
    notices,
    tidy_variables,
)
from hidden_subnet.trackers.wandb_tracker import Session, prepare

pytest_plugins = ["helpers.wandb_server"]
pytestmark = pytest.mark.usefixtures("clean")

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"
ALL = {
    "WANDB_PROJECT": "mine",
    "WANDB_ENTITY": "team",
    "WANDB_NAME": "myname",
    "WANDB_RUN_GROUP": "mygroup",
    "WANDB_JOB_TYPE": "jt",
    "WANDB_TAGS": "a, b,,a",
    "WANDB_NOTES": "hello",
}
DEFAULT: dict[str, Any] = {
    "project": "hidden_subnet",
    "entity": None,
    "name": slug(make()),
    "group": None,
    "job_type": "edge_popup",
    "tags": [],
    "notes": None,
    "sweep_id": None,
}
BY_VARIABLES = {
    "project": "mine",
    "entity": "team",
    "name": "myname",
    "group": "mygroup",
    "job_type": "jt",
    "tags": ["a", "b"],
    "notes": "hello",
}


def documented() -> dict[str, str]:
    """Variable -> what the table says of it."""
    section = DOCS.read_text().partition("## Weights & Biases' variables")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {name: said.strip() for names, said in rows for name in re.findall(r"WANDB_\w+", names)}


def set_all(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_the_table_has_every_variable_of_the_client() -> None:
    import wandb.env

    names = {value for value in vars(wandb.env).values() if isinstance(value, str) and value.startswith("WANDB_")}
    assert len(names) > 60
    assert sorted(names - set(documented())) == []
    settings = {f"WANDB_{name.upper()}" for name in wandb.Settings.model_fields}
    aliases = {"WANDB_APP_URL", "WANDB_DISABLED"}
    assert sorted(set(documented()) - names - settings - aliases) == []


def test_the_table_says_which_are_not_heeded() -> None:
    said = {name for name, what in documented().items() if what.startswith("not heeded")}
    assert said | {"WANDB_RUN_ID"} == set(NOT_HEEDED)


def test_the_table_names_every_setting_that_ours_replace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    given: dict[str, Any] = {}
    monkeypatch.setattr(wandb, "init", lambda **arguments: given.update(arguments))
    Session(TrackerMode.offline, tmp_path, init_arguments(make(), None))
    replaced = {f"WANDB_{name.upper()}" for name in given["settings"].model_fields_set if not name.startswith("x_")}
    no_variable_can_set = {"WANDB_STOP_FN"}
    assert sorted(replaced - no_variable_can_set - set(documented())) == []


@pytest.mark.parametrize(
    ("variables", "changes", "sweep", "expected"),
    [
        ({}, {}, None, DEFAULT),
        ({}, {}, "s", {**DEFAULT, "group": "s", "tags": ["s"]}),
        (ALL, {}, None, {**DEFAULT, **BY_VARIABLES}),
        (ALL, {}, "s", {**DEFAULT, **BY_VARIABLES, "name": slug(make()), "tags": ["a", "b", "s"]}),
        (
            ALL,
            {"project": "given", "entity": "other", "tags": ["t"]},
            None,
            {**DEFAULT, **BY_VARIABLES, "project": "given", "entity": "other", "tags": ["t"]},
        ),
        (dict.fromkeys(ALL, ""), {}, None, DEFAULT),
        ({"WANDB_SWEEP_ID": "swp"}, {}, None, {**DEFAULT, "sweep_id": "swp"}),
        # Started by `wandb agent`: the run is where its sweep is.
        (
            {**ALL, "WANDB_SWEEP_ID": "swp", "WANDB_RUN_ID": "r1"},
            {"project": "given", "entity": "other"},
            None,
            {**DEFAULT, **BY_VARIABLES, "sweep_id": "swp"},
        ),
    ],
)
def test_a_setting_before_a_variable_before_our_default(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    changes: dict[str, Any],
    sweep: str | None,
    expected: dict[str, Any],
) -> None:
    set_all(monkeypatch, variables)
    config = make()
    for name, value in changes.items():
        setattr(config.tracker, name, value)
    assert init_arguments(config, sweep) == expected


@pytest.mark.parametrize(
    ("variables", "sweep", "said"),
    [
        ({}, True, []),
        (ALL, False, []),
        (ALL, True, ["not heeded: WANDB_NAME (each run of a sweep has its own name)"]),
        ({"WANDB_SILENT": "true", "WANDB_DISABLE_GIT": "True", "WANDB_CONSOLE": "off", "WANDB_DIR": ""}, False, []),
        ({"WANDB_SILENT": "false"}, False, ["not heeded: WANDB_SILENT (W&B's client prints nothing here)"]),
        (
            {"WANDB_RUN_ID": "r1", "WANDB_ANONYMOUS": "must"},
            False,
            [
                "not heeded: WANDB_ANONYMOUS (W&B has no anonymous runs any more); "
                "WANDB_RUN_ID (a run's id on W&B is kept in its folder, so that it resumes there)"
            ],
        ),
        ({"WANDB_RUN_ID": "r1", "WANDB_SWEEP_ID": "s", "WANDB_DIR": "/x"}, False, []),
    ],
)
def test_one_line_for_what_is_not_heeded(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sweep: bool, said: list[str]
) -> None:
    set_all(monkeypatch, variables)
    assert notices(make(), sweep=sweep) == said
    no_metric = ["W&B's sweep gets no metric of this run: wandb is not among its trackers"]
    assert notices(make([]), sweep=sweep) == no_metric * ("WANDB_SWEEP_ID" in variables)


def test_under_an_agent_the_place_is_that_of_its_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"WANDB_RUN_ID": "r1", "WANDB_SWEEP_ID": "s"})
    config = make()
    config.tracker.project = "mine"
    assert notices(config, sweep=False) == ["not heeded: tracker.project (the run is where W&B's sweep is)"]


@pytest.mark.parametrize(
    ("variables", "asked", "off", "mode"),
    [
        ({}, "auto", None, "auto"),
        ({"WANDB_MODE": ""}, "auto", None, "auto"),
        ({"WANDB_MODE": "online"}, "auto", None, "online"),
        ({"WANDB_MODE": "offline"}, "auto", None, "offline"),
        ({"WANDB_MODE": "dryrun"}, "auto", None, "offline"),
        ({"WANDB_MODE": "offline"}, "online", None, "online"),
        ({"WANDB_MODE": "disabled"}, "auto", "WANDB_MODE=disabled", "auto"),
        ({"WANDB_MODE": "disabled"}, "offline", None, "offline"),
        ({"WANDB_DISABLED": "true"}, "auto", "WANDB_DISABLED=true", "auto"),
        ({"WANDB_DISABLED": "false"}, "auto", None, "auto"),
        ({"WANDB_DISABLED": "true"}, "online", None, "online"),
    ],
)
def test_the_mode(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], asked: str, off: str | None, mode: str
) -> None:
    set_all(monkeypatch, variables)
    assert (disabled_by(TrackerMode[asked]), asked_mode(TrackerMode[asked]).name) == (off, mode)
    check_trackers(make())


def test_a_mode_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "of")
    with pytest.raises(ConfigError) as caught:
        check_trackers(make())
    assert str(caught.value) == (
        "WANDB_MODE=of: must be online, offline or disabled; or a setting comes before it; as in: tracker.mode=offline"
    )
    check_trackers(make(["tensorboard"]))


def test_what_the_client_would_refuse_is_tidied(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"WANDB_PROJECT": "", "WANDB_TAGS": f"a,, {'b' * 70} ,a", "WANDB_MODE": "", "WANDB_NAME": "n"})
    tidy_variables()
    left = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
    assert left == {"WANDB_TAGS": f"a,{'b' * 64}", "WANDB_NAME": "n"}


def test_folders_that_the_user_chose_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", "/data/wandb")
    for name in ("one", "two"):  # two runs in one process
        prepare(tmp_path / name)
        assert os.environ["WANDB_CACHE_DIR"] == str(tmp_path / name)
        assert os.environ["WANDB_DATA_DIR"] == "/data/wandb"


@pytest.mark.slow
def test_a_value_that_the_client_refuses_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "soon")
    script = (
        "import sys; from pathlib import Path; from helpers.wandb_server import make, open_trackers, RESULT;"
        "(tracker,) = open_trackers(make(), Path(sys.argv[1]), None, print); tracker.finish(RESULT)"
    )
    here = Path(__file__).parents[1]
    said = subprocess.check_output(
        [sys.executable, "-c", script, str(folder)],
        text=True,
        env={**os.environ, "PYTHONPATH": f"{here}:{here.parent}"},
    )
    (line,) = said.splitlines()
    assert "W&B's client refuses its variables or settings: init_timeout: " in line


def track(folder: Path, config: Config, rows: list[dict[str, float]] = ROWS) -> None:
    (tracker,) = open_trackers(config, folder, None, pytest.fail)
    for row in rows:
        tracker.log(row)
    tracker.finish(RESULT)


@pytest.mark.slow
def test_offline_record_has_what_the_variables_say(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**ALL, "WANDB_HOST": "myhost", "WANDB_RESUME": "must", "WANDB_RUN_ID": "other"})
    monkeypatch.setenv("WANDB_DIR", str(folder.parent / "elsewhere"))
    track(folder, make(mode="offline"))
    (found,) = records(folder)
    (run,) = of_type(found, "run")
    names = {"project": "project", "entity": "entity", "display_name": "name", "run_group": "group"}
    names |= {"job_type": "job_type", "tags": "tags", "notes": "notes"}
    assert {ours: run[theirs] for theirs, ours in names.items()} == BY_VARIABLES
    assert run["host"] == "myhost"
    assert run["run_id"] == (folder / "wandb_id").read_text().strip()
    assert rows_in(found) == ROWS


@pytest.mark.slow
def test_sync_keeps_to_the_project_and_name_of_the_run(
    folder: Path, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, ALL)
    config = make(mode="auto")
    (folder / files.CONFIG).write_text(to_yaml(as_dict(config)))
    (folder / files.METRICS).write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    files.write_json(folder / files.RESULT, RESULT)
    track(folder, config)  # offline, for want of a key
    for name in ALL:
        monkeypatch.delenv(name)
    set_all(monkeypatch, {**server.environment(), "WANDB_PROJECT": "another", "WANDB_NOTES": "another"})
    assert sync([folder], print) == 0
    ((name, run),) = server.runs.items()
    assert name == (folder / "wandb_id").read_text().strip()
    assert run.rows == ROWS
    got = {"project": run.created["project"], "entity": run.created["entity"], "name": run.created["displayName"]}
    got |= {"group": run.created["groupName"], "job_type": run.created["jobType"], "tags": run.created["tags"]}
    assert {**got, "notes": run.created["notes"]} == BY_VARIABLES


@pytest.mark.slow
def test_a_run_that_resumes_in_another_project_is_whole_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tracker,) = open_trackers(make(), folder, None, pytest.fail)
    tracker.log(ROWS[0])
    tracker.interrupt()
    (folder / files.METRICS).write_text(json.dumps(ROWS[0]) + "\n")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    track(folder, make(), ROWS[1:])
    _, second = records(folder)
    assert rows_in(second) == ROWS
    assert of_type(second, "run")[0]["project"] == "mine"


def test_a_record_of_0_1_0_is_read(folder: Path) -> None:
    (folder / "wandb_id").write_text("abc\n")
    (folder / sent.SENT).write_text('{"id": "abc", "group": "my-sweep", "rows": 3, "ended": true}\n')
    found = sent.read(folder)
    assert found == sent.Sent("abc", {"group": "my-sweep"}, rows=3, ended=True)
    assert found is not None
    assert found.is_in("hidden_subnet", None)
