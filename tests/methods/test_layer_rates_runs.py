"""Runs with rates of single layers: each keeps what its own rate says, in every epoch of a ramp, by any method."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.methods import config_of, network_of
from helpers.runs import QUIET, assert_same_run, interrupt, rows_without_times, small

from hidden_subnet.config.registries import METHODS
from hidden_subnet.config.settings import Config, Pruning, Scale
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.state import current_masks
from hidden_subnet.masks.topk import kept_count
from hidden_subnet.models.from_config import draw_weights
from hidden_subnet.models.networks import build
from hidden_subnet.sweep.execute import execute

RATES = {"conv1": 0.2, "fc*": 0.9}


def with_rates(config: Config, **pruning: object) -> Config:
    return replace(config, pruning=Pruning(name="layerwise", rates=RATES, **pruning))  # type: ignore[arg-type]


BY_RATE = [name for name, kind in METHODS.items() if kind.prunes_by_rate(kind.settings())]


@pytest.mark.parametrize("method", BY_RATE)
def test_each_layer_keeps_what_its_rate_says(method: str) -> None:
    network, applied = network_of(with_rates(config_of(method, prune_rate=0.5)))
    applied.on_evaluation(1000)  # after all phases and ramps
    for (path, layer), mask in zip(masked_layers(network), current_masks(network).values(), strict=True):
        rate = 0.2 if path == "conv1" else 0.9 if path.startswith("fc") else 0.5
        assert int(mask.sum()) == kept_count(layer.weight.numel(), rate), path


def test_a_run_with_a_ramp_is_resumed_to_the_bit_and_shows_the_densities(tmp_path: Path) -> None:
    def config(out: str) -> Config:
        return with_rates(small(tmp_path / out), ramp_epochs=2)

    whole = execute(config("whole"), QUIET)
    assert whole.state == "done", whole.message
    rows = rows_without_times(whole.folder)
    # Cubic over two epochs: 0, 7/8 and all of each rate.
    found = [[row[f"density/{path}"] for path in ("conv1", "conv2", "fc1")] for row in rows[1:]]
    expected = [[1, 1, 1], [1 - 0.175, 1 - 0.4375, 1 - 0.7875], [0.8, 0.5, 0.1]]
    assert found == [pytest.approx(each, abs=0.01) for each in expected]
    folder = interrupt(config("cut"), 8)
    assert folder.exists()
    cut = execute(config("cut"), QUIET)
    assert_same_run(whole.folder, cut.folder)


def test_the_scale_of_the_density_is_that_of_the_layer() -> None:
    config = with_rates(config_of("edge_popup", init="signed_constant", prune_rate=0.5))
    plain, scaled = (build("conv4", 1 / 16, (1, 16, 16), 10) for _ in range(2))
    draw_weights(plain, config, 0)
    draw_weights(scaled, replace(config, init=replace(config.init, scale=Scale.density)), 0)
    for (path, weight), other in zip(plain.named_parameters(), scaled.parameters(), strict=True):
        kept = 0.8 if path == "conv1.weight" else 0.1 if path.startswith("fc") else 0.5
        assert torch.allclose(weight * kept**-0.5, other)


def test_iterand_draws_again_at_the_scale_of_the_layer() -> None:
    config = with_rates(config_of("iterand", init="signed_constant", every=1, fraction=1.0))
    network, method = network_of(replace(config, init=replace(config.init, scale=Scale.density)))
    before = {path: layer.weight.detach().abs().max().item() for path, layer in masked_layers(network)}
    method.on_step_end(0)
    for path, layer in masked_layers(network):
        kept = 0.8 if path == "conv1" else 0.1 if path.startswith("fc") else 0.5
        fresh = layer.weight.detach()[~layer.rule.mask(layer.scores.detach())].abs()
        assert torch.allclose(fresh, torch.tensor(before[path] * kept**-0.5)), path
