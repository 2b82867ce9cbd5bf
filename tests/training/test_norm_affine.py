"""train.norm_affine: batch norm's factors and shifts are learned beside the scores, saved, resumed and loaded."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.methods import config_of
from helpers.runs import QUIET, assert_same_run, interrupt, small, trained
from torch import nn

from hidden_subnet.analysis import controls
from hidden_subnet.analysis.evaluate import checkpoints_of, load_checkpoint, measure, rebuilt
from hidden_subnet.analysis.export import export
from hidden_subnet.analysis.load import load
from hidden_subnet.analysis.load import test_images as images_of
from hidden_subnet.analysis.save_masks import save_masks
from hidden_subnet.config.convert import normalised
from hidden_subnet.config.identity import id_of, projection
from hidden_subnet.config.settings import Config, Device, Masking, Model, Norm
from hidden_subnet.errors import ConfigError
from hidden_subnet.masks.layers import masked_layers, norm_factors
from hidden_subnet.methods.apply import apply_method
from hidden_subnet.methods.base import Method
from hidden_subnet.models.networks import build
from hidden_subnet.store import files
from hidden_subnet.sweep.execute import execute
from hidden_subnet.sweep.preflight import preflight

Compose = Callable[..., Config]
RESIDUAL = ("model=resnet20", "model.width=0.25", "data=digits")


def learned_by(method: str) -> tuple[nn.Module, Method]:
    """Return a residual network with a dense first layer under a method with train.norm_affine."""
    config = config_of(method, model="resnet20")
    config = replace(config, train=replace(config.train, norm_affine=True))
    network = build("resnet20", 1 / 4, (1, 16, 16), 10, affine=True)
    return network, apply_method(network, replace(config, model=replace(config.model, first_layer=Masking.dense)))


@pytest.mark.parametrize("method", ["edge_popup", "sampled", "warmup_then_prune", "random_trained", "random"])
def test_the_factors_are_learned_in_every_epoch_of_a_masked_network(method: str) -> None:
    network, applied = learned_by(method)
    factors = norm_factors(network)
    assert len(factors) == 2 * 19
    for epoch in (0, 1000):
        applied.on_epoch_start(epoch)
        assert all(each.requires_grad == (method != "random") for each in factors.values())
    # What else is not masked follows the weights.
    stem = network.get_parameter("stem.weight")
    assert stem.requires_grad == (method == "random_trained")
    scores = [layer.scores.requires_grad for _, layer in masked_layers(network)]
    assert scores == [applied.trains in ("scores", "both")] * 19


def test_it_gives_our_own_networks_the_factors_and_is_one_run_with_them(compose: Compose) -> None:
    with_it = compose(*RESIDUAL, "train.norm_affine=true")
    assert with_it.model.norm is Norm.batch
    assert id_of(with_it) == id_of(compose(*RESIDUAL, "model.norm=batch", "train.norm_affine=true"))
    assert id_of(with_it) != id_of(compose(*RESIDUAL, "model.norm=batch"))
    assert "norm_affine" not in projection(compose(*RESIDUAL))["train"]


@pytest.mark.parametrize(("method", "same"), [("dense", True), ("random_trained", True), ("dnw", True),
                                              ("warmup_then_prune", False), ("edge_popup", False)])  # fmt: skip
def test_where_the_weights_train_in_all_epochs_it_is_model_norm(compose: Compose, method: str, same: bool) -> None:
    words = (*RESIDUAL, f"method={method}", "init=kaiming_normal")
    with_it, batch = compose(*words, "train.norm_affine=true"), compose(*words, "model.norm=batch")
    assert (id_of(with_it) == id_of(batch)) == same


@pytest.mark.parametrize("method", ["random", "last_layer"])
def test_where_it_can_change_nothing_the_run_is_that_without_it(compose: Compose, method: str) -> None:
    words = (*RESIDUAL, f"method={method}")
    assert id_of(compose(*words, "train.norm_affine=true")) == id_of(compose(*words))


def test_a_network_of_torchvision_without_batch_norm_is_refused_before_the_first_run(
    compose: Compose, tmp_path: Path
) -> None:
    config = compose(
        "model=torchvision", "model.name=vit_b_16", "data=cifar10", "train.norm_affine=true", f"out={tmp_path}"
    )
    with pytest.raises(ConfigError, match=r"^train\.norm_affine=true: .*vit_b_16 has no batch norm.*=false$"):
        preflight([config])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the folders of a run and of the same one, stopped after its fourth step and resumed."""

    def config(out: str) -> Config:
        given = small(tmp_path_factory.mktemp(out), epochs=2, batch_size=200, norm_affine=True)
        return normalised(replace(given, model=Model(name="resnet20", width=0.125)))

    torch.set_num_threads(1)
    whole, cut = config("whole"), config("cut")
    done = execute(whole, QUIET)
    assert done.state == "done", done.message
    interrupt(cut, 4)
    return done.folder, execute(cut, QUIET).folder


def test_an_interrupted_run_has_the_same_bits_and_checkpoints_hold_the_factors(runs: tuple[Path, Path]) -> None:
    assert_same_run(*runs)
    first, last = (trained(runs[0], which) for which in ("first", "last"))
    names = {f"{layer}.{which}" for layer in ("stem_norm", "stage3.2.body.norm2") for which in ("weight", "bias")}
    assert names <= first.keys() == last.keys()
    assert all(torch.equal(first[name], torch.full_like(first[name], name.endswith("weight"))) for name in names)
    assert all(not torch.equal(first[name], last[name]) for name in names)


def test_the_result_counts_them(runs: tuple[Path, Path]) -> None:
    result = files.read_result(runs[0])
    assert result is not None
    factors = 2 * (7 * 2 + 6 * 4 + 6 * 8)
    assert sum(result["not_masked"].values()) == factors
    assert result["trained_parameters"] == result["parameters"] == result["weights"] + factors
    masks = 64 + result["weights"]  # a bit for each weight at prune_rate=0.5, but for odd numbers of them
    assert result["bits"] == pytest.approx(masks + 32 * factors, rel=0.001)


def test_what_is_loaded_and_exported_has_the_accuracy_of_the_run(runs: tuple[Path, Path], tmp_path: Path) -> None:
    result = files.read_result(runs[0])
    assert result is not None
    images, labels = images_of(runs[0])
    network = load(runs[0])
    with torch.no_grad():
        logits = network(images)
        assert (logits.argmax(dim=1) == labels).double().mean().item() == pytest.approx(result["last"]["test"]["top1"])
        program = torch.export.load(export(runs[0], "last", tmp_path / "network.pt2")).module()
        assert torch.allclose(program(images), logits, atol=1e-5)
        assert torch.equal(load(save_masks(runs[0], tmp_path / "last.mask"))(images), logits)
    assert not torch.equal(network.get_parameter("stem_norm.weight"), torch.ones(2))


def test_it_is_measured_again_to_the_bit_and_its_controls_leave_the_factors(runs: tuple[Path, Path]) -> None:
    with rebuilt(runs[0], Device.auto) as (experiment, result):
        assert all(each.equal for each in measure(experiment, result, checkpoints_of(experiment, result))[:-1])
        load_checkpoint(experiment, result, "last")
        before = {name: value.detach().clone() for name, value in norm_factors(experiment.network).items()}
        found = controls.measure_untrained(experiment, 1)
        assert len(found) == 3
        assert all(torch.equal(value, before[name]) for name, value in norm_factors(experiment.network).items())
