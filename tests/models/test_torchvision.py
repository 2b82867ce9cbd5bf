"""The networks of torchvision: built, masked, run, resumed and loaded."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.color_images import accuracy, color_batch, synthetic_data
from helpers.masking import mask_as_edge_popup
from helpers.runs import QUIET, assert_same_run, interrupt, small
from torch import nn
from torchvision.models import squeezenet1_1

from hidden_subnet.analysis.export import export
from hidden_subnet.config.checks import check
from hidden_subnet.config.settings import Config, Library, Masking, Model
from hidden_subnet.data.catalog import INFO
from hidden_subnet.errors import ConfigError
from hidden_subnet.masks.layers import mask_layers, masked_layers, remove_masks
from hidden_subnet.models import torchvision
from hidden_subnet.models.from_config import bare_network, masked_shapes
from hidden_subnet.models.inits import weights_of
from hidden_subnet.sweep.execute import execute
from hidden_subnet.sweep.preflight import preflight
from hidden_subnet.training.collapse import dead_layer


@pytest.fixture
def color(monkeypatch: pytest.MonkeyPatch) -> None:
    """data=synthetic, in 3 channels of 32x32."""
    synthetic_data(monkeypatch, shape=(3, 32, 32), train=40, test=24, mean=(0.5,) * 3, std=(0.25,) * 3)


def test_the_dead_layer_of_a_network_whose_parameters_are_masked() -> None:
    theirs = torchvision.build("squeezenet1_1", (3, 32, 32), 10, 0)
    mask_layers(theirs, by_parameter=True)
    assert dead_layer(theirs, [color_batch(), color_batch(3)]) is None
    dict(masked_layers(theirs))["features.3.squeeze"].weight.zero_()
    assert dead_layer(theirs, [color_batch(), color_batch(3)]) == "features.3.squeeze"


def vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 16, 2, 2, 8, 16, num_classes=5)


def swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=5)


def bypassed(model: nn.Module) -> list[str]:
    """Return the paths of masked weights without which the outputs are the same."""
    images, _ = color_batch(2)
    with torch.no_grad():
        outputs, same = model(images), []
        for path, layer in masked_layers(model):
            layer.cached_weight = torch.zeros_like(layer.weight)
            same += [path] * torch.equal(model(images), outputs)
            del layer.cached_weight
    return same


@pytest.mark.parametrize("make", [vit, swin])
def test_every_masked_weight_of_a_transformer_acts(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = make().eval()
    nn.init.normal_(model.get_parameter("heads.head.weight" if make is vit else "head.weight"))  # zero in a ViT
    plain = {name: value.shape for name, value in model.named_parameters()}
    paths = mask_as_edge_popup(model, by_parameter=True)
    assert len(paths) == sum("weight" in name and len(shape) in (2, 4) for name, shape in plain.items())
    assert bypassed(model) == []
    model.train()(color_batch(2)[0]).square().sum().backward()
    assert all(layer.scores.grad is not None and layer.scores.grad.any() for _, layer in masked_layers(model))
    with torch.no_grad():
        expected = model.eval()(color_batch(2)[0])
    remove_masks(model)
    torch.testing.assert_close(model(color_batch(2)[0]), expected)
    assert {name: value.shape for name, value in model.named_parameters()} == plain


def test_masking_layers_alone_would_miss_some() -> None:
    """The control of the test above: Swin's attention reads the weights of its layers without calling them."""
    model = swin().eval()
    mask_layers(model)
    assert [path.rpartition(".")[2] for path in bypassed(model)] == ["qkv", "proj"] * 2


def of_torchvision(out: Path, name: str, method: str = "edge_popup", **settings: Any) -> Config:
    config = small(out, method, **{"epochs": 2, "batch_size": 12, **settings})
    return replace(config, model=Model(name=name, library=Library.torchvision))


@pytest.mark.slow
@pytest.mark.usefixtures("color")
def test_a_network_of_torchvision_with_dropout_has_the_same_bits_when_resumed(tmp_path: Path) -> None:
    whole = execute(of_torchvision(tmp_path / "whole", "squeezenet1_1"), QUIET)
    assert whole.result is not None, whole.message
    assert set(whole.result["not_masked"]) == {f"{layer['name']}.bias" for layer in whole.result["layers"]}
    assert whole.result["weights"] + sum(whole.result["not_masked"].values()) == whole.result["parameters"]
    config = of_torchvision(tmp_path / "broken", "squeezenet1_1")
    for steps in (1, 2):
        interrupt(config, steps)
    assert_same_run(execute(config, QUIET).folder, whole.folder)
    assert accuracy(whole.folder, "last") == whole.result["last"]["test"]["top1"]
    weights = torch.load(export(whole.folder, "last", tmp_path / "model.pt"))
    assert sum(int(value.count_nonzero()) for value in weights.values() if value.dim() > 1) == whole.result["kept"]
    squeezenet1_1(num_classes=10).load_state_dict(weights)


@pytest.mark.slow
@pytest.mark.usefixtures("color")
@pytest.mark.parametrize(
    "name", ["vit_b_16", "swin_t", "mobilenet_v3_small", "convnext_tiny", "resnet18", "regnet_y_400mf"]
)
def test_networks_of_torchvision_run_and_are_resumed_and_loaded(tmp_path: Path, name: str) -> None:
    config = of_torchvision(tmp_path, name, epochs=1)
    preflight([config])
    outcome = execute(config, QUIET)
    assert outcome.result is not None, outcome.message
    masked = {layer["name"] for layer in outcome.result["layers"]}
    if name == "vit_b_16":
        assert "encoder.layers.encoder_layer_0.self_attention.in_proj_weight" in masked
        assert "encoder.layers.encoder_layer_0.self_attention.out_proj" in masked
        assert not {key for key in outcome.result["not_masked"] if key.endswith("proj_weight")}
    assert accuracy(outcome.folder, "last") == outcome.result["last"]["test"]["top1"]
    if name in ("vit_b_16", "swin_t"):  # minutes; dropout is resumed above, and stochastic depth with convnext_tiny
        return
    broken = of_torchvision(tmp_path / "broken", name, epochs=1)
    interrupt(broken, 1)
    assert_same_run(execute(broken, QUIET).folder, outcome.folder)


def test_the_shapes_of_a_network_that_needs_numbers_are_known_before_the_first_run() -> None:
    """RegNet cannot be built on the meta device."""
    settings = Model(name="regnet_y_400mf", library=Library.torchvision, last_layer=Masking.dense)
    network = bare_network(settings, INFO["cifar10"], 0)
    found = {path: tuple(module.get_parameter(name).shape) for path, module, name in weights_of(network)}
    assert list(masked_shapes(settings, INFO["cifar10"]).items()) == list(found.items())[:-1]


def test_what_torchvision_draws_follows_the_seed() -> None:
    state = torch.get_rng_state()
    first, same, other = (torchvision.build("shufflenet_v2_x0_5", (3, 32, 32), 10, seed) for seed in (1, 1, 2))
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
    synthetic_data(monkeypatch, shape=shape, train=40)  # 36 of them are trained on
    config = of_torchvision(tmp_path / "out", name, **settings)
    check(config)
    with pytest.raises(ConfigError) as caught:
        preflight([config])
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) <= 300
    assert all(word in line for word in words), line
    assert not (tmp_path / "out").exists()
    train = replace(config.train, norm_batches=0)
    preflight([replace(config, model=Model(name="fc"), train=train)])  # the data is well
