"""docs/from_hidden_networks.md: every row of its table is tried."""

import re
import shlex
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from helpers.composing import make_composer
from helpers.image_folders import make_folder
from helpers.reference_experiments import EXPERIMENTS, METHODS, MODELS, ROWS, expected
from helpers.runs import QUIET

from hidden_subnet.cli.main import main
from hidden_subnet.config.identity import projection
from hidden_subnet.config.settings import Config
from hidden_subnet.sweep.execute import RunObserver, execute
from hidden_subnet.training.experiment import build_network, resolve
from hydra_plugins.hidden_subnet.evaluating import evaluate_as_asked

PAGE = (Path(__file__).parents[2] / "docs" / "from_hidden_networks.md").read_text()
TABLE = [tuple(line.strip("| ").split(" | ")) for line in PAGE.splitlines() if line.startswith("| ")][1:]
# Where there is nothing to set.
NOTHING = ("--num-classes", "--freeze-weights", "--nonlinearity", "--trainer default", "--resume", "--print-freq")
NOTHING += ("unsigned",)
# All that their main.py takes, but --multigpu.
FLAGS = """
    --data --optimizer --set --arch --config --log-dir --workers --epochs --start-epoch --batch-size --lr
    --warmup_length --momentum --wd --weight-decay --print-freq --num-classes --resume --evaluate --pretrained --seed
    --lr-policy --multistep-lr-adjust --multistep-lr-gamma --name --save_every --prune-rate --low-data --width-mult
    --nesterov --random-subnet --one-batch --conv-type --freeze-weights --mode --nonlinearity --bn-type --init
    --no-bn-decay --scale-fan --first-layer-dense --last-layer-dense --label-smoothing --first-layer-type --trainer
    --score-init-constant
"""
FLAG = r"--[\w-]+"


def spans(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def row(start: str) -> tuple[list[str], list[str]]:
    """The authors' flags and our settings in the row that begins with `start`."""
    [found] = [each for each in TABLE if each[0].startswith(f"`{start}")]
    return spans(found[0]), spans(found[1])


@pytest.fixture(scope="module")
def composed() -> Callable[[str], Config]:
    composer = make_composer()
    return cache(lambda settings: composer.compose(shlex.split(settings)))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("images"), train=2, val=1)


@pytest.fixture(scope="module")
def trained(composed: Callable[[str], Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished dense run, which was interrupted, and went on when the same command was given again (--resume)."""
    out = tmp_path_factory.mktemp("runs")
    settings = "model=fc data=synthetic method=dense train.epochs=1 tracker=none train.device=cpu train.threads=1"
    config = composed(f"{settings} out={out}")
    steps: list[int] = []
    watch = RunObserver(QUIET.on_row, lambda epoch, batch, batches: steps.append(batch), QUIET.say)
    assert execute(config, watch, stopped=lambda: len(steps) == 3).state == "interrupted"
    said: list[str] = []
    outcome = execute(config, RunObserver(QUIET.on_row, QUIET.on_step, said.append))
    assert outcome.state == "done"
    assert any("resumes after epoch 0, batch 3" in line for line in said)
    return outcome.folder


@pytest.mark.slow
@pytest.mark.parametrize(("there", "here"), TABLE, ids=[there.partition(" ")[0].strip("`,") for there, _ in TABLE])
def test_what_is_here_works(
    compose_single: Callable[..., Config],
    composed: Callable[[str], Config],
    images: Path,
    trained: Path,
    tmp_path: Path,
    there: str,
    here: str,
) -> None:
    """Settings compose and pass every check; commands run."""
    places = {"<images>": images, "<folder>": tmp_path}
    places |= {"<run>": trained, "<file>": trained / "checkpoints" / "last.ckpt"}
    assert bool(spans(here)) == (not there.startswith(tuple(f"`{each}" for each in NOTHING)))
    for span in spans(here):
        for place, path in places.items():
            span = span.replace(place, str(path))
        span = span.replace("<word>", "word")
        if span.startswith("python -m hidden_subnet "):
            with pytest.raises(SystemExit) as end:
                main([*span.split()[3:], "--out", str(trained.parent)])
            assert end.value.code == 0
        elif "evaluate=" in span:
            settings = [*span.split()[2:], f"out={trained.parent}", "train.device=cpu"]
            assert evaluate_as_asked(compose_single(*settings), settings) == 0
        elif span.startswith("-m "):
            key, _, values = span[3:].partition("=")
            found = [projection(composed(f"{key}={value}"))[key] for value in values.split(",")]
            assert found == [float(value) for value in values.split(",")]
        else:
            words = shlex.split(span.removeprefix("python launch.py "))
            if span.startswith("model=") and "data=" not in span:
                words.append("data=cifar10")  # the default's 8x8 pixels are too small for most
            assert type(composed(shlex.join(words))) is Config


def test_every_flag_of_theirs_is_there() -> None:
    named = set(re.findall(FLAG, " ".join(there for there, _ in TABLE)))
    assert named - {"--multigpu"} == set(re.findall(FLAG, FLAGS))


def test_numbers_are_the_same_on_both_sides() -> None:
    for there, here in TABLE:
        numbers = re.findall(FLAG + r" (\d[\d.]*)`", there)
        if "--prune-rate" in there:
            numbers = [f"{1 - float(number):g}" for number in numbers]
        if spans(here):
            assert set(numbers) <= set(re.findall(r"[\d.]+", " ".join(spans(here)))), there


def test_the_config_is_that_of_the_csv() -> None:
    _, [command] = row("--config")
    assert command in [each["command"] for each in ROWS if each["experiment"].endswith("conv4/conv4_usc_unsigned.yml")]


def test_names_of_settings_are_those_of_the_experiments(composed: Callable[[str], Config]) -> None:
    for conv, method in METHODS.items():
        _, [settings] = row(f"--conv-type {conv}")
        assert composed(settings).method.name == method["name"]
    known = " ".join(here for _, here in TABLE)
    assert all(f"`model={name}" in known or f"`model={name} " in known for name in MODELS.values())
    seen = set()
    for start in ("sc", "kn", "uku"):
        for name, settings in zip(*row(start), strict=True):
            init = projection(composed(settings))["init"]
            for experiment in EXPERIMENTS:
                stem = Path(experiment["experiment"]).stem
                if name in re.split(r"[_-]", stem) and "baseline" not in experiment:  # two are named uku and are not
                    assert expected(experiment)["init"] == init, stem
                    seen.add(name)
    assert seen == {"sc", "usc", "kn", "ukn", "uku", "uxn", "uxs"}
    for name, settings in zip(*row("rg"), strict=True):
        train = projection(composed(settings))["train"]
        named = [each for each in EXPERIMENTS if f"_{name}_" in each["experiment"] and "conv" in each["experiment"]]
        assert named
        for experiment in named:
            wanted = expected(experiment)
            assert wanted["method"] == {"name": "random_trained"}
            assert wanted["train"]["optimizer"] == train["optimizer"]
            assert name == "arg" or wanted["train"]["lr"] == train["lr"]


@pytest.mark.parametrize(("rate", "same"), [(0.5, True), (0.7, False)])
def test_the_two_scales_agree_at_half(composed: Callable[[str], Config], rate: float, same: bool) -> None:
    ours, theirs = (
        next(build_network(resolve(composed(f"model=fc prune_rate={rate} init.scale={scale}"))).network.parameters())
        for scale in ("density", "reference")
    )
    assert torch.equal(ours, theirs) == same
    assert torch.allclose(ours * (1 - rate) ** 0.5, theirs * rate**0.5)


def test_counts_are_right(composed: Callable[[str], Config]) -> None:
    lost = [each for each in EXPERIMENTS if "never ran" in each.get("note", "")]
    again = [each for each in ROWS if "the same run as " in each["note"]]
    said = " ".join(PAGE.split())
    assert f"each of the {len(ROWS)} experiments" in said
    assert f"{len(lost)} could not run there" in said
    assert f"They are {len(ROWS) - len(again)} different runs" in said
