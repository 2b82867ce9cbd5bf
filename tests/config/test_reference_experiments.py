"""sweeps/reference.csv: the authors' 112 experiments and our commands for them, setting by setting.

What is expected comes from their own settings (tests/data/experiments.json), never from the csv.
"""

import math
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from helpers.composing import make_composer
from helpers.image_folders import make_folder
from helpers.reference_experiments import DEFAULTS, EXPERIMENTS, IDS, METHODS, ROWS, expected, words

from hidden_subnet.config.identity import folder_name, projection
from hidden_subnet.config.registries import method_traits
from hidden_subnet.config.settings import Config
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.state import weights_digest
from hidden_subnet.store import files
from hidden_subnet.training.callbacks import Callbacks
from hidden_subnet.training.experiment import build_network, masked, open_images, resolve
from hidden_subnet.training.run import train_to_the_end


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands for ImageNet; ten classes, so that it stands for CIFAR-10 too."""
    return make_folder(tmp_path_factory.mktemp("images"), classes=10, train=2, val=1)


@pytest.fixture(scope="module")
def composed(images: Path) -> Callable[..., Config]:
    """composed(command, ...): the checked config of a command of the csv, with settings added to it."""
    composer = make_composer()
    return lambda command, *added: composer.compose([*words(command), f"data.root={images}", *added])


def test_every_experiment_has_its_row_in_order() -> None:
    assert [row["experiment"] for row in ROWS] == IDS
    assert len(set(IDS)) == 112


@pytest.mark.parametrize(
    ("experiment", "row"),
    [
        pytest.param(experiment, row, id=row["experiment"], marks=[pytest.mark.slow] * (index % 4 > 0))
        for index, (experiment, row) in enumerate(zip(EXPERIMENTS, ROWS, strict=True))
    ],
)
def test_every_setting_is_theirs(
    composed: Callable[..., Config], experiment: dict[str, Any], row: dict[str, str]
) -> None:
    config = composed(row["command"])
    what = projection(config)
    del what["schema"], what["seeds"]
    what["data"].pop("found", None)
    rate = what.pop("prune_rate", None)
    assert what == expected(experiment)
    # The rate is for whoever types it, as there: it stands in the command where there is one, and nowhere else.
    assert (rate is not None) == method_traits(config).has_prune_rate == ("prune_rate=" in row["command"])
    assert rate in (None, 0.7 if experiment["set"] == "ImageNet" else 0.5)
    assert ("model.width=" in row["command"]) == experiment["arch"].endswith("Wide")


@pytest.mark.parametrize(("experiment", "row"), [*zip(EXPERIMENTS, ROWS, strict=True)], ids=IDS)
def test_the_notes_say_what_differs(
    composed: Callable[..., Config], experiment: dict[str, Any], row: dict[str, str]
) -> None:
    note = row["note"]
    for part in ("RGConv", "DNWConv"):
        assert (f"{part} is not defined" in note) == (experiment["conv_type"] == part) == (
            f"{part} is not defined" in experiment.get("note", "")
        )  # fmt: skip
    assert ("baseline=" in note) == ("baseline" in experiment)
    assert ("no weight decay" in note) == (experiment["optimizer"] == "adam")
    assert ("init.scale=reference" in note) == ("scale_fan" in experiment)
    assert ("takes its width" in note) == experiment["arch"].endswith("Wide")
    if "the same run as " in note:
        other = next(each for each in ROWS if each["experiment"] == note.partition("the same run as ")[2])
        assert folder_name(composed(row["command"])) == folder_name(composed(other["command"]))


def test_experiments_that_are_one_run_say_so(composed: Callable[..., Config]) -> None:
    runs = {folder_name(composed(row["command"])) for row in ROWS}
    assert len(runs) == len([row for row in ROWS if "the same run as " not in row["note"]]) == 98


def test_nothing_is_said_twice(composed: Callable[..., Config]) -> None:
    """But for what a reader looks for (the four parts, the rate, the width), no word of a command is a default."""
    kept = ("model=", "data=", "method=", "init=", "prune_rate=", "model.width=")
    for row in ROWS:
        settings, whole = words(row["command"]), folder_name(composed(row["command"]))
        for word in settings:
            if not word.startswith(kept):
                fewer = " ".join(["python launch.py", *(each for each in settings if each != word)])
                assert folder_name(composed(fewer)) != whole, (row["experiment"], word)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if "init.scale=density" in row["command"]], ids=lambda r: r["experiment"]
)
def test_the_scale_may_be_turned_upside_down(composed: Callable[..., Config], row: dict[str, str]) -> None:
    config = composed(row["command"], "init.scale=reference", "prune_rate=0.9")
    assert (config.init.scale.name, config.prune_rate) == ("reference", 0.9)


def kind(experiment: dict[str, Any]) -> str:
    init = experiment.get("init", DEFAULTS["init"])
    return f"{experiment['arch']}-{METHODS[experiment['conv_type']]['name']}-{init}"


# One experiment of each architecture x method x init that occurs.
KINDS = {kind(experiment): row for experiment, row in reversed([*zip(EXPERIMENTS, ROWS, strict=True)])}
SMALL_DATA = {
    "data=mnist": ["data=synthetic", "data.size=28"],
    # Image files with three channels and ten classes, as CIFAR-10 has, and its side.
    "data=cifar10": ["data=imagenet", "data.size=32", "data.resize=32"],
    "data=imagenet": ["data=imagenet", "data.size=64", "data.resize=64"],
}
ONE_STEP = ["data.one_batch=true", "train.batch_size=2", "train.epochs=1", "train.warmup_epochs=0", "tracker=none"]
ONE_STEP += ["data.workers=0", "train.device=cpu"]


def test_every_kind_of_experiment_is_there() -> None:
    assert len(KINDS) == 65


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_one_batch_of_every_kind(composed: Callable[..., Config], name: str, tmp_path: Path) -> None:
    """Every network in its own size; those of the wide kind at half of it."""
    command = KINDS[name]["command"].replace("model.width=1", "model.width=0.5")
    data = next(word for word in words(command) if word.startswith("data="))
    config = composed(" ".join(word for word in command.split() if word != data), *SMALL_DATA[data], *ONE_STEP)
    (tmp_path / "checkpoints").mkdir()
    run = resolve(config)
    with open_images(run) as loaders:
        built = build_network(run)
        experiment = masked(built, run, tmp_path, loaders)
        layers = masked_layers(experiment.network)
        scores = {path: layer.scores.detach().sum().item() for path, layer in layers}
        first = experiment.evaluate(loaders.test).values()
        trainer, _ = train_to_the_end(experiment, {"unpruned": first, "first_mask": first}, None, Callbacks())
    shutil.rmtree(tmp_path / "checkpoints")  # half a gigabyte for the widest
    assert (trainer.state.epoch, trainer.state.step) == (1, 1)
    row = files.read_rows(tmp_path)[-1]
    assert math.isfinite(row["train/loss"])
    assert row["train/loss"] > 0
    method = config.method.name
    searches = method in ("edge_popup", "sampled", "dnw")  # dnw's scores are the weights that it trains
    assert (weights_digest(experiment.network) == built.weights_sha256) == searches
    learned = [path for path, layer in layers if layer.scores.detach().sum().item() != scores[path]]
    assert bool(learned) == searches
    if method == "dense":
        assert (scores, row["density"]) == ({}, 1)
    for path, layer in layers:
        n, kept = layer.weight.numel(), int(trainer.state.masks[path].count_nonzero())
        if method == "sampled":
            assert 0 < kept < n or n < 1000
        else:
            assert kept == n - math.floor(Fraction(str(config.prune_rate)) * n), path
