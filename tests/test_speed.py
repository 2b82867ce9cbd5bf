"""Number format and memory layout: what they may change is rounding, and never the mask of given scores."""

import copy
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from silence import QUIET
from test_experiment import assert_same_run, small

from hidden_subnet import checkpoints, record
from hidden_subnet.check import ConfigError
from hidden_subnet.evaluation import checkpoints_of, measure, rebuilt
from hidden_subnet.execute import execute
from hidden_subnet.layers import masked_layers
from hidden_subnet.settings import METHODS, Config, Device, Model, Precision, PruningName, WarmupThenPrune
from hidden_subnet.speed import refuse_bfloat16, speed_up
from hidden_subnet.subnetwork import current_masks, put_masks, random_network

IMAGES = torch.randn((16, 1, 8, 8), generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(16) % 10


def config_of(out: Path, method: str = "edge_popup", pruning: str = "layerwise") -> Config:
    config = small(out, method)
    config.model, config.pruning.name = Model(name="conv4", width=0.25), PruningName[pruning]
    return config


def network_of(config: Config, precision: str = "fp32", channels_last: bool = False) -> torch.nn.Module:
    config = copy.deepcopy(config)
    config.train.precision, config.train.channels_last = Precision[precision], channels_last
    network = random_network(config)
    speed_up(network, config.train, "cpu")
    put_masks(network, config).before_step(0)
    return network


def score_gradients(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    F.cross_entropy(network(IMAGES), LABELS).backward()
    return {path: layer.scores.grad for path, layer in masked_layers(network) if layer.scores.grad is not None}


@pytest.mark.parametrize("pruning", ["layerwise", "global"])
def test_channels_last_has_the_same_masks_and_gradients(tmp_path: Path, pruning: str) -> None:
    config = config_of(tmp_path, pruning=pruning)
    plain, last = network_of(config), network_of(config, channels_last=True)
    convolutions = [layer for _, layer in masked_layers(last) if layer.weight.dim() == 4 and layer.weight.shape[1] > 1]
    assert len(convolutions) == 3
    for layer in convolutions:
        assert layer.scores.is_contiguous(memory_format=torch.channels_last)
        assert not layer.scores.is_contiguous()
    masks = current_masks(last)
    assert all(torch.equal(mask, masks[path]) for path, mask in current_masks(plain).items())
    gradients = score_gradients(last)
    assert gradients
    for path, gradient in score_gradients(plain).items():
        torch.testing.assert_close(gradients[path], gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["edge_popup", "sampled", "dense"])
def test_bfloat16_is_in_the_products_only(tmp_path: Path, method: str) -> None:
    config = config_of(tmp_path, method)
    network = network_of(config, "bf16")
    seen: dict[str, torch.dtype] = {}
    for name in ("conv2", "fc1"):
        network.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.dtype}))
    logits = network(IMAGES)
    assert seen == {"conv2": torch.bfloat16, "fc1": torch.bfloat16}
    assert logits.dtype == torch.float32
    F.cross_entropy(logits, LABELS).backward()
    trained = [value for value in network.parameters() if value.requires_grad]
    assert trained
    for value in trained:
        assert value.dtype == torch.float32
        assert value.grad is not None
        assert value.grad.dtype == torch.float32
    torch.testing.assert_close(logits, network_of(config)(IMAGES), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "dnw"])  # whose weights may not be constants
def test_a_run_with_both_keeps_exactly_k_and_measures_the_same_again(tmp_path: Path, method: str) -> None:
    config = small(tmp_path, method, epochs=1)
    if isinstance(config.method, WarmupThenPrune):
        config.method.weight_epochs, config.train.epochs = 1, 2
    plain = execute(config, QUIET)
    config.train.precision, config.train.channels_last = Precision.bf16, True
    fast = execute(config, QUIET)
    assert plain.result is not None
    assert fast.result is not None, fast.message
    assert fast.folder != plain.folder
    assert fast.result["weights_sha256"] == plain.result["weights_sha256"]
    if method not in ("sampled", "dense", "last_layer"):
        assert fast.result["kept"] == plain.result["kept"] < fast.result["weights"]
    with rebuilt(fast.folder, Device.auto) as (parts, result):
        measured = measure(parts, result, checkpoints_of(parts, result))
    assert [each for each in measured if each.equal is False] == []
    assert measured[-1].now == (fast.result["last"]["validation"] if parts.validation else fast.result["last"]["test"])


def test_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def config(out: str) -> Config:
        made = small(tmp_path / out, epochs=2)
        made.train.precision, made.train.channels_last = Precision.bf16, True
        return made

    whole = execute(config("whole"), QUIET)
    taken: list[int] = []
    display = copy.copy(QUIET)
    display = type(QUIET)(QUIET.on_row, lambda epoch, batch, batches: taken.append(batch), QUIET.say)
    broken = execute(config("broken"), display, stopped=lambda: len(taken) >= 3)
    assert broken.state == "interrupted"
    again = execute(config("broken"), QUIET)
    assert again.state == whole.state == "done"
    assert_same_run(whole.folder, again.folder)
    assert asdict(config("whole").train) == asdict(config("broken").train)
    state = checkpoints.load(again.folder / "checkpoints" / record.checkpoint_name("last"))["trained"]
    assert {value.dtype for value in state.values()} == {torch.float32}


def test_a_device_without_bfloat16_refuses() -> None:
    with pytest.raises(ConfigError, match=r"train\.precision=bf16: this machine's mps .*leave it away"):
        refuse_bfloat16("mps")
