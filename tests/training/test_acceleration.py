"""Number format and memory layout: what they may change is rounding, and never the mask of given scores."""

import copy
import platform
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.runs import QUIET, assert_same_run, interrupt, small

from hidden_subnet.analysis.evaluate import checkpoints_of, measure, rebuilt
from hidden_subnet.config.registries import METHODS, info_of
from hidden_subnet.config.settings import Config, Device, Model, Precision
from hidden_subnet.errors import ConfigError
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.state import current_masks
from hidden_subnet.methods.apply import apply_method
from hidden_subnet.methods.warmup_then_prune import WarmupThenPruneSettings
from hidden_subnet.models.from_config import random_network
from hidden_subnet.store import checkpoints, files
from hidden_subnet.sweep.execute import execute
from hidden_subnet.training.acceleration import refuse_bfloat16, speed_up

IMAGES = torch.randn((16, 1, 8, 8), generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(16) % 10


def config_of(out: Path, method: str = "edge_popup", pruning: str = "layerwise") -> Config:
    config = small(out, method)
    config.model, config.pruning.name = Model(name="conv4", width=0.25), pruning
    return config


def network_of(config: Config, precision: str = "fp32", channels_last: bool = False) -> torch.nn.Module:
    config = copy.deepcopy(config)
    config.train.precision, config.train.channels_last = Precision[precision], channels_last
    network = random_network(config, info_of(config.data), 0)
    speed_up(network, config.train, "cpu")
    apply_method(network, config).on_step_start(0)
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
    if isinstance(config.method, WarmupThenPruneSettings):
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
    with rebuilt(fast.folder, Device.auto) as (experiment, result):
        measured = measure(experiment, result, checkpoints_of(experiment, result))
    assert [each for each in measured if each.equal is False] == []
    assert measured[-1].now == fast.result["last"]["validation"]


def test_resumes_bit_for_bit(tmp_path: Path) -> None:
    def config(out: str) -> Config:
        made = small(tmp_path / out, epochs=2)
        made.train.precision, made.train.channels_last = Precision.bf16, True
        return made

    whole = execute(config("whole"), QUIET)
    interrupt(config("broken"), 3)
    again = execute(config("broken"), QUIET)
    assert again.state == whole.state == "done"
    assert_same_run(whole.folder, again.folder)
    assert asdict(config("whole").train) == asdict(config("broken").train)
    state = checkpoints.load(again.folder / "checkpoints" / files.checkpoint_name("last"))["trained"]
    assert {value.dtype for value in state.values()} == {torch.float32}


def test_a_device_without_bfloat16_refuses() -> None:
    with pytest.raises(
        ConfigError, match=r"train\.precision=bf16: this machine's mps .*; type: train\.precision=fp32$"
    ):
        refuse_bfloat16("mps")


# In a process of its own, since the heap of one that has run other tests may have room for the tensor.
MEMORY = """
import os
from pathlib import Path
import torch
from hidden_subnet.training.acceleration import freed_memory_kept, return_freed_memory

def resident_megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

return_freed_memory()
before = resident_megabytes()
with freed_memory_kept():
    torch.ones(2**26)  # 256 MB
    print(resident_megabytes() - before)
print(resident_megabytes() - before)
torch.ones(2**26)
print(resident_megabytes() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_process_gives_the_memory_of_a_run_back() -> None:
    said = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout
    within, after, later = map(int, said.split())
    assert within > 200
    assert after < 50
    assert later < 50
