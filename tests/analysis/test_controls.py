"""Controls: each change of a network of four weights, written out; the runs beside it; the sentences on them."""

import copy
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.masking import mask_as_edge_popup
from helpers.runs import QUIET
from torch import Tensor, nn

from hidden_subnet.analysis.controls import (
    DENSE_LR,
    READOUT_LR,
    UNTRAINED,
    closest_width,
    invert_scores,
    measure,
    measure_untrained,
    readout_runs,
    redraw_weights,
    shuffle_masks,
    small_dense_runs,
)
from hidden_subnet.analysis.evaluate import load_checkpoint, rebuilt
from hidden_subnet.cli.main import main
from hidden_subnet.config.identity import folder_name, projection
from hidden_subnet.config.registries import info_of
from hidden_subnet.config.settings import Config, Device, Model
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.state import count_parameters, current_masks
from hidden_subnet.models.from_config import bare_network
from hidden_subnet.report.controls import INVERTED, READOUT, REDRAWN, SHUFFLED, SMALL, Study, sentence, shown, verdict
from hidden_subnet.store import files
from hidden_subnet.sweep.execute import execute

Compose = Callable[..., Config]
TINY = ("data=synthetic", "model=fc", "model.width=0.1", "tracker=none")


def with_scores(scores: list[list[float]], rate: float = 0.5) -> nn.Module:
    model = nn.Sequential(nn.Linear(len(scores[0]), len(scores), bias=False))
    mask_as_edge_popup(model, rate)
    [(_, layer)] = masked_layers(model)
    layer.scores.detach().copy_(torch.tensor(scores))
    return model


def mask_of(model: nn.Module) -> list[list[int]]:
    [(_, layer)] = masked_layers(model)
    return layer.rule.mask(layer.scores.detach()).int().tolist()


@pytest.mark.parametrize(
    ("scores", "rate", "before", "after"),
    [
        ([[0.1, -0.9], [0.2, 0.5]], 0.5, [[0, 1], [0, 1]], [[1, 0], [1, 0]]),
        ([[0.1, -0.9], [0.2, 0.5]], 0.25, [[0, 1], [1, 1]], [[1, 0], [1, 1]]),
        ([[0.1, -0.9], [0.2, 0.5]], 0.0, [[1, 1], [1, 1]], [[1, 1], [1, 1]]),
        # One float apart, where maximum - |score| would round them together.
        ([[1.0, 1e-9, 2e-9, 3e-9]], 0.5, [[1, 0, 0, 1]], [[0, 1, 1, 0]]),
    ],
)
def test_inverted_scores_keep_the_lowest(
    scores: list[list[float]], rate: float, before: list[list[int]], after: list[list[int]], compose: Compose
) -> None:
    model = with_scores(scores, rate)
    assert mask_of(model) == before
    invert_scores(model, compose(), 0)
    assert mask_of(model) == after


def test_inverted_scores_keep_their_signs(compose: Compose) -> None:
    model = with_scores([[0.25, -1.0], [-0.5, 0.75]])
    invert_scores(model, compose(), 0)
    assert [layer.scores.tolist() for _, layer in masked_layers(model)] == [[[1.0, -0.25], [-0.75, 0.5]]]


class SignedRule:
    """Keeps the weights whose score is above 0, as a sampled mask's threshold does."""

    def mask(self, scores: Tensor) -> Tensor:
        return scores > 0

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        return weight * self.mask(scores)


def test_inverted_scores_of_a_rule_without_magnitudes(compose: Compose) -> None:
    model = with_scores([[-3.0, 1.0], [2.0, -1.0]])
    [(_, layer)] = masked_layers(model)
    layer.rule = SignedRule()
    invert_scores(model, compose(), 0)
    assert layer.scores.tolist() == [[2.0, -1.0], [-3.0, 1.0]]


def test_a_shuffled_mask_keeps_as_many_in_each_layer(compose: Compose) -> None:
    config = compose(*TINY)
    model = bare_network(config.model, info_of(config.data), seed=0)
    mask_as_edge_popup(model, 0.9)
    for _, layer in masked_layers(model):
        layer.scores.detach().uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    before, scores = current_masks(model), [layer.scores for _, layer in masked_layers(model)]
    seen = []
    for seed in (0, 1, 0):
        same = copy.deepcopy(model)
        shuffle_masks(same, config, seed)
        seen.append(current_masks(same))
        for path, mask in seen[-1].items():
            assert mask.sum() == before[path].sum()
            assert not torch.equal(mask, before[path])
        for (_, layer), values in zip(masked_layers(same), scores, strict=True):
            assert torch.equal(layer.scores.flatten().sort().values, values.flatten().sort().values)
    assert all(torch.equal(seen[0][path], seen[2][path]) for path in before)
    assert not all(torch.equal(seen[0][path], seen[1][path]) for path in before)


def test_redrawn_weights_have_the_runs_init_and_its_mask(compose: Compose) -> None:
    config = compose(*TINY, "init.scale=density", "prune_rate=0.75")
    model = bare_network(config.model, info_of(config.data), seed=0)
    mask_as_edge_popup(model, 0.75)
    masks = current_masks(model)
    redraw_weights(model, config, 5)
    first = model.get_submodule("fc1").weight.clone()
    assert first.abs().unique().tolist() == pytest.approx([(2 / 64) ** 0.5 * 2])
    redraw_weights(model, config, 6)
    assert not torch.equal(first, model.get_submodule("fc1").weight)
    assert all(torch.equal(mask, masks[path]) for path, mask in current_masks(model).items())


# The runs that are trained beside it


@pytest.mark.parametrize("model", ["fc", "conv2", "conv8"])
@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5, 0.9])
def test_the_width_with_the_closest_number_of_parameters(model: str, fraction: float, compose: Compose) -> None:
    config = compose(f"model={model}", "data=cifar10")
    info = info_of(config.data)

    def parameters(width: float) -> int:
        with torch.device("meta"):
            return count_parameters(bare_network(Model(name=model, width=width), info, seed=0))

    wanted = round(fraction * parameters(1.0))
    width = closest_width(config.model, info, wanted)
    here = abs(parameters(width) - wanted)
    assert here <= 0.1 * wanted
    for step in (-0.02, -0.001, 0.001, 0.02):
        if 0.016 <= width + step <= 1:  # below, a layer of 64 channels has none
            assert here <= abs(parameters(round(width + step, 3)) - wanted)


def test_nothing_removed_is_the_whole_network_and_next_to_nothing_the_smallest(compose: Compose) -> None:
    config = compose(*TINY)
    info = info_of(config.data)
    assert closest_width(config.model, info, 10**9) == 0.1
    assert closest_width(config.model, info, 1) == 0.01


def test_trained_controls_are_ordinary_runs_in_the_runs_recipe(compose: Compose, tmp_path: Path) -> None:
    run = compose(*TINY, "train.epochs=3", "train.momentum=0.8", "seed=4", "init.scale=density", "force=true")
    readout = readout_runs(run, tmp_path, 3)
    small = small_dense_runs(run, tmp_path, 2, 1000)
    recipe = ["train.epochs=3", "train.momentum=0.8", "seed=4"]
    asked = compose(*TINY, *recipe, "method=last_layer")
    assert folder_name(readout[0]) == folder_name(asked)
    assert folder_name(readout[2]) == folder_name(compose(*TINY, *recipe, "method=last_layer", "seeds.weights=6"))
    width = f"model.width={small[0].model.width}"
    assert folder_name(small[1]) == folder_name(compose(*TINY, *recipe, "method=dense", width, "seeds.weights=5"))
    assert {config.force for config in readout + small} == {False}
    assert (compose("method=dense").train.lr, compose("method=last_layer").train.lr) == (DENSE_LR, READOUT_LR)


def test_weights_from_a_file_make_one_readout_and_no_small_network(compose: Compose, tmp_path: Path) -> None:
    run = compose(*TINY)
    run.pretrained, run.pretrained_sha256 = "x.pt", "0" * 64
    assert [projection(config)["pretrained"] for config in readout_runs(run, tmp_path, 3)] == ["0" * 64]
    small = small_dense_runs(run, tmp_path, 3, 1000)
    assert len(small) == 3
    assert all("pretrained" not in projection(config) for config in small)


# What the numbers say


def study(own: float = 0.9, **means: float) -> Study:
    found = {"shuffled": 0.1, "redrawn": 0.1, "inverted": 0.1, "readout": 0.5, "small": 0.9, **means}
    names = [SHUFFLED, REDRAWN, INVERTED, READOUT, SMALL]
    return Study(own, 0.1, 1000, {name: [value] for name, value in zip(names, found.values(), strict=True)})


@pytest.mark.parametrize(
    ("means", "name", "said"),
    [
        ({}, SHUFFLED, "at chance: all of the accuracy comes from which weights are kept"),
        ({"shuffled": 0.3}, SHUFFLED, 
         "25 % of the gain over chance remains; the rest comes from which weights are kept"),
        ({"shuffled": 0.89}, SHUFFLED, "which weights a layer keeps does not matter"),
        ({}, REDRAWN, "at chance: the mask works with these weights only"),
        ({"redrawn": 0.9}, REDRAWN,
         "the mask works as well with other weights: the connections matter, not these weights"),
        ({"inverted": 0.12}, INVERTED, "at chance: the weights with the lowest scores do not classify"),
        ({"inverted": 0.5}, INVERTED, "50 % of the gain over chance is reached by the weights with the lowest scores"),
        ({}, READOUT, "the mask gives 40.0 points more than a trained readout of random features"),
        ({"readout": 0.95}, READOUT,
         "a trained readout of random features is better (+5.0 points): this accuracy needs no mask"),
        ({"readout": 0.88}, READOUT,
         "a trained readout of random features is as good (-2.0 points, within noise): this accuracy needs no mask"),
        ({}, SMALL, "training as many weights is as good (+0.0 points, within noise)"),
        ({"small": 0.95}, SMALL, "training as many weights gives 5.0 points more"),
        ({"small": 0.8}, SMALL, "training as many weights gives 10.0 points less"),
    ],
)  # fmt: skip
def test_sentences(means: dict[str, float], name: str, said: str) -> None:
    assert sentence(study(**means), name) == said


@pytest.mark.parametrize(
    ("means", "begins"),
    [
        ({}, "the accuracy comes from the mask: 90.00 %, but 10.00 % when it is shuffled and 10.00 % with other "
             "weights; a trained readout of random features reaches 50.00 %"),
        ({"shuffled": 0.9}, "the choice of weights does not matter: another mask with as many in each layer "
                             "reaches 90.00 %"),
        ({"readout": 0.9}, "the mask matters (10.00 % when it is shuffled), but this accuracy needs no mask: a "
                           "trained readout of random features reaches 90.00 %"),
        ({"own": 0.11}, "the run itself is at chance (11.00 %): there is no accuracy to explain"),
    ],
)  # fmt: skip
def test_verdicts(means: dict[str, float], begins: str) -> None:
    assert verdict(study(**means)) == begins


def test_at_chance_no_control_says_anything() -> None:
    assert {sentence(study(own=0.1), name) for name in study().controls} == {"-"}


def test_mean_and_deviation_as_shown() -> None:
    assert shown([0.1, 0.2]) == "15.00 ± 7.07 %"
    assert shown([0.5]) == "50.00 %"
    assert statistics.stdev([0.1, 0.2]) == pytest.approx(0.0707, abs=1e-4)


# A whole run


@pytest.fixture(scope="module")
def run(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("controls") / "runs"
    return execute(compose("data=digits", "model=fc", "train.epochs=4", "tracker=none", f"out={out}"), QUIET).folder


def test_what_needs_no_training_leaves_the_network_as_it_was(run: Path) -> None:
    with rebuilt(run, Device.auto) as (experiment, result):
        load_checkpoint(experiment, result, "last")
        before = {name: value.clone() for name, value in experiment.network.state_dict().items()}
        found = measure_untrained(experiment, 2)
        assert {name: len(values) for name, values in found.items()} == {SHUFFLED: 2, REDRAWN: 2, INVERTED: 1}
        assert all(torch.equal(value, before[name]) for name, value in experiment.network.state_dict().items())
        assert measure_untrained(experiment, 2) == found
        own = result["last"]["test"]["top1"]
        assert own > 0.8
        assert all(value < 0.5 for values in found.values() for value in values)
        assert list(found) == list(UNTRAINED)


@pytest.mark.parametrize("settings", [(), ("train.norm_batches=3",)], ids=["running", "recomputed"])
def test_an_unchanged_network_with_batch_norm_is_a_control_equal_to_the_run(
    settings: tuple[str, ...], compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(UNTRAINED, SHUFFLED, (lambda network, config, seed: None, False))
    config = compose(
        "data=synthetic", "model=cifar_resnet18", "model.width=0.0625", "train.epochs=1", "tracker=none",
        *settings, f"out={tmp_path}",
    )  # fmt: skip
    with rebuilt(execute(config, QUIET).folder, Device.auto) as (experiment, result):
        load_checkpoint(experiment, result, "last")
        found = measure_untrained(experiment, 1)
        assert found[SHUFFLED] == [measure(experiment)]
        assert found[INVERTED] != found[SHUFFLED]
        if settings:  # the run itself was measured so
            assert measure(experiment) == result["last"]["test"]["top1"]


@pytest.mark.slow
def test_the_command(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def call(*arguments: str) -> tuple[object, str]:
        with pytest.raises(SystemExit) as exit:
            main(arguments)
        return exit.value.code, capfd.readouterr().out

    assert (
        call("controls", str(run), "--workers", "0")[0] == "error: --workers 0: must be at least 1; as in: --workers 1"
    )
    code, said = call("controls", run.name[-12:], "--seeds", "2", "--out", str(run.parent))
    assert code == 0
    assert "4 done" in said
    assert len([path for path in run.rglob("*") if path.is_file()]) <= 10
    content = json.loads((run / files.CONTROLS).read_text())
    assert [each["name"] for each in content["controls"]] == [SHUFFLED, REDRAWN, INVERTED, READOUT, SMALL]
    assert [len(each["test_top1"]) for each in content["controls"]] == [2, 2, 1, 2, 2]
    for each in content["controls"][3:]:
        results = [files.read_result(run.parent / name) for name in each["runs"]]
        assert [result["last"]["test"]["top1"] for result in results if result] == each["test_top1"]
    assert " ".join(content["verdict"].split()) in " ".join(said.split())
    code, said = call("controls", str(run), "--seeds", "2", "--out", str(run.parent))
    assert code == 0
    assert "4 of them finished before" in said
    assert json.loads((run / files.CONTROLS).read_text()) == content
    code, said = call("controls", content["controls"][3]["runs"][0], "--out", str(run.parent))
    assert "method=last_layer lacks the trait has_controls" in str(code)
