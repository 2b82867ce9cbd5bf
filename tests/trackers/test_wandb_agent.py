"""Runs that `wandb agent` starts: the real one, against a local stand-in for W&B's server, or its variables."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.real_commands import LAUNCH, TIMEOUT, ended, folders, holder_pid, rows, start, surroundings, wait_until
from helpers.wandb_server import RESULT, Received, StandIn, SweepStandIn, make, serving

from hidden_subnet.cli.main import main
from hidden_subnet.cli.wandb_sweep import sweep_of
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError
from hidden_subnet.store import files
from hidden_subnet.trackers.wandb_environment import GIVEN
from hidden_subnet.trackers.wandb_tracker import COUNTS, KILLED, NOT_SETTINGS, columns, origin, outcome
from hydra_plugins.hidden_subnet.wandb_agent import own_arguments

pytest_plugins = ["helpers.wandb_server"]
pytestmark = pytest.mark.usefixtures("clean")

FIXED = ["data=digits", "model=fc"]
WANDB = {"cli_version": "0.31.0", "t": {"1": [1, 5]}}
WHOLE: dict[str, Any] = {
    "_wandb": WANDB,
    "config": {"model": {"name": "vit_b_16"}},
    "density": 0.7,
    "model": "vit_b_16",
}


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that sets the variables of the agent, which gives these parameters."""

    def started(**parameters: Any) -> None:
        path = tmp_path / "config-run1.yaml"
        entries = {name: {"value": value, "desc": None} for name, value in parameters.items()}
        path.write_text(yaml.safe_dump({"wandb_version": 1, **entries}))
        monkeypatch.setenv("WANDB_SWEEP_ID", "swp12345")
        monkeypatch.setenv("WANDB_RUN_ID", "run1")
        monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(path))

    return started


@pytest.mark.parametrize(
    ("parameters", "given", "ours"),
    [
        ({"prune_rate": 0.3}, ["prune_rate=0.3", *FIXED], ["prune_rate=0.3", *FIXED]),
        ({"prune_rate": 0.3}, [*FIXED, "++prune_rate=0.3"], [*FIXED, "++prune_rate=0.3"]),
        ({"seeds.weights": None}, ["seeds.weights=None"], ["seeds.weights=null"]),
        ({"seeds.weights": None}, ["++seeds.weights=None", "a=None"], ["++seeds.weights=null", "a=None"]),
        (
            {"prune_rate": 0.3, "_wandb": WANDB, "config": {"train": {"lr": 0.1}}, "density": 0.5, "data": "digits"},
            [
                "prune_rate=0.3",
                f"_wandb={WANDB}",
                "config={'train': {'lr': 0.1}}",
                "density=0.5",
                "data=digits",
                *FIXED,
            ],
            ["prune_rate=0.3", "data=digits", *FIXED],
        ),
        # The column `model` holds the name of the network, and the option is another one.
        (
            WHOLE,
            ["model=torchvision", "model.name=vit_b_16", *(f"{name}={value}" for name, value in WHOLE.items())],
            ["model=torchvision", "model.name=vit_b_16"],
        ),
        (
            {"density": 0.5},
            ["density=0.5"],
            ["density=0.5"],
        ),  # a wrong setting of the sweep's own is for Hydra to refuse
    ],
)
def test_what_wandb_adds_is_removed(agent: Any, parameters: dict[str, Any], given: list[str], ours: list[str]) -> None:
    assert own_arguments(given) == given
    agent(**parameters)
    assert own_arguments(given) == ours


def test_what_we_add_is_removed_and_what_the_sweep_gave_stays(agent: Any, tmp_path: Path) -> None:
    """A run that W&B hands back has all columns; with those names the command is again the one that began it."""
    agent(**{"prune_rate": 0.3, "train.lr": 0.2})
    config = make()
    sent = {**columns(config), **origin(config, tmp_path), "prune_rate": 0.3, "train.lr": 0.2}
    assert sent[GIVEN] == ["prune_rate", "train.lr"]
    agent(**sent, _wandb=WANDB)
    command = ["model=torchvision", "model.width=1.0", "data=digits", "seed=0"]
    kept = own_arguments([*command, *(f"{name}={value}" for name, value in {**sent, "_wandb": 0}.items())])
    assert sorted(kept) == sorted([*command, "prune_rate=0.3", "train.lr=0.2"])
    assert origin(config, tmp_path)[GIVEN] == sent[GIVEN]


def test_what_was_removed_is_one_line(agent: Any, capsys: pytest.CaptureFixture[str]) -> None:
    agent(**WHOLE)
    own_arguments([f"{name}={value}" for name, value in WHOLE.items()])
    assert capsys.readouterr().out == (
        "removed what W&B adds to the config of a run that it hands back: _wandb, config, density\n"
    )


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        (["--prune_rate=0.3"], "gives it as --prune_rate=0.3, not as prune_rate=0.3"),
        (["--prune_rate", "0.3"], "gives it as --prune_rate, not as prune_rate=0.3"),
        (["+prune_rate=0.3"], "gives it as +prune_rate=0.3, not as prune_rate=0.3"),
        (['{"prune_rate": 0.3}'], "does not give it as prune_rate=0.3"),
        (FIXED, "does not give it as prune_rate=0.3"),
        (["-m", "prune_rate=0.3", "seed=0,1"], "-m: a point of W&B's sweep is one run; remove it"),
        (["sweep=smoke", "prune_rate=0.3"], "sweep=smoke: a point of W&B's sweep is one run"),
    ],
)
def test_other_forms_are_refused_with_the_right_one(agent: Any, given: list[str], refused: str) -> None:
    agent(prune_rate=0.3)
    with pytest.raises(ConfigError, match=re.escape(refused)):
        own_arguments(given)


def test_what_to_write_into_the_sweep(agent: Any) -> None:
    agent(prune_rate=0.3)
    with pytest.raises(ConfigError) as caught:
        own_arguments(FIXED)
    typed = yaml.safe_load(str(caught.value).partition("in it, type: ")[2])
    assert typed == {"command": ["${env}", "python", "${program}", "${args_no_hyphens}"]}


def test_nested_parameters_are_refused(agent: Any) -> None:
    agent(train={"lr": 0.1})
    with pytest.raises(
        ConfigError, match=r"^train: .*; in the sweep's `parameters`, type: train\.lr: \{value: 0\.1\}$"
    ):
        own_arguments(["train={'lr': 0.1}"])


def test_columns_that_are_no_settings(tmp_path: Path) -> None:
    settings = {field.name for field in fields(Config)}
    names = {*columns(make()), *origin(make(), tmp_path), *outcome(RESULT, False), "commit", GIVEN}
    assert {name for name in names if "." not in name} - settings == {*NOT_SETTINGS}
    assert names.isdisjoint(COUNTS)


ENDLESS = ["data=synthetic", "model.width=0.25", "train.epochs=1000000", "train.threads=1"]
"""A run that does not end before the test has done what it does to it, on a machine of any speed."""
SETTINGS = ["data=synthetic", "model.width=0.125", "train.epochs=2", "train.threads=1", "out=runs"]


@pytest.fixture
def sweeps() -> Iterator[StandIn]:
    with serving(SweepStandIn()) as server:
        yield server


def wandb(cwd: Path, server: StandIn, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "wandb", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT,
        env=surroundings(**server.environment(), PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_points_of_a_sweep(sweeps: SweepStandIn, tmp_path: Path) -> None:
    """Executed; done before, as another sweep asks for them; and handed back with their config after a preemption."""
    command = ["${env}", "python", "${program}", "${args_no_hyphens}", *SETTINGS]
    grid = {"program": str(LAUNCH), "method": "grid", "parameters": {"prune_rate": {"values": [0.3, 0.7]}}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({**grid, "command": command}))
    wandb(tmp_path, sweeps, "sweep", "--project", "hidden_subnet", "--entity", "me", "sweep.yaml")
    for round in ("executed", "done before", "handed back"):
        sweeps.runs.clear()
        if round == "handed back":
            sweeps.give(**(WHOLE | {"data": "synthetic", "method": "edge_popup", "seed": 0, "model": "conv2"}))
        elif round == "done before":
            sweeps.give()
        said = wandb(tmp_path, sweeps, "agent", "me/hidden_subnet/swp12345", "--count", "2")
        assert said.count("done: ") == (2 if round == "executed" else 0)
        assert said.count("skipped: ") == (0 if round == "executed" else 2)
        assert sorted(sweeps.runs) == ["agentrun0", "agentrun1"], round
        for folder in folders(tmp_path):
            run = sweeps.runs[(folder / "wandb_id").read_text().strip()]
            assert (run.created["sweep"], run.created["project"], run.created["entity"]) == (
                "swp12345", "hidden_subnet", "me",
            )  # fmt: skip
            assert run.rows == files.read_rows(folder)
            assert run.exit_code == 0


@pytest.mark.slow
def test_a_preset_is_a_sweep_of_wandb(
    sweeps: SweepStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Written as a file, taken by `wandb sweep`, and a point of it run by `wandb agent`."""
    preset = {"data": "synthetic", "model.width": 0.125, "train.epochs": 2, "train.threads": 1, "tracker": "none"}
    grids = [{"prune_rate": [0.3, 0.7], "seed": [0, 1]}, {"method": "dense", "pretrained": None}]
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({"common": preset, "grids": grids}))
    (tmp_path / "launch.py").symlink_to(LAUNCH)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["wandb-sweep", "./small.yaml", "--method", "random"])
    typed = [line.partition("type: ")[2].split() for line in capsys.readouterr().out.splitlines()]
    assert [words[-1] for words in typed] == ["wandb-small-1.yaml", "wandb-small-2.yaml"]
    for words, points in zip(typed, (4, 1), strict=True):
        said = wandb(tmp_path, sweeps, *words[1:-1], "--entity", "me", words[-1])
        assert "wandb agent me/hidden_subnet/swp12345" in said
        assert len(sweeps.points) == points
        said = wandb(tmp_path, sweeps, "agent", "me/hidden_subnet/swp12345", "--count", "1")
        assert said.count("done: ") == 1, said
        run = sweeps.runs[f"agentrun{points - 1}"]
        assert run.rows[-1]["epoch"] == 2
        assert "validation/top1" in run.rows[-1]
    assert [len(files.read_rows(folder)) for folder in folders(tmp_path)] == [3, 3]


@pytest.mark.parametrize(
    ("grid", "method", "refused"),
    [
        ({"model.width, prune_rate": [[0.5, 0.1]]}, "grid", "none tied to another; type: python launch.py sweep=small"),
        ({"seed": "range(0,3)"}, "grid", "small: seed: W&B's parameters are lists of values"),
        ({"data.validation": 0}, "bayes", "no images are held out; type: python -m hidden_subnet wandb-sweep small"),
    ],
)
def test_presets_that_wandb_cannot_have(grid: dict[str, Any], method: str, refused: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(refused)):
        sweep_of("small", grid, method)


def test_a_preset_as_wandb_gets_it() -> None:
    grid = {"method": ["edge_popup", "random"], "data.validation": 0, "train.milestones": [[1, 2]], "tracker": "none"}
    assert sweep_of("small", grid, "grid", Path("here")) == {
        "name": "small",
        "program": "launch.py",
        "method": "grid",
        "parameters": {
            "method": {"values": ["edge_popup", "random"]},
            "data.validation": {"value": 0},
            "train.milestones": {"value": [1, 2]},
        },
        "command": ["${env}", "python", "launch.py", "${args_no_hyphens}", "out=here"],
    }


def test_an_unknown_preset_is_one_line() -> None:
    with pytest.raises(SystemExit, match=r"^error: prune_rate: there is no such preset \(.*\); did you mean: "):
        main(["wandb-sweep", "prune_rate"])


def started_by_agent(server: StandIn, run: str) -> dict[str, str]:
    sweep = {"WANDB_SWEEP_ID": "swp12345", "WANDB_PROJECT": "hidden_subnet", "WANDB_ENTITY": "me"}
    return surroundings(**server.environment(), **sweep, WANDB_RUN_ID=run)


def terminated(server: StandIn, cwd: Path, settings: list[str], *, stopped: bool = False) -> tuple[int, str, Received]:
    """Start the run as the agent does, and send it a TERM when it has a new row and W&B's client has begun to send.

    stopped: W&B has stopped the run a moment before, so the TERM is the agent's.
    """
    before = rows(folders(cwd)[0]) if folders(cwd) else 0
    starts = server.runs["agentrun0"].starts if server.runs else 0
    process = start(cwd, str(LAUNCH), *settings, env=started_by_agent(server, "agentrun0"))
    wait_until(lambda: "agentrun0" in server.runs and server.runs["agentrun0"].starts > starts, "the client's start")
    wait_until(lambda: folders(cwd) and rows(folders(cwd)[0]) > before, "a row")
    run = server.runs["agentrun0"]
    run.streamed.clear()
    if stopped:
        server.stopped.add("agentrun0")
    os.kill(holder_pid(folders(cwd)[0]), signal.SIGTERM)
    said = ended(process)
    return process.returncode, said, run


@pytest.mark.slow
def test_preempted_runs_come_back_and_stopped_ones_do_not(server: StandIn, tmp_path: Path) -> None:
    """TERM twice: as a cluster sends it, and as the agent does when W&B terminates the run early; then the rest."""
    long = [*ENDLESS, "train.epochs=1000"]  # so that it can end; two starts of W&B's client are a few seconds
    code, said, run = terminated(server, tmp_path, long)
    assert (code, run.exit_code) == (130, 1), said
    assert any(part.get("preempting") for part in run.streamed)
    code, said, run = terminated(server, tmp_path, long, stopped=True)
    assert (code, run.exit_code) == (0, KILLED), said
    assert "W&B asked it to stop (early termination, or the stop button)" in said
    assert not any(part.get("preempting") for part in run.streamed)
    server.stopped.clear()
    process = start(tmp_path, str(LAUNCH), *long, env=started_by_agent(server, "agentrun0"))
    assert "done: " in ended(process)
    assert list(server.runs) == ["agentrun0"]
    assert [row["epoch"] for row in run.rows] == list(range(1001))


@pytest.mark.slow
def test_the_stop_button_without_an_agent(server: StandIn, tmp_path: Path) -> None:
    """The run saves and stops with a line; W&B keeps that one as killed, so the resumed run is another one there."""
    command = [str(LAUNCH), *ENDLESS]
    environment = surroundings(**server.environment())
    process = start(tmp_path, *command, env=environment)
    wait_until(lambda: server.runs and next(iter(server.runs.values())).rows, "a row")
    ((name, killed),) = server.runs.items()
    server.stopped.add(name)
    said = ended(process)
    assert process.returncode == 130, said
    assert "W&B asked it to stop (early termination, or the stop button)" in said
    assert killed.exit_code == KILLED
    assert not any(part.get("preempting") for part in killed.streamed)
    (folder,) = folders(tmp_path)
    before = rows(folder)
    process = start(tmp_path, *command, env=environment)
    wait_until(lambda: len(server.runs) == 2 and rows(folder) > before, "the resumed run")
    resumed = server.runs[(folder / "wandb_id").read_text().strip()]
    assert resumed is not killed
    os.kill(holder_pid(folder), signal.SIGTERM)
    ended(process)
    assert resumed.rows == files.read_rows(files.working(folder))


@pytest.mark.slow
def test_a_run_interrupted_without_an_agent_is_whole_under_one(server: StandIn, tmp_path: Path) -> None:
    long = ["data=synthetic", "model.width=0.125", "train.epochs=40", "train.threads=1"]
    process = start(tmp_path, str(LAUNCH), *long, "tracker=none")
    wait_until(lambda: folders(tmp_path) and rows(folders(tmp_path)[0]) > 2, "a row")
    (folder,) = folders(tmp_path)
    os.kill(holder_pid(folder), signal.SIGTERM)
    ended(process)
    process = start(tmp_path, str(LAUNCH), *long, env=started_by_agent(server, "agentrun7"))
    said = ended(process)
    assert process.returncode == 0, said
    assert "does not have all" not in said
    assert server.runs["agentrun7"].rows == files.read_rows(folder)
    assert (folder / "wandb_id").read_text().strip() == "agentrun7"
