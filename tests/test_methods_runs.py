"""Whole runs of every method and budget: they go on bit for bit, keep what was announced, and come back from disk."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from test_experiment import QUIET, assert_same_run, interrupt, small, trained

import hidden_subnet
from hidden_subnet import checkpoints, record
from hidden_subnet.execute import execute
from hidden_subnet.masks import kept_count
from hidden_subnet.schedules import prune_rate_at
from hidden_subnet.settings import Config, Evaluation, InitName, Pruning, PruningName, Sampled, Scale, WarmupThenPrune
from hidden_subnet.subnetwork import put_masks, random_network

RAMP = Pruning(name=PruningName["global"], ramp_epochs=2, start_rate=0.1)


def sampled(out: Path) -> Config:
    config = small(out, "sampled", lr=20.0, weight_decay=0.0)
    config.method = Sampled(penalty=1e-4)
    return config


def warmup(out: Path) -> Config:
    config = small(out, "warmup_then_prune", lr=0.03, epochs=4)
    config.method = WarmupThenPrune(weight_epochs=2)
    return config


def warmup_with_ramp(out: Path) -> Config:
    config = warmup(out)
    config.pruning = Pruning(name=PruningName.layerwise, ramp_epochs=1)
    return config


def dnw(out: Path) -> Config:
    config = small(out, "dnw")
    config.init.name = InitName.kaiming_normal
    return config


def global_ramp(out: Path) -> Config:
    config = small(out)
    config.pruning, config.prune_rate = RAMP, 0.7
    return config


MAKE: dict[str, Callable[[Path], Config]] = {
    "sampled": sampled,
    "random_trained": lambda out: small(out, "random_trained"),
    "dnw": dnw,
    "warmup_then_prune": warmup,
    "warmup_with_ramp": warmup_with_ramp,
    "global_ramp": global_ramp,
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    done: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in done:
            outcome = execute(MAKE[name](tmp_path_factory.mktemp(name)), QUIET)
            assert outcome.state == "done", outcome.message
            done[name] = outcome.folder
        return done[name]

    return of


# Five steps an epoch: within one, at the boundaries, and (warm-up: 10) on both sides of the change of phase.
@pytest.mark.parametrize("name", MAKE)
def test_goes_on_bit_for_bit(name: str, tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    config = MAKE[name](tmp_path)
    for count in (5, 4, 1, 2):
        interrupt(config, count)
    outcome = execute(config, QUIET)
    assert outcome.state == "done"
    assert_same_run(outcome.folder, undisturbed(name))


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("which", ["first", "best", "last"])
def test_load_has_the_recorded_accuracy(
    name: str, which: Literal["first", "best", "last"], undisturbed: Callable[[str], Path]
) -> None:
    folder = undisturbed(name)
    result = record.read_result(folder)
    assert result is not None
    recorded = result["untrained"]["first_mask"] if which == "first" else result[which]["test"]
    model = hidden_subnet.load(folder, which)
    images, labels = hidden_subnet.test_images(folder)
    assert (model(images).argmax(dim=1) == labels).double().mean().item() == recorded["top1"]
    rows = record.read_rows(folder)
    epoch = 0 if which == "first" else result[which]["epoch"]
    kept = sum(int(parameter.count_nonzero()) for parameter in model.parameters())
    assert kept == round(rows[epoch]["density"] * result["weights"])


def test_what_is_trained_is_saved_and_the_rest_comes_from_the_seed(undisturbed: Callable[[str], Path]) -> None:
    kinds = {name: {key.rpartition(".")[2] for key in trained(undisturbed(name))} for name in MAKE}
    assert kinds == {
        "sampled": {"scores"},
        "random_trained": {"weight"},
        "dnw": {"scores"},
        "warmup_then_prune": {"scores", "weight"},
        "warmup_with_ramp": {"scores", "weight"},
        "global_ramp": {"scores"},
    }


def test_the_ramp_keeps_what_it_announces_and_the_best_is_at_the_full_rate(undisturbed: Callable[[str], Path]) -> None:
    folder = undisturbed("global_ramp")
    result = record.read_result(folder)
    assert result is not None
    n = result["weights"]
    rates = [prune_rate_at(epoch, prune_rate=0.7, start_rate=0.1, ramp_epochs=2) for epoch in (0, 0, 1, 2)]
    assert rates[1:] == pytest.approx([0.1, 0.625, 0.7])
    kept = [round(row["density"] * n) for row in record.read_rows(folder)]
    assert kept == [kept_count(n, rate) for rate in rates]
    assert result["kept"] == kept_count(n, 0.7)
    assert result["best"]["epoch"] == 3  # the only epoch at prune_rate
    assert checkpoints.load(folder / "checkpoints" / record.BEST)["epoch"] == 3


def test_warmup_is_dense_then_pruned_and_its_weights_freeze(undisturbed: Callable[[str], Path]) -> None:
    for name, rates in (("warmup_then_prune", [0.5, 0.5]), ("warmup_with_ramp", [0.0, 0.5])):
        folder = undisturbed(name)
        result = record.read_result(folder)
        assert result is not None
        sizes = [layer["weights"] for layer in result["layers"]]
        densities = [sum(kept_count(n, rate) for n in sizes) / sum(sizes) for rate in rates]
        assert [row["density"] for row in record.read_rows(folder)] == [1, 1, 1, *densities]
        assert result["best"]["epoch"] > 2


def test_weights_freeze_at_the_end_of_the_warmup(tmp_path: Path) -> None:
    config = warmup(tmp_path)
    states = []
    for steps in (10, 5):
        states.append(checkpoints.load(interrupt(config, steps) / "checkpoints" / record.RESUME)["trained"])
    states.append(trained(execute(config, QUIET).folder))
    fresh = random_network(config)
    put_masks(fresh, config)
    states.insert(0, {name: value.detach() for name, value in fresh.named_parameters()})
    for one, other, moved in zip(states, states[1:], ("weight", "scores", "scores"), strict=False):
        for name in one:
            assert torch.equal(one[name], other[name]) == (not name.endswith(moved)), name


def test_sampled_records_both_densities(tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    rows = record.read_rows(undisturbed("sampled"))
    for row in rows:
        assert row["density"] == pytest.approx(row["expected_density"], abs=5 * 0.5 / math.sqrt(6088))
        assert row["density"] != row["expected_density"]
    result = record.read_result(undisturbed("sampled"))
    assert result is not None
    assert "prune_rate" not in result["projection"]
    losses = {}
    for evaluation in Evaluation:
        config = sampled(tmp_path)
        config.method = Sampled(evaluation=evaluation, penalty=1e-4)
        other = execute(config, QUIET)
        assert other.result is not None
        losses[evaluation] = other.result["last"]["test"]["loss"]
        # How it is measured does not change what is learnt.
        assert all(
            torch.equal(value, trained(undisturbed("sampled"))[name]) for name, value in trained(other.folder).items()
        )
    assert len(set(losses.values())) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "lr", "epochs"),
    [("sampled", 200.0, 8), ("random_trained", 0.03, 3), ("dnw", 0.03, 3), ("warmup_then_prune", 0.03, 8)],
)
def test_each_learns_digits(name: str, lr: float, epochs: int, tmp_path: Path, compose: Callable[..., Config]) -> None:
    settings: list[Any] = [f"method={name}", f"train.epochs={epochs}", "model.width=0.5", "tracker=none"]
    settings += ["method.weight_epochs=3"] if name == "warmup_then_prune" else []
    config = compose(*settings, "init=kaiming_normal", f"out={tmp_path}")
    assert config.train.lr == lr
    result = execute(config, QUIET).result
    assert result is not None
    assert result["untrained"]["first_mask"]["top1"] < 0.3
    assert result["last"]["test"]["top1"] > 0.85


def test_the_authors_scale_is_upside_down(tmp_path: Path) -> None:
    config = small(tmp_path)
    weights = {}
    for rate in (0.25, 0.75):
        for scale in Scale:
            config.init.scale, config.prune_rate = scale, rate
            weights[rate, scale] = random_network(config).get_submodule("conv1").weight
    for rate in (0.25, 0.75):
        plain = weights[rate, Scale.none]
        torch.testing.assert_close(weights[rate, Scale.reference], plain / rate**0.5)
        torch.testing.assert_close(weights[rate, Scale.density], plain / (1 - rate) ** 0.5)
