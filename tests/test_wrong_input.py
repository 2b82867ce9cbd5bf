"""Wrong input: one line that names the value, the rule and the choices, before anything runs, and nothing written."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from forked_launch import HEAVY, LAUNCH, Launch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hidden_subnet.check import ConfigError
from hidden_subnet.settings import Config
from hidden_subnet.single import run_single
from hidden_subnet.sweep.sweep import run_sweep
from hydra_plugins.hidden_subnet.compose import to_checked_config
from hydra_plugins.hidden_subnet.errors import one_line
from hydra_plugins.hidden_subnet.grid_sweeper import expand

Compose = Callable[..., Config]

# (arguments, what the line must contain)
NAMES_AND_TYPES: list[tuple[str, list[str]]] = [
    ("prune_rate=abc", ["prune_rate", "abc"]),
    ("prune_rate=null", ["prune_rate", "null"]),
    ("prune_rate=0.1,0.5", ["prune_rate=0.1,0.5", "add -m"]),
    ("model=conv3", ["model=conv3", "conv2, conv4, conv6, conv8, fc"]),
    ("model=torchvision", ["model=torchvision", "model.name=resnet18"]),
    ("init=signed", ["init=signed", "did you mean signed_constant", "standard"]),
    ("method=edgepopup", ["method=edgepopup", "did you mean edge_popup", "dense, dnw, edge_popup, last_layer, random"]),
    ("data=mnsit", ["data=mnsit", "did you mean mnist", "cifar100", "digits"]),
    ("tracker=wandbb", ["tracker=wandbb", "did you mean wandb", "none"]),
    ("sweep=unknown", ["sweep=unknown", "prune_rates"]),
    ("sweep=prune_rate", ["sweep=prune_rate", "did you mean prune_rates"]),
    ("method=schema", ["method=schema", "dense, dnw, edge_popup, last_layer, random"]),
    ("method=schema/dense", ["method=schema/dense", "dense, dnw, edge_popup, last_layer, random"]),
    ("prune_rat=0.5", ["prune_rat", "did you mean prune_rate"]),
    ("modle=conv2", ["modle", "did you mean model"]),
    ("lr=0.1", ["lr", "did you mean train.lr"]),
    ("epochs=3", ["epochs", "did you mean train.epochs"]),
    ("model.widht=2", ["model.widht", "did you mean model.width"]),
    ("train.epoch=3", ["train.epoch", "did you mean train.epochs"]),
    ("seeds.weigths=3", ["seeds.weigths", "did you mean seeds.weights"]),
    ("+typo=1", ["typo", "no such setting"]),
    ("++typo=1", ["typo", "no such setting"]),
    ("+train.typo=1", ["typo", "no such setting"]),
    ("train={lr:0.1,epoch:1}", ["epoch", "did you mean train.epochs"]),
    ("train.epochs=1.5", ["train.epochs", "1.5"]),
    ("train.optimizer=sdg", ["train.optimizer", "sdg", "sgd, adam"]),
    ("train.schedule=linear", ["train.schedule", "linear", "cosine, constant, multistep"]),
    ("train.device=gpu", ["train.device", "gpu", "auto, cpu, cuda, mps"]),
    ("method=dense init.scale=density", ["init.scale=density", "method=dense"]),
    ("init.scale=refrence", ["init.scale", "refrence", "none, density, reference"]),
    ("init.scale=reference prune_rate=0", ["init.scale=reference", "prune_rate=0"]),
    ("init.scale=reference init=xavier_normal", ["init.scale=reference", "init=xavier_normal", "init=kaiming_normal"]),
    ("method=sampled init.scale=density", ["init.scale=density", "method=sampled"]),
    ("method=sampled init.scale=reference", ["init.scale=reference", "method=sampled"]),
    ("method=sampled method.penalty=-1", ["method.penalty=-1", "0 or larger"]),
    ("method=sampled method.score_constant=nan", ["method.score_constant=nan"]),
    ("method=sampled method.evaluation=all", ["method.evaluation", "all", "sample, threshold, mean"]),
    ("method=edge_popup method.penalty=1", ["method.penalty", "method=sampled"]),
    ("method=dnw", ["init=signed_constant", "method=dnw", "init=kaiming_normal"]),
    ("method=warmup_then_prune train.epochs=6", ["method.weight_epochs=6", "train.epochs=6"]),
    ("method=warmup_then_prune method.weight_epochs=0", ["method.weight_epochs=0", "at least 1"]),
    ("method=warmup_then_prune pruning.ramp_epochs=9", ["pruning.ramp_epochs=9", "weight_epochs=6", "epochs=15"]),
    ("pruning=overall", ["pruning=overall", "global, layerwise"]),
    ("init.scale=1", ["init.scale", "1", "none, density"]),
    ("init.mode=fan_avg", ["init.mode", "fan_avg", "fan_in, fan_out"]),
    ("data.root=null", ["data.root", "null"]),
]

# Rules of hidden_subnet/check.py; only settings, no groups: these are set without Hydra, which takes 0.1 s each.
RULES: list[tuple[str, list[str]]] = [
    ("prune_rate=1.5", ["prune_rate=1.5", "at least 0 and below 1"]),
    ("prune_rate=1", ["prune_rate=1", "at least 0 and below 1"]),
    ("prune_rate=-0.1", ["prune_rate=-0.1", "at least 0 and below 1"]),
    ("prune_rate=nan", ["prune_rate=nan", "at least 0 and below 1"]),
    ("prune_rate=inf", ["prune_rate=inf", "at least 0 and below 1"]),
    # Its 12 digits, which are what counts, say 1: a mask would keep nothing.
    ("prune_rate=0.9999999999999", ["prune_rate", "below 1"]),
    ("train.epochs=0", ["train.epochs=0", "1 or larger"]),
    ("train.epochs=-1", ["train.epochs=-1", "1 or larger"]),
    ("train.batch_size=0", ["train.batch_size=0", "1 or larger"]),
    ("train.batch_size=-8", ["train.batch_size=-8", "1 or larger"]),
    ("train.threads=0", ["train.threads=0", "1 or larger"]),
    ("train.lr=0", ["train.lr=0", "method=random"]),
    ("train.lr=-1", ["train.lr=-1"]),
    ("train.lr=nan", ["train.lr=nan"]),
    ("train.momentum=1", ["train.momentum=1", "below 1"]),
    ("train.weight_decay=-1", ["train.weight_decay=-1", "0 or larger"]),
    ("train.label_smoothing=1", ["train.label_smoothing=1", "below 1"]),
    ("train.nesterov=true train.momentum=0", ["train.nesterov", "train.momentum"]),
    ("train.nesterov=true train.optimizer=adam", ["train.nesterov", "sgd"]),
    ("train.schedule=multistep", ["train.milestones=[]", "from 1 to 14"]),
    ("train.schedule=multistep train.milestones=[15]", ["train.milestones=[15]", "from 1 to 14"]),
    ("train.schedule=multistep train.milestones=[5,3]", ["train.milestones=[5, 3]", "rising"]),
    ("train.milestones=[3]", ["train.milestones=[3]", "train.schedule=multistep"]),
    ("train.warmup_epochs=16", ["train.warmup_epochs=16", "train.epochs=15"]),
    ("model.width=0.001", ["model.width=0.001", "without channels", "0.015625"]),
    ("model.width=0", ["model.width=0", "positive"]),
    ("model.width=nan", ["model.width=nan", "positive"]),
    ("model.name=conv8", ["model=conv8", "at least 16 pixels", "8x8"]),
    ("model.name=resnet18", ["model=resnet18", "at least 32 pixels", "8x8"]),
    ("model.name=cifar_resnet18 model.width=0.01", ["model.width=0.01", "without channels", "0.015625"]),
    ("model.name=conv3", ["model.name=conv3", "did you mean conv", "conv2, conv4", "model=torchvision"]),
    ("model.name=vit_b_16", ["model.name=vit_b_16", "model=torchvision"]),
    ("model.norm=batch", ["model.norm=batch", "no norm layers"]),
    ("train.norm_batches=3", ["train.norm_batches=3", "model=conv2", "no batch norm"]),
    ("model.temperature=0", ["model.temperature=0", "positive"]),
    ("model.temperature=nan", ["model.temperature=nan", "positive"]),
    ("train.norm_batches=-1", ["train.norm_batches=-1", "0"]),
    ("model.name=cifar_resnet18 train.batch_size=1", ["train.batch_size=1", "cifar_resnet18", "another size"]),
    ("model.library=torchvision model.name=vit_b_16 model.width=2", ["model.width=2", "torchvision"]),
    ("model.library=torchvision model.name=resnet18 model.norm=batch", ["model.norm=batch", "torchvision"]),
    ("init.name=standard init.scale=density", ["init.scale=density", "init=standard"]),
    ("init.name=xavier_normal init.mode=fan_out", ["init.mode=fan_out", "init=xavier_normal"]),
    ("data.validation=1", ["data.validation=1", "below 1"]),
    ("data.validation=-0.1", ["data.validation=-0.1", "at least 0"]),
    ("data.validation=0.0001", ["data.validation=0.0001", "0 of 1437"]),
    ("pruning.ramp_epochs=-1", ["pruning.ramp_epochs=-1", "0 (no ramp)"]),
    ("pruning.ramp_epochs=15", ["pruning.ramp_epochs=15", "train.epochs=15"]),
    ("pruning.ramp_epochs=5 pruning.start_rate=0.6", ["pruning.start_rate=0.6", "prune_rate=0.5"]),
    ("pruning.start_rate=1", ["pruning.start_rate=1", "below 1"]),
    ("pruning.floor=1.1", ["pruning.floor=1.1", "0 to 1"]),
    ("data.crop=-1", ["data.crop=-1", "0"]),
    ("seed=-1", ["seed=-1", "0 or larger"]),
    ("seeds.data=-1", ["seeds.data=-1", "0 or larger"]),
    ("checkpoint.minutes=-1", ["checkpoint.minutes=-1", "0 or larger"]),
    ("checkpoint.every=-1", ["checkpoint.every=-1", "a number of epochs"]),
    ("method.name=dense", ["method.name=dense", "method=dense"]),
]

# What launch.py turns into a line; anything else is a traceback.
CAUGHT = (HydraException, OmegaConfBaseException, ValueError, OSError)


def assert_one_line(error: BaseException, words: list[str]) -> None:
    line = one_line(error)
    assert "\n" not in line
    assert len(line) <= 300
    for word in words:
        assert word in line


@pytest.mark.parametrize(("arguments", "words"), NAMES_AND_TYPES, ids=[arguments for arguments, _ in NAMES_AND_TYPES])
def test_wrong_names_and_types(compose_single: Compose, arguments: str, words: list[str]) -> None:
    with pytest.raises(CAUGHT) as caught:
        compose_single(*arguments.split())
    assert_one_line(caught.value, words)


@pytest.mark.parametrize(("arguments", "words"), RULES, ids=[arguments for arguments, _ in RULES])
def test_broken_rules(compose: Compose, arguments: str, words: list[str]) -> None:
    config = OmegaConf.structured(compose())
    config.merge_with_dotlist(arguments.split())
    with pytest.raises(ConfigError) as caught:
        to_checked_config(config)
    assert_one_line(caught.value, words)


def compose_all(compose: Compose, given: list[str]) -> list[Config]:
    """Every job of `python launch.py -m <given> seed=0`."""
    presets = [override for override in given if override.startswith("sweep=")]
    jobs = expand(OverridesParser.create(), [*given, "seed=0"], compose(*presets).grids or [{}])
    return [compose(*job) for job in jobs]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("prune_rate=0.1,1.5", ["prune_rate=1.5", "below 1"]),
        ("prune_rate=0.1,nan", ["prune_rate=nan", "below 1"]),
        ("prune_rate=0.1,-0.1", ["prune_rate=-0.1", "at least 0"]),
        ("prune_rate=0.1,abc", ["prune_rate", "abc"]),
        ("prune_rate=range(0.5,1.1,0.5)", ["prune_rate=1", "below 1"]),
        ("model=conv2,conv8", ["model=conv8", "at least 16 pixels"]),
        ("method=edge_popup,foo", ["method=foo", "dense, dnw, edge_popup, last_layer, random"]),
        ("train.epochs=1,0", ["train.epochs=0", "1 or larger"]),
        ("model.widht=1,2", ["model.widht", "did you mean model.width"]),
        ("prune_rate=interval(0.1,0.5)", ["interval(0.1,0.5)", "range("]),
        ("sweep=prune_rates prune_rate=0.5 init.scale=density", ["init.scale=density", "method=dense"]),
    ],
)
def test_one_wrong_value_in_a_list_stops_all(compose: Compose, arguments: str, words: list[str]) -> None:
    with pytest.raises(CAUGHT) as caught:
        compose_all(compose, arguments.split())
    assert_one_line(caught.value, words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("prune_rate=1.5", ["prune_rate=1.5", "below 1"]),
        ("-m prune_rate=0.1,1.5", ["prune_rate=1.5", "below 1"]),
        ("sweep=unknown", ["prune_rates"]),
        ("-m pretrained=nope.pt prune_rate=0.1,0.2", ["pretrained=nope.pt", "there is no such file"]),
        ("-m evaluate=a,b", ["evaluate=a", "leave -m"]),
        ("+typo=1", ["typo", "no such setting"]),
        ("~tracker", ["~tracker", "nothing can be taken away"]),
        ("-m prune_rate=glob(*)", ["glob"]),
        ("-m seed=0,1 hydra.launcher.workers=0", ["hydra.launcher.workers=0", "1 or more"]),
        # Loads torch, and is tried below without the command too.
        pytest.param("data=mnist data.root=FILE", ["data.root=", "data=digits"], marks=pytest.mark.slow),
        ("data=imagenet data.root=FILE", ["data=imagenet", "train/ and val/", "data.root="]),
        ("-m data.name=cifar10,mnist", ["data.name=cifar10,mnist", "write data=cifar10,mnist"]),
    ],
)
def test_the_command_says_one_line_and_writes_nothing(
    launch: Launch, tmp_path: Path, arguments: str, words: list[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    cwd = tmp_path / "empty"
    cwd.mkdir()
    done = launch(cwd, *arguments.replace("FILE", str(file)).split(), "tracker=none")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert os.listdir(cwd) == []
    assert file.read_text() == "in the way"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data=mnist", "data.root=FILE"], ["data.root=", "data=digits"]),
        (["data=mnist", "data.root=FILE/below"], ["data.root=", "data=digits"]),
        (["out=FILE"], ["out=", "another out"]),
        (["out=FILE/below"], ["out=", "another out"]),
    ],
)
def test_files_in_the_way_stop_runs_and_sweeps_before_they_begin(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], words: list[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    cwd = tmp_path / "empty"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    given = [override.replace("FILE", str(file)) for override in overrides]
    configs = [compose(*given, "tracker=none", f"seed={seed}") for seed in (0, 1)]
    with pytest.raises(CAUGHT) as caught:
        run_sweep(configs, "label", workers=1)
    assert_one_line(caught.value, words)
    with pytest.raises(CAUGHT) as caught:
        run_single(configs[0])
    assert_one_line(caught.value, words)
    assert os.listdir(cwd) == []
    assert file.read_text() == "in the way"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["prune_rate=0.5", "edge_popup", "fashion_mnist"]),
        (["--cfg", "job", "model=fc", "prune_rate=0.9"], ["name: fc", "prune_rate: 0.9"]),
    ],
)
def test_help_needs_no_torch_and_works_anywhere(
    launch: Launch, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    done = launch(tmp_path, *arguments)
    assert done.returncode == 0
    assert done.heavy == []
    assert done.stderr == ""
    for word in words:
        assert word in done.stdout
    assert os.listdir(tmp_path) == []


def test_plain_help_says_what_hydra_says(launch: Launch, tmp_path: Path) -> None:
    said = [launch(tmp_path, *arguments).stdout for arguments in (["--help"], ["-h"], ["--help", "seed=0"])]
    assert said[0] == said[1] == said[2]
    assert "prune_rate" in said[0]


def test_a_wrong_value_is_found_without_torch(launch: Launch, tmp_path: Path) -> None:
    done = launch(tmp_path, "-m", "prune_rate=0.1,1.5")
    assert done.returncode == 1
    assert done.heavy == []
    assert done.stderr.startswith("error: ")


@pytest.mark.slow
def test_the_command_by_itself(launch: Launch, tmp_path: Path) -> None:
    """The tests above fork it from a process that has loaded what it needs."""
    given = ("-m", "prune_rate=0.1,1.5")
    whole = subprocess.run(
        [sys.executable, "-X", "importtime", str(LAUNCH), *given],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    loaded = [line.rpartition("|")[2].strip() for line in whole.stderr.splitlines() if line.startswith("import time:")]
    assert "hydra" in loaded
    assert not set(HEAVY) & set(loaded)
    forked = launch(tmp_path, *given)
    assert whole.stderr.splitlines()[-1] == forked.stderr.strip()
    assert (whole.returncode, whole.stdout) == (forked.returncode, forked.stdout)
