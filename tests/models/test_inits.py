"""Each init keeps its promised variance, with and without a scale, and its draws depend on the seed alone."""

from dataclasses import replace
from math import sqrt

import pytest
import torch
from torch import Tensor, nn

from hidden_subnet.config.registries import INITS, METHODS, load_parts
from hidden_subnet.config.settings import Config, Data, Init, Masking, Model, Pruning, Scale, Seeds
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.topk import kept_count, topk_mask
from hidden_subnet.methods.apply import apply_method
from hidden_subnet.models.from_config import random_network
from hidden_subnet.models.inits import fans, fill
from hidden_subnet.training.experiment import resolve

load_parts()

# A conv of 294,912 weights: large enough that its moments are near those promised.
CONV = (256, 128, 3, 3)
FAN_IN, FAN_OUT = 1152, 2304
STD = {
    ("signed_constant", "fan_in"): sqrt(2 / FAN_IN),
    ("signed_constant", "fan_out"): sqrt(2 / FAN_OUT),
    ("unsigned_constant", "fan_in"): sqrt(2 / FAN_IN),
    ("unsigned_constant", "fan_out"): sqrt(2 / FAN_OUT),
    ("kaiming_normal", "fan_in"): sqrt(2 / FAN_IN),
    ("kaiming_normal", "fan_out"): sqrt(2 / FAN_OUT),
    ("kaiming_uniform", "fan_in"): sqrt(2 / FAN_IN),
    ("kaiming_uniform", "fan_out"): sqrt(2 / FAN_OUT),
    ("xavier_normal", "fan_in"): sqrt(2 / (FAN_IN + FAN_OUT)),
    ("xavier_constant", "fan_in"): sqrt(2 / (FAN_IN + FAN_OUT)),
    ("standard", "fan_in"): sqrt(1 / (3 * FAN_IN)),
}


def drawn(name: str, mode: str = "fan_in", scale: float = 1.0, seed: int = 0) -> Tensor:
    layer = nn.Conv2d(CONV[1], CONV[0], 3)
    fill(layer, name, mode, scale, seed)
    assert layer.bias is not None
    assert not layer.bias.any()
    return layer.weight.detach()


def rms(weight: Tensor) -> float:
    return weight.double().square().mean().sqrt().item()


def test_fans() -> None:
    assert fans(torch.empty(CONV)) == (FAN_IN, FAN_OUT)
    assert fans(torch.empty(10, 256)) == (256, 10)


def test_every_init_is_in_the_table() -> None:
    assert {name for name, _ in STD} == set(INITS)


@pytest.mark.parametrize(("name", "mode"), STD)
def test_promised_std(name: str, mode: str) -> None:
    weight = drawn(name, mode)
    # The widest, the normal's, has a standard error of 1 / sqrt(2 n), 0.13 %.
    assert rms(weight) == pytest.approx(STD[name, mode], rel=0.007)
    if name != "unsigned_constant":
        assert abs(weight.mean().item()) < 5 * STD[name, mode] / sqrt(weight.numel())


def test_the_same_law_as_torch() -> None:
    weight = torch.empty(CONV)
    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
    assert rms(weight) == pytest.approx(STD["kaiming_normal", "fan_out"], rel=0.01)
    nn.init.xavier_normal_(weight)
    assert rms(weight) == pytest.approx(STD["xavier_normal", "fan_in"], rel=0.01)
    plain = nn.Conv2d(CONV[1], CONV[0], 3).weight.detach()
    assert rms(plain) == pytest.approx(STD["standard", "fan_in"], rel=0.01)
    assert drawn("standard").abs().max().item() == pytest.approx(plain.abs().max().item(), rel=1e-3)


@pytest.mark.parametrize(("name", "bound"), [("kaiming_uniform", sqrt(6 / FAN_IN)), ("standard", sqrt(1 / FAN_IN))])
def test_uniform_fills_its_interval(name: str, bound: float) -> None:
    weight = drawn(name)
    assert 0.999 * bound < weight.max().item() <= bound
    assert -bound <= weight.min().item() < -0.999 * bound
    quarters = torch.histc(weight, bins=4, min=-bound, max=bound) / weight.numel()
    assert quarters.tolist() == pytest.approx([0.25] * 4, abs=0.004)  # 5 standard errors


@pytest.mark.parametrize(
    ("name", "mode"), [("signed_constant", "fan_in"), ("signed_constant", "fan_out"), ("xavier_constant", "fan_in")]
)
def test_signed_constants_take_two_values(name: str, mode: str) -> None:
    weight = drawn(name, mode)
    low, high = torch.unique(weight).tolist()
    assert low == -high
    assert high == pytest.approx(STD[name, mode], rel=1e-6)
    assert (weight > 0).double().mean().item() == pytest.approx(0.5, abs=5 * 0.5 / sqrt(weight.numel()))


def test_unsigned_constant_takes_one_value() -> None:
    [value] = torch.unique(drawn("unsigned_constant")).tolist()
    assert value == pytest.approx(sqrt(2 / FAN_IN), rel=1e-6)


@pytest.mark.parametrize("prune_rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", [name for name in INITS if name != "standard"])
def test_scale_keeps_the_second_moment_of_a_pruned_layer(name: str, prune_rate: float) -> None:
    config = network("conv2", init=name, scale=Scale.density, prune_rate=prune_rate, width=2)
    weight = drawn_network(config).get_submodule("conv2").weight
    assert isinstance(weight, Tensor)
    n, fan_in = weight.numel(), 128 * 9
    assert n == 128 * fan_in
    scores = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1))
    mask = topk_mask(scores, kept_count(n, prune_rate))
    second_moment = fan_in * (mask * weight.detach()).double().square().mean().item()
    # Kaiming promises 2; Xavier 2 fan_in / (fan_in + fan_out), and here both fans are the same.
    promised = 1 if name.startswith("xavier") else 2
    # Constants to rounding; the normal's standard error is sqrt(2 / kept weights), 1.2 % of 14,746 weights.
    tolerance = 1e-4 if "constant" in name else 5 * sqrt(2 / kept_count(n, prune_rate))
    assert second_moment == pytest.approx(promised, rel=tolerance)


def network(
    model: str = "conv4",
    *,
    init: str = "kaiming_normal",
    method: str = "edge_popup",
    scale: Scale = Scale.none,
    prune_rate: float = 0.5,
    seed: int = 0,
    seeds: Seeds | None = None,
    width: float = 0.25,
) -> Config:
    return Config(
        model=Model(name=model, width=width),
        init=Init(name=init, scale=scale),
        data=Data(name="synthetic"),
        pruning=Pruning(name="layerwise"),
        method=METHODS[method].settings(),
        prune_rate=prune_rate,
        seed=seed,
        seeds=seeds or Seeds(),
    )


def drawn_network(config: Config) -> nn.Module:
    run = resolve(config)
    return random_network(config, run.info, run.weights_seed)


def weights(config: Config) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in drawn_network(config).named_parameters()}


def scores(config: Config) -> dict[str, Tensor]:
    model = drawn_network(config)
    apply_method(model, config)
    return {path: layer.scores.detach() for path, layer in masked_layers(model)}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("init", [name for name in INITS if name != "unsigned_constant"])
def test_the_weights_follow_their_seed_alone(init: str) -> None:
    first = weights(network(init=init))
    torch.manual_seed(123)  # what else is drawn in the process does not count
    for method in METHODS:
        for prune_rate in (0.1, 0.9):
            assert equal(weights(network(init=init, method=method, prune_rate=prune_rate)), first)
    assert equal(weights(network(init=init, seed=5, seeds=Seeds(weights=0))), first)
    assert equal(weights(network(init=init, seeds=Seeds(scores=5, data=5, split=5))), first)
    other = weights(network(init=init, seed=1))
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_layers_of_one_shape_are_drawn_apart() -> None:
    model = nn.ModuleDict({"a": nn.Linear(50, 50), "b": nn.Linear(50, 50)})
    fill(model, "kaiming_normal", "fan_in", 1.0, seed=0)
    a, b = (layer.weight for layer in model.values() if isinstance(layer, nn.Linear))
    assert abs(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()) < 5 / sqrt(2500)


def test_the_scale_multiplies_the_same_draw() -> None:
    plain = weights(network(prune_rate=0.75))
    scaled = weights(network(prune_rate=0.75, scale=Scale.density))
    for name, value in plain.items():
        torch.testing.assert_close(scaled[name], 2 * value)


def test_the_scale_leaves_alone_a_layer_of_which_nothing_is_removed() -> None:
    def with_ends(scale: Scale) -> Config:
        config = network("conv2", scale=scale, prune_rate=0.75)
        return replace(config, model=replace(config.model, first_layer=Masking.dense, last_layer=Masking.dense))

    plain, density, reference = (weights(with_ends(scale)) for scale in Scale)
    for name, value in plain.items():
        factor = 1 if name in ("conv1.weight", "fc3.weight") else 2
        torch.testing.assert_close(density[name], factor * value)
        torch.testing.assert_close(reference[name], value / 0.75**0.5)  # the authors' code scales every layer


def test_the_authors_scale_is_upside_down() -> None:
    drawn = {
        (rate, scale): weights(network("conv2", scale=scale, prune_rate=rate))["conv1.weight"]
        for rate in (0.25, 0.75)
        for scale in Scale
    }
    for rate in (0.25, 0.75):
        plain = drawn[rate, Scale.none]
        torch.testing.assert_close(drawn[rate, Scale.reference], plain / rate**0.5)
        torch.testing.assert_close(drawn[rate, Scale.density], plain / (1 - rate) ** 0.5)


def test_the_scores_follow_their_seed_alone() -> None:
    first = scores(network())
    assert equal(scores(network(prune_rate=0.9, init="standard", seeds=Seeds(weights=5, data=5))), first)
    assert equal(scores(network(seed=5, seeds=Seeds(scores=0))), first)
    other = scores(network(seeds=Seeds(scores=1)))
    assert not any(torch.equal(first[path], other[path]) for path in first)
    # A random mask is not the mask with which a search of the same seed begins.
    untrained = scores(network(method="random"))
    assert not any(torch.equal(first[path], untrained[path]) for path in first)
