"""plan=true: the runs, what is done, weights and times; nothing is run or written, and torch is not loaded."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.forked_launch import Launch

from hidden_subnet.config.identity import projection
from hidden_subnet.config.settings import Config
from hidden_subnet.data.catalog import INFO
from hidden_subnet.models.networks import build
from hidden_subnet.report.plan import MAX_RUNS, finished, planned, print_plan, weights
from hidden_subnet.store import files
from hidden_subnet.sweep.console import clock
from hidden_subnet.sweep.progress import makespan
from hydra_plugins.hidden_subnet.slurm_launcher import SlurmLauncher

Compose = Callable[..., Config]


@pytest.mark.parametrize("data", ["digits", "cifar10", "cifar100"])
@pytest.mark.parametrize("name", ["fc", "conv2", "conv4", "conv6", "conv8"])
@pytest.mark.parametrize("width", [1.0, 0.3])
def test_weights_are_those_of_the_network_that_is_built(compose: Compose, name: str, width: float, data: str) -> None:
    if (name, data) == ("conv8", "digits"):
        data = "fashion_mnist"
    config = compose(f"model={name}", f"model.width={width}", f"data={data}")
    network = build(name, width, INFO[data].shape, INFO[data].classes)
    assert weights(config) == sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize(
    ("seconds", "workers", "until"),
    [
        ([], 2, 0),
        ([3], 4, 3),
        ([1, 1, 1, 1], 2, 2),
        ([1, 1, 4], 2, 5),
        ([4, 1, 1], 2, 4),
        ([2, 3, 1], 1, 6),
    ],
)
def test_makespan(seconds: list[float], workers: int, until: float) -> None:
    assert makespan(seconds, workers) == until


def test_clock() -> None:
    assert [clock(each) for each in (4.24, 65, 7265)] == ["4.2 s", "1:05", "2:01:05"]


def write_result(out: Path, config: Config, seconds: float) -> Path:
    folder = out / files.folder_of(config).name
    folder.mkdir(parents=True)
    result = {"projection": projection(config), "seconds": seconds, "last": {"test": {"top1": 0.5}}}
    (folder / files.RESULT).write_text(json.dumps(result))
    return folder


@pytest.mark.parametrize(
    ("done", "asked", "seconds"),
    [
        ([([], 30)], ["seed=1"], 30),
        ([([], 30)], ["prune_rate=0.9"], 30),
        ([([], 30), (["seed=1"], 50), (["seed=2"], 40)], ["seed=3"], 40),  # the median
        ([([], 30)], ["train.epochs=30"], 60),  # 15 epochs are the default
        ([([], 30), (["train.epochs=10"], 5)], ["train.epochs=11"], 5.5),  # the nearest number of epochs
        ([([], 30)], ["data=synthetic"], None),
        ([([], 30)], ["model=fc"], None),
        ([([], 30)], ["model.width=0.5"], None),
        ([([], 30)], ["method=dense"], None),
        ([(["method=random"], 2)], ["method=random", "train.epochs=30", "seed=3"], 2),  # trains nothing
        ([], [], None),
    ],
)
def test_time_from_similar_finished_runs(
    compose: Compose, tmp_path: Path, done: list[tuple[list[str], float]], asked: list[str], seconds: float | None
) -> None:
    for overrides, took in done:
        write_result(tmp_path, compose(*overrides), took)
    found = finished(tmp_path).estimate(projection(compose(*asked)))
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_states_and_what_is_left(compose: Compose, tmp_path: Path) -> None:
    out = f"out={tmp_path}"
    configs = [compose(out, f"seed={seed}") for seed in range(4)]
    write_result(tmp_path, configs[0], 30)
    # Interrupted after 5 of 15 epochs: the first row is the untrained network's.
    attempt = files.folder_of(configs[1]) / "attempts" / "1"
    attempt.mkdir(parents=True)
    (attempt / "metrics.jsonl").write_text("".join(f'{{"epoch": {epoch}}}\n' for epoch in range(6)))
    owner: dict[str, Any] = {
        "host": "h", "machine": "m", "pid": 1, "started": "1", "slurm": None, "restart": 0, "worker": "",
        "silent_seconds": 90.0, "at": "",
    }  # fmt: skip
    (attempt / "claim.json").write_text(json.dumps(owner))
    (attempt / "ended.json").write_text('{"state": "interrupted", "message": "stopped"}')
    # Being executed now, on another machine.
    attempt = files.folder_of(configs[2]) / "attempts" / "1"
    attempt.mkdir(parents=True)
    (attempt / "claim.json").write_text(json.dumps(owner))
    runs = planned(configs)
    assert [(run.state, run.runs) for run in runs] == [
        ("done", False), ("interrupted", True), ("running", False), ("to do", True),
    ]  # fmt: skip
    assert runs[1].seconds == pytest.approx(20)
    assert runs[3].seconds == 30
    forced = planned([compose(out, f"seed={seed}", "force=true") for seed in range(2)])
    assert [(run.state, run.runs, run.seconds) for run in forced] == [("done", True, 30), ("interrupted", True, 30)]


def test_what_is_said(compose: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configs = [compose(f"out={tmp_path}", f"seed={seed}") for seed in range(5)]
    write_result(tmp_path, configs[0], 30)
    settings = {"workers": 3, "jobs_per_gpu": 1, "partition": "gpu", "timeout_min": 240, "mem_gb": 8}
    launcher = SlurmLauncher(**settings, cpus_per_task=None, gpus_per_node=None)
    print_plan(configs, launcher.at_a_time(configs), launcher.described)
    tasks = "Slurm: 3 tasks of one array in partition gpu; each: at most 240 minutes, mem_gb=8"
    assert tasks in " ".join(capsys.readouterr().out.split())
    print_plan(configs, 4)
    said = capsys.readouterr().out
    assert f"plan: 5 runs in {tmp_path}: 1 done, 4 to do" in said
    assert "4 runs to execute; estimated from similar finished runs: " in said
    assert "1 at a time 2:00, 4 at a time 30.0 s" in said
    for config in configs:
        assert f"{files.folder_of(config).name}  {weights(config):,}" in said


def test_long_lists_are_told_by_combination(
    compose: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates, seeds = [0.1, 0.5], range(MAX_RUNS)
    configs = []
    for rate in rates:
        for seed in seeds:
            config = compose(f"out={tmp_path}")
            config.prune_rate, config.seed = rate, seed
            configs.append(config)
    write_result(tmp_path, configs[0], 2)
    print_plan(configs)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 12
    [first] = [line.split() for line in lines if line.strip().startswith("0.1 ")]
    [second] = [line.split() for line in lines if line.strip().startswith("0.5 ")]
    assert first == ["0.1", "30", "367,680", "58.0", "s", "1", "done,", "29", "to", "do"]
    assert second == ["0.5", "30", "367,680", "1:00", "30", "to", "do"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan=true"], ["1 run ", "1 to do", "367,680"]),
        (["-m", "prune_rate=0.1,0.5", "plan=true"], ["2 runs", "2 to do", "pr0.1", "pr0.5"]),
        pytest.param(
            ["-m", "prune_rate=0.1,0.5", "plan=true", "hydra/launcher=basic"],
            ["2 runs", "2 to do"],
            marks=pytest.mark.slow,
        ),
        (["plan=true", "-m", "prune_rate=0.1,0.5"], ["2 runs", "2 to do"]),  # overrides on both sides of -m
        pytest.param(
            ["sweep=prune_rates", "plan=true"], ["57 runs", "57 to do", "dense", "random"], marks=pytest.mark.slow
        ),
        (["-m", "method=edge_popup,random", "seed=range(0,50)", "plan=true"], ["100 runs", "50 to do"]),
    ],
)
def test_plan_runs_nothing_and_writes_nothing(
    launch: Launch, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    said = launch(tmp_path, *arguments)
    assert said.returncode == 0, said.stderr
    assert said.heavy == []
    assert said.stderr == ""
    for word in words:
        assert word in said.stdout
    assert len(said.stdout.splitlines()) < 40
    assert os.listdir(tmp_path) == []
