"""Accounting of runs and networks: operations, bits and trained parameters, written out for small ones."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.methods import config_of, network_of
from helpers.runs import QUIET, small

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.config.settings import Indivisible, Library, Masking, Model, Pruning, Structure
from hidden_subnet.masks.state import current_masks, kept_weights
from hidden_subnet.masks.structure import mask_bits
from hidden_subnet.report.results import results
from hidden_subnet.sweep.execute import execute
from hidden_subnet.training.accounting import count_bits, count_flops, count_trained, peak_memory


def info(*shape: int) -> DataInfo:
    channels, height, width = shape
    return DataInfo((channels, height, width), 10, 100, 100, (0.5,), (0.5,))


def test_operations_of_linear_layers_are_two_for_each_weight() -> None:
    flops = count_flops(Model(name="fc"), info(1, 28, 28))
    assert flops is not None
    assert flops.by_weight == {"fc1": 2 * 784 * 300, "fc2": 2 * 300 * 100, "fc3": 2 * 100 * 10}
    assert flops.total == 2 * 266_200
    assert flops.sparse({"fc1": 0.5, "fc3": 0.0}) == 784 * 300 + 2 * 300 * 100
    assert flops.sparse({}) == flops.total


def test_operations_of_a_convolution_are_two_for_each_weight_and_position() -> None:
    flops = count_flops(Model(name="conv2"), info(3, 32, 32))
    assert flops is not None
    assert flops.by_weight["conv1"] == 2 * (64 * 3 * 9) * 32 * 32
    assert flops.by_weight["conv2"] == 2 * (64 * 64 * 9) * 32 * 32
    assert sum(flops.by_weight.values()) == flops.total


def test_operations_with_the_weights_of_attention() -> None:
    flops = count_flops(Model(name="vit_b_16", library=Library.torchvision), info(3, 224, 224))
    assert flops is not None
    layer = "encoder.layers.encoder_layer_0.self_attention"
    assert flops.by_weight[f"{layer}.in_proj_weight"] == 2 * 197 * 3 * 768 * 768
    assert flops.by_weight[f"{layer}.out_proj"] == 2 * 197 * 768 * 768
    # The rest: queries with keys, and attention with values, in 12 layers.
    assert flops.total - sum(flops.by_weight.values()) == 12 * 2 * (2 * 197 * 197 * 768)


def test_operations_of_a_network_that_is_not_built_on_the_meta_device() -> None:
    flops = count_flops(Model(name="regnet_y_400mf", library=Library.torchvision), info(3, 32, 32))
    assert flops is not None
    assert flops.total == sum(flops.by_weight.values())


def test_a_network_that_cannot_be_counted_has_no_number() -> None:
    assert count_flops(Model(name="conv8"), info(1, 2, 2)) is None  # too small for its pools


STRUCTURES = {
    "weight": (Structure.weight, 16 * 1.0),
    "n_m": (Structure.n_m, 4 * math.log2(6)),  # four groups of four
    "channel": (Structure.channel, 4 * 1.0),
    "block": (Structure.block, 4 * 1.0),  # four blocks of 2x2
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_bits_of_a_mask_of_half_of_16_weights(name: str) -> None:
    structure, bits = STRUCTURES[name]
    assert mask_bits((4, 4), 8, Pruning(name="layerwise", structure=structure, block=2)) == pytest.approx(bits)


def test_bits_of_other_masks() -> None:
    plain = Pruning(name="layerwise")
    assert mask_bits((10, 10), 100, plain) == mask_bits((10, 10), 0, plain) == 0
    assert mask_bits((10, 10), 10, plain) == pytest.approx(100 * 0.46899559)
    dense = Pruning(name="layerwise", structure=Structure.n_m, indivisible=Indivisible.dense)
    assert mask_bits((2, 3), 6, dense) == 0


ENTROPY_OF_COATS = -sum(share * math.log2(share) for share in (0.7, 0.3 - 0.09, 0.09))


@pytest.mark.parametrize(
    ("method", "settings", "of_n", "trained"),
    [
        ("edge_popup", {}, 1.0, 1.0),
        ("biprop", {}, 1.0, 1.0),
        ("signed", {}, 1.0 + 0.5, 1.0),
        ("multicoat", {}, 1.0 + 0.5 * ENTROPY_OF_COATS, 1.0),
        ("multicoat", {"coats": 1}, 1.0, 1.0),
        ("iterand", {}, 1.0 + 16, 1.0),
        ("random", {}, 0.0, 0.0),
        ("random_trained", {}, 16.0, 1.0),
        ("snip", {}, 1.0 + 16, 1.0),
        ("warmup_then_prune", {}, 32.0, 2.0),  # in its dense phase
        ("dense", {}, 32.0, 1.0),
    ],
)
def test_bits_and_trained_parameters_at_half_the_weights(
    method: str, settings: dict[str, Any], of_n: float, trained: float
) -> None:
    config = config_of(method, model="fc", **settings)
    network, chosen = network_of(config)
    n = sum(each.numel() for name, each in network.named_parameters() if name.endswith("weight"))
    kept = kept_weights(network, current_masks(network))
    bits = count_bits(chosen, kept, config.pruning)
    assert bits == pytest.approx(64 + of_n * n, abs=2 + 0.001 * n)  # layers with odd numbers keep one weight more
    assert count_trained(chosen) == trained * n


def test_a_dense_layer_is_trained_with_the_weights_only() -> None:
    def of(method: str) -> tuple[int, int, int]:
        config = config_of(method, model="fc")
        config = replace(config, model=replace(config.model, last_layer=Masking.dense))
        network, chosen = network_of(config)
        kept = kept_weights(network, current_masks(network))
        bits = count_bits(chosen, kept, config.pruning)
        assert bits is not None
        return network.get_parameter("fc3.weight").numel(), count_trained(chosen), bits

    last, scores, bits = of("edge_popup")
    _, weights, bits_trained = of("random_trained")
    assert weights == scores + last
    assert bits == 64 + scores
    assert bits_trained == 64 + 32 * (scores // 2 + last)


def test_factors_have_no_bits() -> None:
    config = config_of("edge_popup", model="fc")
    method = network_of(config)[1]
    assert count_bits(method, {path: 0.5 for path, _ in method.layers}, config.pruning) is None


def test_memory_at_the_peak_is_that_of_the_process() -> None:
    before = peak_memory("cpu")
    held = torch.ones(50_000_000)
    after = peak_memory("cpu")
    assert before is not None
    assert after is not None
    assert before > 50_000_000
    assert after >= before
    assert after > held.numel() * held.element_size()


def test_a_run_has_the_columns(tmp_path: Path) -> None:
    execute(small(tmp_path, epochs=1), QUIET)
    [row] = results(tmp_path).to_dict("records")
    assert row["trained_parameters"] == row["weights"] == 6088
    assert row["bits"] == 64 + 6088
    assert row["dense_flops"] == 2 * row["sparse_flops"] == 93_824
    assert row["peak_memory"] > 1e8
