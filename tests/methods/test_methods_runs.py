"""Whole runs of every method: resumed to the same bits, as dense as announced, loaded, exported, and controlled."""

import atexit
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from helpers.runs import QUIET, assert_same_run, interrupt, small, trained, with_mask, with_parents
from torch import Tensor, nn

import hidden_subnet
from hidden_subnet.analysis.controls import invert_scores, measure_untrained, shuffle_masks
from hidden_subnet.analysis.evaluate import load_checkpoint, rebuilt
from hidden_subnet.analysis.export import export
from hidden_subnet.config.registries import METHODS, OWN
from hidden_subnet.config.settings import Config, Device, Indivisible, Init, Model, Norm, Pruning, Structure
from hidden_subnet.masks.allocation import prune_rate_at
from hidden_subnet.masks.state import current_masks
from hidden_subnet.masks.topk import kept_count
from hidden_subnet.methods.apply import apply_method
from hidden_subnet.methods.iterand import IterandSettings
from hidden_subnet.methods.magnitude import MagnitudeSettings
from hidden_subnet.methods.sampled import Evaluation, SampledSettings
from hidden_subnet.methods.signed import SignedSettings
from hidden_subnet.methods.synflow import SynflowSettings
from hidden_subnet.methods.warmup_then_prune import WarmupThenPruneSettings
from hidden_subnet.models.from_config import random_network
from hidden_subnet.store import checkpoints, files
from hidden_subnet.store.pretrained import resolve_pretrained
from hidden_subnet.sweep.execute import execute
from hidden_subnet.training.experiment import resolve

RESNET = Model(name="resnet20", width=0.125, norm=Norm.batch)
RAMP = Pruning(name="global", ramp_epochs=2, start_rate=0.1)


def sampled(out: Path, evaluation: Evaluation = Evaluation.sample) -> Config:
    config = small(out, "sampled", lr=20.0, weight_decay=0.0)
    return replace(config, method=SampledSettings(evaluation=evaluation, penalty=1e-4))


def warmup(out: Path) -> Config:
    config = small(out, "warmup_then_prune", lr=0.03, epochs=4)
    return replace(config, method=WarmupThenPruneSettings(weight_epochs=2))


def warmup_with_ramp(out: Path) -> Config:
    return replace(warmup(out), pruning=Pruning(name="layerwise", ramp_epochs=1))


def dnw(out: Path) -> Config:
    return replace(small(out, "dnw"), init=Init(name="kaiming_normal"))


def global_ramp(out: Path) -> Config:
    return replace(small(out), pruning=RAMP, prune_rate=0.7)


def structured(name: str, **settings: Any) -> Pruning:
    dense = Indivisible.dense
    return Pruning(name="layerwise", structure=Structure[name], indivisible=dense, **settings)


@cache
def dense_run() -> Path:
    folder = tempfile.mkdtemp(prefix="hidden_subnet-dense-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return execute(small(Path(folder), "dense", lr=0.01, epochs=1), QUIET).folder


def magnitude_of_trained(out: Path) -> Config:
    config = replace(small(out, "magnitude", lr=0.03), pretrained=str(dense_run()), prune_rate=0.7)
    return resolve_pretrained(replace(config, method=MagnitudeSettings(weight_epochs=0)))


MAKE: dict[str, Callable[[Path], Config]] = {
    "sampled": sampled,
    "random_trained": lambda out: small(out, "random_trained"),
    "dnw": dnw,
    "warmup_then_prune": warmup,
    "warmup_with_ramp": warmup_with_ramp,
    "global_ramp": global_ramp,
    "signed": lambda out: small(out, "signed"),
    "iterand": lambda out: replace(small(out, "iterand"), method=IterandSettings(every=4, fraction=0.5)),
    "gem_miner": lambda out: replace(small(out, "gem_miner"), pruning=Pruning(name="global"), prune_rate=0.9),
    "finetune": lambda out: small(out, "finetune", lr=0.03),
    "masked_iterand": lambda out: with_mask(replace(small(out, "iterand"), method=IterandSettings(every=4))),
    "snip": lambda out: small(out, "snip", lr=0.03),
    "synflow": lambda out: replace(small(out, "synflow", lr=0.03), method=SynflowSettings(rounds=5)),
    "magnitude": lambda out: replace(small(out, "magnitude", lr=0.03), method=MagnitudeSettings(weight_epochs=1)),
    "magnitude_of_trained": magnitude_of_trained,
    "imp": lambda out: replace(small(out, "imp", lr=0.03), prune_rate=0.36),
    "multicoat": lambda out: replace(small(out, "multicoat"), pruning=RAMP),
    "biprop": lambda out: replace(small(out, "biprop"), init=Init(name="kaiming_normal")),
    "n_of_m": lambda out: replace(small(out), pruning=structured("n_m"), prune_rate=0.75),
    "blocks": lambda out: replace(small(out, "iterand"), pruning=structured("block", block=2)),
    "dense": lambda out: small(out, "dense", lr=0.01),
    "last_layer": lambda out: small(out, "last_layer", lr=0.03),
    "grasp_with_batch_norm": lambda out: replace(small(out, "grasp", lr=0.03), model=RESNET),
    "signed_threshold": lambda out: replace(small(out, "signed"), method=SignedSettings(threshold=0.04)),
}


def test_every_trained_method_is_among_them(tmp_path: Path) -> None:
    ours = {name for name, kind in METHODS.items() if kind.is_trained() and ("method", name) not in OWN}
    assert {make(tmp_path).method.name for make in MAKE.values()} == ours


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    done: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in done:
            outcome = execute(with_parents(MAKE[name](tmp_path_factory.mktemp(name))), QUIET)
            assert outcome.state == "done", outcome.message
            done[name] = outcome.folder
        return done[name]

    return of


# Five steps an epoch: within one, at the boundaries, and (warm-up: 10) on both sides of the change of phase.
@pytest.mark.parametrize("name", MAKE)
def test_an_interrupted_run_has_the_same_bits(name: str, tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    config = with_parents(MAKE[name](tmp_path))
    for count in (5, 4, 1, 2):
        interrupt(config, count)
    outcome = execute(config, QUIET)
    assert outcome.state == "done"
    assert_same_run(outcome.folder, undisturbed(name))


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("which", ["first", "best", "last"])
def test_load_has_the_recorded_accuracy(
    name: str, which: Literal["first", "best", "last"], undisturbed: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = undisturbed(name)
    result = files.read_result(folder)
    assert result is not None
    untrained = result["untrained"]["first_mask"] or result["untrained"]["unpruned"]
    recorded = untrained if which == "first" else result[which]["test"]
    model = hidden_subnet.load(folder, which)
    images, labels = hidden_subnet.test_images(folder)
    assert (model(images).argmax(dim=1) == labels).double().mean().item() == recorded["top1"]
    rows = files.read_rows(folder)
    epoch = 0 if which == "first" else result[which]["epoch"]
    left = sum(int(parameter.count_nonzero()) for name, parameter in model.named_parameters() if "norm" not in name)
    assert left == round(rows[epoch]["density"] * result["weights"])
    exported = torch.load(export(folder, which, tmp_path / "subnetwork.pt"))
    state = model.state_dict()
    assert exported.keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in exported.items())


WITH_CONTROLS = [name for name, make in MAKE.items() if METHODS[make(Path()).method.name].has_controls]


@pytest.mark.parametrize("name", WITH_CONTROLS)
def test_controls_keep_as_many_other_weights_and_leave_the_network_as_it_was(
    name: str, undisturbed: Callable[[str], Path]
) -> None:
    with rebuilt(undisturbed(name), Device.cpu) as (experiment, result):
        load_checkpoint(experiment, result, "last")
        network, method, epochs = experiment.network, experiment.method, experiment.config.train.epochs
        before, masks = copied(network), current_masks(network)
        for change in (shuffle_masks, invert_scores):
            change(network, experiment.config, 0)
            method.on_evaluation(epochs)
            after = current_masks(network)
            assert {path: int(mask.sum()) for path, mask in after.items()} == {
                path: int(mask.sum()) for path, mask in masks.items()
            }
            assert [path for path in masks if masks[path].all() or not torch.equal(masks[path], after[path])] == [
                *masks
            ]
            network.load_state_dict(before)
            method.on_evaluation(epochs)
        assert len(measure_untrained(experiment, 1)) == 3
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
        assert all(torch.equal(mask, masks[path]) for path, mask in current_masks(network).items())


def copied(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def test_what_is_trained_is_saved_and_the_rest_comes_from_the_seed(undisturbed: Callable[[str], Path]) -> None:
    kinds = {name: {key.rpartition(".")[2] for key in trained(undisturbed(name))} for name in MAKE}
    assert kinds == {
        "sampled": {"scores"},
        "random_trained": {"weight"},
        "dnw": {"scores"},
        "warmup_then_prune": {"scores", "weight"},
        "warmup_with_ramp": {"scores", "weight"},
        "global_ramp": {"scores"},
        "signed": {"scores"},
        "iterand": {"scores", "weight"},
        "gem_miner": {"scores"},
        "finetune": {"scores", "weight"},
        "masked_iterand": {"scores", "weight"},
        "snip": {"scores", "weight"},
        "synflow": {"scores", "weight"},
        "magnitude": {"scores", "weight"},
        "magnitude_of_trained": {"scores", "weight"},
        "imp": {"scores", "weight"},
        "multicoat": {"scores"},
        "biprop": {"scores"},
        "dense": {"weight"},
        "last_layer": {"weight"},
        "grasp_with_batch_norm": {"scores", "weight", "bias", "running_mean", "running_var", "num_batches_tracked"},
        "n_of_m": {"scores"},
        "blocks": {"scores", "weight"},
        "signed_threshold": {"scores"},
    }


def test_the_ramp_keeps_what_it_announces_and_the_best_is_at_the_full_rate(undisturbed: Callable[[str], Path]) -> None:
    folder = undisturbed("global_ramp")
    result = files.read_result(folder)
    assert result is not None
    n = result["weights"]
    rates = [prune_rate_at(epoch, prune_rate=0.7, start_rate=0.1, ramp_epochs=2) for epoch in (0, 0, 1, 2)]
    assert rates[1:] == pytest.approx([0.1, 0.625, 0.7])
    kept = [round(row["density"] * n) for row in files.read_rows(folder)]
    assert kept == [kept_count(n, rate) for rate in rates]
    assert result["kept"] == kept_count(n, 0.7)
    assert result["best"]["epoch"] == 3  # the only epoch at prune_rate
    assert checkpoints.load(folder / "checkpoints" / files.BEST)["epoch"] == 3


def test_warmup_is_dense_then_pruned_and_its_weights_freeze(undisturbed: Callable[[str], Path]) -> None:
    for name, rates in (("warmup_then_prune", [0.5, 0.5]), ("warmup_with_ramp", [0.0, 0.5])):
        folder = undisturbed(name)
        result = files.read_result(folder)
        assert result is not None
        sizes = [layer["weights"] for layer in result["layers"]]
        densities = [sum(kept_count(n, rate) for n in sizes) / sum(sizes) for rate in rates]
        assert [row["density"] for row in files.read_rows(folder)] == [1, 1, 1, *densities]
        assert result["best"]["epoch"] > 2


def test_weights_freeze_at_the_end_of_the_warmup(tmp_path: Path) -> None:
    config = warmup(tmp_path)
    states = []
    for steps in (10, 5):
        states.append(checkpoints.load(interrupt(config, steps) / "checkpoints" / files.RESUME)["trained"])
    states.append(trained(execute(config, QUIET).folder))
    run = resolve(config)
    untrained = random_network(config, run.info, run.weights_seed)
    apply_method(untrained, config)
    states.insert(0, {name: value.detach() for name, value in untrained.named_parameters()})
    for one, other, moved in zip(states, states[1:], ("weight", "scores", "scores"), strict=False):
        for name in one:
            assert torch.equal(one[name], other[name]) == (not name.endswith(moved)), name


def test_sampled_records_both_densities(tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    rows = files.read_rows(undisturbed("sampled"))
    for row in rows:
        assert row["density"] == pytest.approx(row["expected_density"], abs=5 * 0.5 / math.sqrt(6088))
        assert row["density"] != row["expected_density"]
    result = files.read_result(undisturbed("sampled"))
    assert result is not None
    assert "prune_rate" not in result["projection"]
    losses = {}
    for evaluation in Evaluation:
        other = execute(sampled(tmp_path, evaluation), QUIET)
        assert other.result is not None
        losses[evaluation] = other.result["last"]["test"]["loss"]
        if evaluation is Evaluation.mean:  # which removes no weight, but multiplies all of them
            row = files.read_rows(other.folder)[-1]
            assert other.result["density"] == row["density"] == pytest.approx(row["expected_density"], rel=1e-6)
            assert other.result["kept"] == pytest.approx(row["density"] * 6088, abs=len(other.result["layers"]))
        # How it is measured does not change what is learned.
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


def test_magnitude_of_pretrained_weights_keeps_the_largest_from_the_first_step_on(tmp_path: Path) -> None:
    outcome = execute(magnitude_of_trained(tmp_path), QUIET)
    assert outcome.result is not None, outcome.message
    weights = trained(dense_run())
    for which in ("first", "last"):
        for path, mask in hidden_subnet.load_masks(outcome.folder, which).items():
            weight = weights[f"{path}.weight"].abs()
            assert int(mask.sum()) == kept_count(weight.numel(), 0.7)
            assert weight[mask].min() >= weight[~mask].max()
    after, before = outcome.result["untrained"]["first_mask"], outcome.result["untrained"]["unpruned"]
    assert before["top1"] == (files.read_result(dense_run()) or {})["last"]["test"]["top1"]
    assert after != before
