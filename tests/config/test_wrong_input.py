"""Wrong input: one line that names the value, the rule and the choices, before anything runs, and nothing written."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.first_lines import refused
from helpers.forked_launch import HEAVY, LAUNCH, Launch
from helpers.one_line import assert_one_line
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from hidden_subnet.cli.run import run_single
from hidden_subnet.cli.sweep import run_sweep
from hidden_subnet.config.settings import Config
from hydra_plugins.hidden_subnet.errors import one_line
from hydra_plugins.hidden_subnet.grid_sweeper import expand
from hydra_plugins.hidden_subnet.suggestions import all_settings

Compose = Callable[..., Config]

# (arguments, what the line must contain)
NAMES_AND_TYPES: list[tuple[str, list[str]]] = [
    ("prune_rate=abc", ["prune_rate", "abc"]),
    ("prune_rate=null", ["prune_rate", "null"]),
    ("prune_rate=0.1,0.5", ["prune_rate=0.1,0.5", "add -m"]),
    ("model=conv3", ["model=conv3", "conv2, conv4, conv6, conv8, custom, fc"]),
    ("model=torchvision", ["model=torchvision", "model.name=resnet18"]),
    ("init=signed", ["init=signed", "did you mean: init=signed_constant", "standard"]),
    ("method=edgepopup", ["method=edgepopup", "did you mean: method=edge_popup", "dense, dnw, edge_popup"]),
    ("data=mnsit", ["data=mnsit", "did you mean: data=mnist", "cifar100", "digits"]),
    ("tracker=wandbb", ["tracker=wandbb", "did you mean: tracker=wandb", "none"]),
    ("sweep=unknown", ["sweep=unknown", "prune_rates"]),
    ("sweep=prune_rate", ["sweep=prune_rate", "did you mean: sweep=prune_rates"]),
    ("method=schema", ["method=schema", "dense, dnw, edge_popup"]),
    ("method=schema/dense", ["method=schema/dense", "dense, dnw, edge_popup"]),
    ("prune_rat=0.5", ["prune_rat", "did you mean: prune_rate=0.5"]),
    ("modle=conv2", ["modle", "did you mean: model=conv2"]),
    ("lr=0.1", ["lr", "did you mean: train.lr=0.1"]),
    ("epochs=3", ["epochs", "did you mean: train.epochs=3"]),
    ("model.widht=2", ["model.widht", "did you mean: model.width=2"]),
    ("train.epoch=3", ["train.epoch", "did you mean: train.epochs=3"]),
    ("seeds.weigths=3", ["seeds.weigths", "did you mean: seeds.weights=3"]),
    ("+typo=1", ["typo", "no such setting"]),
    ("++typo=1", ["typo", "no such setting"]),
    ("+train.typo=1", ["typo", "no such setting"]),
    ("train={lr:0.1,epoch:1}", ["epoch", "did you mean: train.epochs"]),
    ("train.epochs=1.5", ["train.epochs", "1.5"]),
    (
        "train.optimizer=sdg",
        ["train.optimizer", "sdg", "sgd, adam, adamw, nadam, radam, adamax, adagrad, adadelta, rmsprop"],
    ),
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
    ("method=warmup_then_prune method.weight_epochs=0", ["method.weight_epochs=0", "1 or larger"]),
    ("method=magnitude method.weight_epochs=0", ["method.weight_epochs=0", "pretrained="]),
    ("method=warmup_then_prune pruning.ramp_epochs=9", ["pruning.ramp_epochs=9", "after 6 epochs", "epochs=15"]),
    ("pruning=overall", ["pruning=overall", "global, layerwise"]),
    ("init.scale=1", ["init.scale", "1", "none, density"]),
    ("init.mode=fan_avg", ["init.mode", "fan_avg", "fan_in, fan_out"]),
    ("data.root=null", ["data.root", "null"]),
]

WRONG = ["abc", "", "null", "[1]", "{a:1}", "1.5", "-1", "nan", "inf", "true", "1,2", "0x10", "1e400", "${nope}", "???"]

# What launch.py turns into a line; anything else is a traceback.
CAUGHT = (HydraException, OmegaConfBaseException, ValueError, OSError)


@pytest.mark.parametrize(("arguments", "words"), NAMES_AND_TYPES, ids=[arguments for arguments, _ in NAMES_AND_TYPES])
def test_wrong_names_and_types(compose_single: Compose, arguments: str, words: list[str]) -> None:
    with pytest.raises(CAUGHT) as caught:
        compose_single(*arguments.split())
    assert_one_line(caught.value, words, arguments.split())


@pytest.mark.parametrize("name", ["model", "data", "method", "tracker", "train", "seeds", *all_settings()])
def test_what_a_setting_does_not_take_ends_in_what_to_type(compose: Compose, name: str) -> None:
    """Files are left to their own tests."""
    if name.startswith(("pretrained", "mask")):
        return
    for value in WRONG:
        words = [f"{name}={value}"]
        if (line := refused(words)) is None:
            try:
                compose(*words)
                continue
            except CAUGHT as error:
                line = one_line(error, words)
        assert re.search(r"(?:type|did you mean|as in): \S", line), line


def compose_all(compose: Compose, given: list[str]) -> list[Config]:
    """Return every job of `python launch.py -m <given> seed=0`."""
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
        ("method=edge_popup,foo", ["method=foo", "dense, dnw, edge_popup"]),
        ("train.epochs=1,0", ["train.epochs=0", "1 or larger"]),
        ("model.widht=1,2", ["model.widht", "did you mean: model.width=1"]),
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
        (
            "pretrained=resnet18",
            ["no such file, and no run of that name; as in: pretrained=runs/digits-conv2"],
        ),
        (
            "method=finetune",
            ["method=finetune: has a mask that is given", "; as in: method=finetune mask=edge_popup"],
        ),
        ("mask=x method=snip", ["mask=x: method=snip finds its own mask; ", "; type: method=finetune"]),
        ("-m mask=nope seed=0,1", ["mask=nope: there is no such file, and no run of that name; as in: mask=runs/"]),
        ("hydra.verbose=2", ["hydra.verbose=2: has a value that Hydra does not take; for its settings, type: "]),
        ("out=${oc.env:NOT_SET_X}", ["NOT_SET_X is not set in the environment; as in: NOT_SET_X=... python"]),
        ("use=json", ["use=json: registers nothing; decorate what it defines, as in: @hidden_subnet.register_model"]),
        ("use=nope.py", ["nope.py: there is no such file; ", "as in: use="]),
        ("-m evaluate=a,b", ["evaluate=a", "remove -m; type: python launch.py evaluate=a"]),
        ("evaluate=", ["evaluate=: name a finished run; as in: evaluate=runs/digits-conv2"]),
        ("evaluate=x seed=1", ["without seed=1", "type: python launch.py evaluate=x"]),
        ("+typo=1", ["typo", "no such setting"]),
        ("~tracker", ["~tracker", "cannot be removed"]),
        ("-m prune_rate=glob(*)", ["glob"]),
        ("-m seed=0,1 hydra.launcher.workers=0", ["hydra.launcher.workers=0", "1 or more"]),
        # Loads torch, and is tried below without the command too.
        pytest.param("data=mnist data.root=FILE", ["data.root=", "data=digits"], marks=pytest.mark.slow),
        ("data=imagenet data.root=FILE", ["data=imagenet", "train/ and val/", "data.root="]),
        ("-m data.name=cifar10,mnist", ["data.name=cifar10,mnist", "type: data=cifar10,mnist"]),
        ("-m seed=glob(*)", ["seed=glob(*): has no values, so there is nothing to run; as in: -m seed=0,1"]),
        ("-m seed=range(0,0)", ["seed=range(0,0): has no values, so there is nothing to run; as in: -m seed=0,1"]),
        ("sweep=smoke,depth", ["sweep=smoke,depth", "only one preset at a time; type: sweep=smoke"]),
        ("hydra.job.env_copy=[NOT_SET_X]", ["NOT_SET_X is not set in the environment; as in: NOT_SET_X=1 python"]),
        ("-m seed=0,1 on_error=stop hydra/launcher=basic", ["on_error=stop: ", "; type: hydra/launcher=local"]),
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="the lines are those of a machine without a GPU")
@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("train.device=cuda", "train.device=cuda: not found on this machine; auto is the fastest that is (cpu); type: "
                              "train.device=auto"),
        ("train.mask_kernels=true", "train.mask_kernels=true: needs an NVIDIA GPU (capability 7.5 or more) and Triton "
                                    "3.8, and this run is on cpu; type: train.mask_kernels=false"),
        ("train.cuda_graph=true", "train.cuda_graph=true: needs an NVIDIA GPU, and this run is on cpu; type: "
                                  "train.cuda_graph=false"),
        ("data=mnist data.root=/dev/null/x", "data.root=/dev/null/x: cannot be written (Not a directory), and "
                                             "data=mnist is not there yet; choose another data.root, or for images "
                                             "that need no files, type: data=digits"),
        ("out=/dev/null/x", "out=/dev/null/x: results cannot be written there (/dev/null is a file); choose another "
                            "out; as in: out=runs"),
    ],
)  # fmt: skip
def test_what_this_machine_lacks(compose: Compose, tmp_path: Path, typed: str, line: str) -> None:
    config = compose(f"out={tmp_path}", "tracker=none", *typed.split())
    with pytest.raises(CAUGHT) as caught:
        run_single(config)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["prune_rate=0.9", "edge_popup", "fashion_mnist"]),
        (["--cfg", "job", "model=fc", "prune_rate=0.9"], ["name: fc", "prune_rate: 0.9"]),
    ],
)
def test_help_and_settings_are_printed_anywhere(
    launch: Launch, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    done = launch(tmp_path, *arguments)
    assert done.returncode == 0
    assert done.heavy == []
    assert done.stderr == ""
    for word in words:
        assert word in done.stdout
    assert os.listdir(tmp_path) == []


def test_a_wrong_value_is_found_before_heavy_packages_are_loaded(launch: Launch, tmp_path: Path) -> None:
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
