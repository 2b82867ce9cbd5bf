"""The paper's residual networks: built, masked, run, resumed, loaded and exported."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.color_images import accuracy, color_batch, synthetic_data
from helpers.methods import config_of, trainer_of
from helpers.runs import QUIET, assert_same_run, interrupt, small, with_mask
from torch import nn

import hidden_subnet
from hidden_subnet.analysis.export import export
from hidden_subnet.config.registries import METHODS
from hidden_subnet.config.settings import Activation, Config, Init, Masking, Model, Norm
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.methods.apply import apply_method
from hidden_subnet.models import torchvision
from hidden_subnet.models.inits import fill
from hidden_subnet.models.networks import PaddedShortcut, build
from hidden_subnet.models.sizes import NAMES, RESIDUAL, count_weights, plan
from hidden_subnet.sweep.execute import RunObserver, execute
from hidden_subnet.training.batch_norm import layers_with_statistics, recalibrate_batch_norm
from hidden_subnet.training.collapse import dead_layer
from hidden_subnet.training.metrics import evaluate


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """data=synthetic, in fewer images."""
    synthetic_data(monkeypatch, train=80, test=40)


@pytest.mark.parametrize(
    "method_name",  # the others: methods/test_apply.py
    ["edge_popup", "dense", pytest.param("random", marks=pytest.mark.slow)],  # trains nothing: no gradients to go wrong
)
@pytest.mark.parametrize("name", RESIDUAL)
def test_every_residual_network_runs_one_batch(name: str, method_name: str) -> None:
    network = build(name, 1 / 16, (3, 32, 32), 10, affine=True)
    assert sum(value.numel() for value in network.parameters() if value.dim() > 1) == count_weights(
        plan(name, 1 / 16, (3, 32, 32), 10)
    )
    fill(network, "signed_constant", "fan_in", 1.0, seed=0)
    method = apply_method(network, config_of(method_name, model=name))
    before = {key: value.detach().clone() for key, value in network.named_parameters()}
    trained = {key for key, value in network.named_parameters() if value.requires_grad}
    if trained:
        trainer = trainer_of(network.train(), method, lr=0.001, momentum=0.0, weight_decay=0.0)
        trainer.train_step(*color_batch())
    recalibrate_batch_norm(network, [color_batch()])  # with running ones that are still 0 and 1 the deepest overflow
    assert evaluate(network, [color_batch()], "cpu").loss > 0  # and so not nan
    changed = {key for key, value in network.named_parameters() if not torch.equal(value, before[key])}
    # Factors and shifts of norm layers train where the weights do.
    assert trained == {
        "edge_popup": {f"{path}.scores" for path, _ in masked_layers(network)}, "random": set(), "dense": set(before),
    }[method_name]  # fmt: skip
    assert changed <= trained
    assert bool(changed) == bool(trained)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # Convolutions and the last layer; torchvision's counts without norm layers and the last layer's bias.
        ("resnet34", 21_779_648),
        ("resnet101", 44_442_816),
        ("wide_resnet50_2", 68_814_016),
        ("wide_resnet101_2", 126_747_840),
        ("cifar_resnet50", 23_467_712),
        # 3x3 convolutions 3-16, 6 of 16-16, 16-32, 5 of 32-32, 32-64, 5 of 64-64, and 64 x 10
        ("resnet20", 432 + 6 * 2304 + 4608 + 5 * 9216 + 18_432 + 5 * 36_864 + 640),
        ("resnet110", 432 + 36 * 2304 + 4608 + 35 * 9216 + 18_432 + 35 * 36_864 + 640),
        ("vgg16", 14_715_584),  # 9 * (3*64 + 64*64 + ... + 512*512) + 512 * 10
    ],
)
def test_number_of_weights(name: str, parameters: int) -> None:
    cifar = name.startswith("cifar") or name in ("resnet20", "resnet110", "vgg16")
    assert count_weights(plan(name, 1.0, (3, 32, 32), 10 if cifar else 1000)) == parameters
    if not cifar:
        with torch.device("meta"):
            theirs = torchvision.build(name, (3, 224, 224), 1000, 0)
        assert parameters == sum(value.numel() for value in theirs.parameters() if value.dim() > 1)


@pytest.mark.parametrize("name", NAMES)
def test_elu_takes_the_place_of_each_relu(name: str) -> None:
    relu, elu = (build(name, 1 / 4, (1, 32, 32), 10, activation=each) for each in ("relu", "elu"))
    fill(relu, "kaiming_normal", "fan_in", 1.0, seed=0)
    elu.load_state_dict(relu.state_dict())  # the weights have the same names
    counts = {kind: sum(type(each) is kind for each in relu.modules()) for kind in (nn.ReLU, nn.ELU)}
    assert counts[nn.ELU] == 0
    assert [sum(type(each) is kind for each in elu.modules()) for kind in (nn.ReLU, nn.ELU)] == [0, counts[nn.ReLU]]
    images = torch.randn(2, 1, 32, 32)
    assert not torch.equal(relu(images), elu(images))


def test_a_run_with_elu_is_another_run_and_learns(tmp_path: Path) -> None:
    config = small(tmp_path)
    config.model.activation = Activation.elu
    assert config.model.name == "conv2"
    result = execute(config, QUIET).result
    assert result is not None
    assert result["projection"]["model"]["activation"] == "elu"
    assert result["last"]["train"]["loss"] < result["untrained"]["first_mask"]["loss"]


def test_norm_has_parameters_only_when_asked() -> None:
    fixed, affine = (build("cifar_resnet18", 0.25, (3, 32, 32), 10, affine=each) for each in (False, True))
    assert all(value.dim() > 1 for value in fixed.parameters())
    factors = [value for value in affine.parameters() if value.dim() == 1]
    assert len(factors) == 2 * 20
    assert {value.detach()[0].item() for value in factors} == {0.0, 1.0}


@pytest.mark.parametrize(("first", "last"), [("dense", "masked"), ("masked", "dense"), ("dense", "dense")])
def test_dense_ends_do_not_count_for_the_prune_rate(tmp_path: Path, first: str, last: str) -> None:
    config = small(tmp_path, epochs=1)
    config = replace(config, model=replace(config.model, first_layer=Masking[first], last_layer=Masking[last]))
    said: list[str] = []
    outcome = execute(config, RunObserver(QUIET.on_row, QUIET.on_step, said.append))
    result = outcome.result
    assert result is not None
    left = {"conv1.weight": 72} if first == "dense" else {}
    left |= {"fc3.weight": 320} if last == "dense" else {}
    assert result["not_masked"] == left
    assert result["weights"] == 6_088 - sum(left.values())
    assert result["kept"] == sum(layer["kept"] for layer in result["layers"]) == result["weights"] / 2
    assert result["density"] == 0.5
    assert result["density_all"] == (6_088 - result["weights"] / 2) / 6_088
    assert [line for line in said if f"masks {result['weights']:,} of 6,088 parameters" in line]
    model = hidden_subnet.load(outcome.folder)
    for name, size in left.items():
        assert int(model.get_parameter(name).count_nonzero()) == size


def with_norm(out: Path, method: str = "edge_popup", **settings: Any) -> Config:
    config = small(out, method, **{"epochs": 2, "batch_size": 24, "norm_batches": 3, **settings})
    init = Init(name="kaiming_normal") if method == "dnw" else config.init
    config = replace(config, model=Model(name="cifar_resnet18", width=1 / 16), init=init)
    return with_mask(config) if METHODS[method].has_given_mask else config


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    "method",
    [
        name if name == "edge_popup" else pytest.param(name, marks=pytest.mark.slow)
        for name in METHODS
        if name not in ("warmup_then_prune", "magnitude")  # more epochs than here
    ],
)
def test_recalibrated_statistics_are_the_same_bits_when_resumed_and_loaded(tmp_path: Path, method: str) -> None:
    whole = execute(with_norm(tmp_path / "whole", method), QUIET)
    assert whole.result is not None, whole.message
    if METHODS[method].is_trained():
        config = with_norm(tmp_path / "broken", method)
        for steps in (2, 2):  # of 3 an epoch
            interrupt(config, steps)
        assert_same_run(execute(config, QUIET).folder, whole.folder)
    for which in ("last", "best"):
        assert accuracy(whole.folder, which) == whole.result[which]["test"]["top1"]
    running = execute(with_norm(tmp_path / "running", method, norm_batches=0), QUIET).result
    assert running is not None
    assert running["last"]["test"]["loss"] != whole.result["last"]["test"]["loss"]
    assert running["last"]["train"] == whole.result["last"]["train"]  # training never reads running statistics


def test_statistics_are_the_mean_over_batches() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1, affine=False), nn.Dropout(0.5))
    model(torch.full((2, 1, 1, 2), 100.0))  # forgotten
    first, second = torch.tensor([0.0, 2.0, 4.0, 6.0]), torch.tensor([5.0, 5.0, 5.0, 9.0])
    batches = [(values.view(2, 1, 1, 2), torch.zeros(2)) for values in (first, second)]
    state = torch.get_rng_state()
    recalibrate_batch_norm(model, batches)
    norm = model[0]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.running_mean.tolist() == [4.5]
    assert norm.running_var.item() == pytest.approx((20 / 3 + 4) / 2)
    assert norm.momentum == 0.1
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_export_of_a_residual_network_needs_torch_only(tmp_path: Path) -> None:
    folder = execute(with_norm(tmp_path, epochs=1), QUIET).folder
    path = export(folder, "last", tmp_path / "subnetwork.pt2")
    images, _ = hidden_subnet.test_images(folder)
    torch.save((images, hidden_subnet.load(folder)(images)), tmp_path / "expected.pt")
    code = (
        "import sys, torch; torch.set_num_threads(1); model = torch.export.load(sys.argv[1]).module();"
        "images, expected = torch.load('expected.pt'); assert torch.equal(model(images), expected);"
        "assert not any(name.startswith('hidden_subnet') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, path], cwd=tmp_path, check=True)


def test_the_dead_layer_of_a_network_that_shares_activations() -> None:
    network = build("cifar_resnet18", 1 / 16, (3, 32, 32), 10)
    fill(network, "signed_constant", "fan_in", 1.0, seed=0)
    assert dead_layer(network, [color_batch(), color_batch(3)]) is None
    network.get_parameter("fc.weight").detach().zero_()
    assert dead_layer(network, [color_batch(), color_batch(3)]) == "fc"


@pytest.mark.usefixtures("few")
def test_affine_norm_is_a_setting_of_the_run(tmp_path: Path) -> None:
    config = with_norm(tmp_path, "dense", epochs=1)
    folder = execute(replace(config, model=replace(config.model, norm=Norm.batch)), QUIET).folder
    model = hidden_subnet.load(folder)
    assert model.get_parameter("stem_norm.weight").std() > 0  # trained: they began as 1
    assert model.get_parameter("fc.weight").shape == (10, 32)


def test_sizes_of_lenet5() -> None:
    assert count_weights(plan("lenet5", 1.0, (1, 28, 28), 10)) == 25 * (6 + 6 * 16) + 400 * 120 + 120 * 84 + 84 * 10
    shapes = [tuple(value.shape) for value in build("lenet5", 1.0, (1, 28, 28), 10).parameters()]
    assert shapes == [(6, 1, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]
    with pytest.raises(ValueError, match="model=lenet5: needs images with sides of at least 12 pixels; these are 8x8"):
        plan("lenet5", 1.0, (1, 8, 8), 10)


@pytest.mark.parametrize(("name", "side", "masked"), [("vgg_small", 8, 7), ("vgg16", 32, 14), ("lenet5", 12, 5)])
def test_every_stack_runs_one_batch(name: str, side: int, masked: int) -> None:
    network = build(name, 1 / 4, (3, side, side), 10)
    assert sum(value.numel() for value in network.parameters()) == count_weights(plan(name, 1 / 4, (3, side, side), 10))
    fill(network, "signed_constant", "fan_in", 1.0, seed=0)
    method = apply_method(network, config_of("edge_popup", model=name))
    assert len(masked_layers(network)) == masked
    trainer = trainer_of(network.train(), method)
    images, labels = color_batch()
    trainer.train_step(images[:, :, :side, :side], labels)
    assert trainer.metrics.means().loss > 0
    assert len(layers_with_statistics(network)) == (masked - 1 if name != "lenet5" else 0)


def test_a_shortcut_without_weights_takes_every_second_pixel() -> None:
    images = torch.arange(18.0).view(1, 2, 3, 3)
    padded = PaddedShortcut(2, 4, 2)(images)
    assert padded.tolist() == [[[[0, 2], [6, 8]], [[9, 11], [15, 17]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]]
