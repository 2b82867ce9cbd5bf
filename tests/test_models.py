"""The residual networks and torchvision's: built, masked, run, gone on with, loaded and exported."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_experiment import QUIET, assert_same_run, interrupt, small
from torch import Tensor, nn
from torch.optim import SGD

import hidden_subnet
from hidden_subnet.check import ConfigError, check
from hidden_subnet.collapse import dead_layer
from hidden_subnet.data.info import INFO
from hidden_subnet.execute import Display, execute
from hidden_subnet.inits import fill
from hidden_subnet.layers import bake, fill_scores, mask_layers, masked_layers
from hidden_subnet.loading import export
from hidden_subnet.masks import Scratch, kept_count
from hidden_subnet.methods.edge_popup import TopKRule
from hidden_subnet.models import zoo
from hidden_subnet.models.build import build
from hidden_subnet.models.plan import RESIDUAL, plan, weights
from hidden_subnet.norm import take_statistics
from hidden_subnet.prepare import prepare
from hidden_subnet.settings import METHODS, Config, Init, InitName, Library, Masking, Model, Norm
from hidden_subnet.subnetwork import put_masks
from hidden_subnet.training import Sums, evaluate, train_epoch


@pytest.fixture
def color(monkeypatch: pytest.MonkeyPatch) -> None:
    """data=synthetic, in 3 channels of 32x32."""
    info = dataclasses.replace(
        INFO["synthetic"], shape=(3, 32, 32), train=40, test=24, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    monkeypatch.setitem(INFO, "synthetic", info)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """data=synthetic, in fewer images."""
    monkeypatch.setitem(INFO, "synthetic", dataclasses.replace(INFO["synthetic"], train=80, test=40))


def batch(images: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(images, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(images) % 10


@pytest.mark.parametrize(
    "method",  # the others: test_methods.py
    ["edge_popup", "dense", pytest.param("random", marks=pytest.mark.slow)],  # trains nothing: no gradients to go wrong
)
@pytest.mark.parametrize("name", RESIDUAL)
def test_every_residual_network_runs_one_batch(name: str, method: str) -> None:
    network = build(name, 1 / 16, (3, 32, 32), 10, affine=True)
    assert sum(value.numel() for value in network.parameters() if value.dim() > 1) == weights(
        plan(name, 1 / 16, (3, 32, 32), 10)
    )
    fill(network, "signed_constant", "fan_in", 1.0, seed=0)
    put_masks(
        network, Config(model=Model(name=name), method=METHODS[method](), init=Init(name=InitName.signed_constant))
    )
    before = {key: value.detach().clone() for key, value in network.named_parameters()}
    trained = {key for key, value in network.named_parameters() if value.requires_grad}
    if trained:
        optimizer = SGD([value for value in network.parameters() if value.requires_grad], lr=0.001)
        train_epoch(network, [batch()], optimizer, 0.0, Sums("cpu"), lambda: None)
    take_statistics(network, [batch()])  # with running ones that are still 0 and 1 the deepest overflow
    assert evaluate(network, [batch()], "cpu").loss > 0  # and so not nan
    changed = {key for key, value in network.named_parameters() if not torch.equal(value, before[key])}
    # Factors and shifts of norm layers train where the weights do.
    assert trained == {
        "edge_popup": {f"{path}.scores" for path, _ in masked_layers(network)}, "random": set(), "dense": set(before),
    }[method]  # fmt: skip
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
    ],
)
def test_number_of_weights(name: str, parameters: int) -> None:
    cifar = name.startswith("cifar")
    assert weights(plan(name, 1.0, (3, 32, 32), 10 if cifar else 1000)) == parameters
    if not cifar:
        with torch.device("meta"):
            theirs = zoo.build(name, (3, 224, 224), 1000, 0)
        assert parameters == sum(value.numel() for value in theirs.parameters() if value.dim() > 1)


def test_norm_has_parameters_only_when_asked() -> None:
    fixed, affine = (build("cifar_resnet18", 0.25, (3, 32, 32), 10, affine=each) for each in (False, True))
    assert all(value.dim() > 1 for value in fixed.parameters())
    factors = [value for value in affine.parameters() if value.dim() == 1]
    assert len(factors) == 2 * 20
    assert {value.detach()[0].item() for value in factors} == {0.0, 1.0}


@pytest.mark.parametrize(("first", "last"), [("dense", "masked"), ("masked", "dense"), ("dense", "dense")])
def test_dense_ends_are_out_of_the_budget(tmp_path: Path, first: str, last: str) -> None:
    config = small(tmp_path, epochs=1)
    config.model.first_layer, config.model.last_layer = Masking[first], Masking[last]
    said: list[str] = []
    outcome = execute(config, Display(QUIET.on_row, QUIET.on_step, said.append))
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
    config.model = Model(name="cifar_resnet18", width=1 / 16)
    return config


def accuracy(folder: Path, which: Any) -> float:
    images, labels = hidden_subnet.test_images(folder)
    return (hidden_subnet.load(folder, which)(images).argmax(dim=1) == labels).double().mean().item()


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    "method",
    [
        name if name == "edge_popup" else pytest.param(name, marks=pytest.mark.slow)
        for name in METHODS
        if name != "warmup_then_prune"  # more epochs than here
    ],
)
def test_renewed_statistics_go_on_and_come_back_bit_for_bit(tmp_path: Path, method: str) -> None:
    whole = execute(with_norm(tmp_path / "whole", method), QUIET)
    assert whole.result is not None, whole.message
    if method != "random":
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
    take_statistics(model, batches)
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
    path = export(folder, "last", tmp_path / "subnetwork.pt")
    assert b"hidden_subnet" not in path.read_bytes()
    images, _ = hidden_subnet.test_images(folder)
    torch.save((images, hidden_subnet.load(folder)(images)), tmp_path / "expected.pt")
    code = (
        "import sys, torch; torch.set_num_threads(1); model = torch.load(sys.argv[1], weights_only=False);"
        "images, expected = torch.load('expected.pt'); assert torch.equal(model(images), expected);"
        "assert not any(name.startswith('hidden_subnet') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, path], cwd=tmp_path, check=True)


def test_the_dead_layer_of_networks_that_share_activations_or_mask_parameters() -> None:
    network = build("cifar_resnet18", 1 / 16, (3, 32, 32), 10)
    fill(network, "signed_constant", "fan_in", 1.0, seed=0)
    assert dead_layer(network, [batch(), batch(3)]) is None
    network.get_parameter("fc.weight").detach().zero_()
    assert dead_layer(network, [batch(), batch(3)]) == "fc"
    theirs = zoo.build("squeezenet1_1", (3, 32, 32), 10, 0)
    mask_layers(theirs, lambda n: TopKRule(n, Scratch()), by_parameter=True)
    assert dead_layer(theirs, [batch(), batch(3)]) is None
    dict(masked_layers(theirs))["features.3.squeeze"].weight.zero_()
    assert dead_layer(theirs, [batch(), batch(3)]) == "features.3.squeeze"


def vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 16, 2, 2, 8, 16, num_classes=5)


def swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=5)


def bypassed(model: nn.Module) -> list[str]:
    """Paths of masked weights without which the outputs are the same."""
    images, _ = batch(2)
    with torch.no_grad():
        outputs, same = model(images), []
        for path, layer in masked_layers(model):
            layer.held = torch.zeros_like(layer.weight)
            same += [path] * torch.equal(model(images), outputs)
            del layer.held
    return same


@pytest.mark.parametrize("make", [vit, swin])
def test_every_masked_weight_of_a_transformer_acts(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = make().eval()
    nn.init.normal_(model.get_parameter("heads.head.weight" if make is vit else "head.weight"))  # zero in a ViT
    plain = {name: value.shape for name, value in model.named_parameters()}
    scratch = Scratch()
    paths = mask_layers(model, lambda n: TopKRule(kept_count(n, 0.5), scratch), by_parameter=True)
    assert len(paths) == sum("weight" in name and len(shape) in (2, 4) for name, shape in plain.items())
    fill_scores(model, 0, "scores")
    assert bypassed(model) == []
    model.train()(batch(2)[0]).square().sum().backward()
    assert all(layer.scores.grad is not None and layer.scores.grad.any() for _, layer in masked_layers(model))
    with torch.no_grad():
        expected = model.eval()(batch(2)[0])
    bake(model)
    torch.testing.assert_close(model(batch(2)[0]), expected)
    assert {name: value.shape for name, value in model.named_parameters()} == plain


def test_masking_layers_alone_would_miss_some() -> None:
    """The control of the test above: Swin's attention reads the weights of its layers without calling them."""
    model = swin().eval()
    mask_layers(model, lambda n: TopKRule(n, Scratch()))
    assert [path.rpartition(".")[2] for path in bypassed(model)] == ["qkv", "proj"] * 2


def of_torchvision(out: Path, name: str, method: str = "edge_popup", **settings: Any) -> Config:
    config = small(out, method, **{"epochs": 2, "batch_size": 12, **settings})
    config.model = Model(name=name, library=Library.torchvision)
    return config


@pytest.mark.slow
@pytest.mark.usefixtures("color")
def test_a_network_of_torchvision_with_dropout_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = execute(of_torchvision(tmp_path / "whole", "squeezenet1_1"), QUIET)
    assert whole.result is not None, whole.message
    assert set(whole.result["not_masked"]) == {f"{layer['name']}.bias" for layer in whole.result["layers"]}
    assert whole.result["weights"] + sum(whole.result["not_masked"].values()) == whole.result["parameters"]
    config = of_torchvision(tmp_path / "broken", "squeezenet1_1")
    for steps in (1, 2):
        interrupt(config, steps)
    assert_same_run(execute(config, QUIET).folder, whole.folder)
    assert accuracy(whole.folder, "last") == whole.result["last"]["test"]["top1"]
    model = torch.load(export(whole.folder, "last", tmp_path / "model.pt"), weights_only=False)
    assert sum(int(value.count_nonzero()) for value in model.parameters() if value.dim() > 1) == whole.result["kept"]


@pytest.mark.slow
@pytest.mark.usefixtures("color")
@pytest.mark.parametrize(
    "name", ["vit_b_16", "swin_t", "mobilenet_v3_small", "convnext_tiny", "resnet18", "regnet_y_400mf"]
)
def test_networks_of_torchvision_run_and_come_back(tmp_path: Path, name: str) -> None:
    config = of_torchvision(tmp_path, name, epochs=1)
    prepare([config])
    outcome = execute(config, QUIET)
    assert outcome.result is not None, outcome.message
    masked = {layer["name"] for layer in outcome.result["layers"]}
    if name == "vit_b_16":
        assert "encoder.layers.encoder_layer_0.self_attention.in_proj_weight" in masked
        assert "encoder.layers.encoder_layer_0.self_attention.out_proj" in masked
        assert not {key for key in outcome.result["not_masked"] if key.endswith("proj_weight")}
    assert accuracy(outcome.folder, "last") == outcome.result["last"]["test"]["top1"]
    broken = of_torchvision(tmp_path / "broken", name, epochs=1)
    interrupt(broken, 1)
    assert_same_run(execute(broken, QUIET).folder, outcome.folder)


def test_what_torchvision_draws_follows_the_seed() -> None:
    state = torch.get_rng_state()
    first, same, other = (zoo.build("shufflenet_v2_x0_5", (3, 32, 32), 10, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.get_parameter("fc.weight"), same.get_parameter("fc.weight"))
    assert not torch.equal(first.get_parameter("fc.weight"), other.get_parameter("fc.weight"))


@pytest.mark.parametrize(
    ("name", "shape", "settings", "words"),
    [
        ("vit_b_17", (3, 32, 32), {}, ["model.name=vit_b_17", "vit_b_16"]),
        ("resnet18", (1, 32, 32), {}, ["3 channels", "1x32x32"]),
        ("alexnet", (3, 32, 32), {}, ["alexnet", "3x32x32", "larger images"]),
        ("resnet18", (3, 32, 32), {"batch_size": 5}, ["batch of 1", "train.batch_size"]),
        ("squeezenet1_1", (3, 32, 32), {"norm_batches": 2}, ["train.norm_batches=2", "no batch norm"]),
    ],
)
def test_what_does_not_fit_is_said_before_the_first_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    shape: tuple[int, int, int],
    settings: dict[str, int],
    words: list[str],
) -> None:
    info = dataclasses.replace(INFO["synthetic"], shape=shape, train=40)  # 36 of them are trained on
    monkeypatch.setitem(INFO, "synthetic", info)
    config = of_torchvision(tmp_path / "out", name, **settings)
    check(config)
    with pytest.raises(ConfigError) as caught:
        prepare([config])
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) <= 300
    assert all(word in line for word in words), line
    assert not (tmp_path / "out").exists()
    config.model = Model(name="fc")  # the data is well
    config.train.norm_batches = 0
    prepare([config])


@pytest.mark.usefixtures("few")
def test_affine_norm_is_a_setting_of_the_run(tmp_path: Path) -> None:
    config = with_norm(tmp_path, "dense", epochs=1)
    config.model.norm = Norm.batch
    folder = execute(config, QUIET).folder
    model = hidden_subnet.load(folder)
    assert model.get_parameter("stem_norm.weight").std() > 0  # trained: they began as 1
    assert model.get_parameter("fc.weight").shape == (10, 32)
