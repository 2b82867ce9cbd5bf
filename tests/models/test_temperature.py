"""Without biases and norm layers a scale of the weights is a temperature of the logits, and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.own_parts import Use, composed, forgotten, use
from helpers.runs import QUIET, small

from hidden_subnet.analysis.export import export
from hidden_subnet.analysis.load import load
from hidden_subnet.config.settings import Config, Init, Model, Scale
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.methods.apply import apply_method
from hidden_subnet.models.from_config import random_network
from hidden_subnet.store.files import folder_of
from hidden_subnet.sweep.execute import execute
from hidden_subnet.training.experiment import resolve

__all__ = ["forgotten", "use"]

LAYERS = {"fc": 3, "conv2": 5, "conv4": 7}


def score_gradients(config: Config) -> tuple[float, dict[str, torch.Tensor]]:
    run = resolve(config)
    network = random_network(config, run.info, run.weights_seed)
    apply_method(network, config)
    images = torch.randn((8, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    loss = F.cross_entropy(network(images), torch.arange(8))
    loss.backward()
    return loss.item(), {
        path: layer.scores.grad for path, layer in masked_layers(network) if layer.scores.grad is not None
    }


@pytest.mark.parametrize(("scale", "rate"), [("density", 0.3), ("density", 0.9), ("reference", 0.1)])
@pytest.mark.parametrize("model", LAYERS)
def test_a_scale_is_a_temperature(tmp_path: Path, model: str, scale: str, rate: float) -> None:
    plain = replace(small(tmp_path), model=Model(name=model, width=0.25), prune_rate=rate)
    scaled = replace(plain, init=Init(name="signed_constant", scale=Scale[scale]))
    kept = 1 - rate if scale == "density" else rate
    cooled = replace(plain, model=Model(name=model, width=0.25, temperature=kept ** (LAYERS[model] / 2)))
    loss, gradients = score_gradients(scaled)
    its_loss, its_gradients = score_gradients(cooled)
    assert its_loss == pytest.approx(loss, rel=1e-4)
    assert len(gradients) == LAYERS[model]
    for path, gradient in gradients.items():
        torch.testing.assert_close(its_gradients[path], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()))


def test_the_temperature_of_a_run_divides_its_logits(tmp_path: Path) -> None:
    losses, hits = [], []
    for temperature in (1.0, 4.0):
        config = small(tmp_path, "random")
        config = replace(config, model=replace(config.model, temperature=temperature))
        result = execute(config, QUIET).result
        assert result is not None
        losses.append(result["last"]["test"]["loss"])
        hits.append(result["last"]["test"]["top1"])
    assert losses[0] != losses[1]
    assert hits[0] == hits[1]


OWN_NETWORKS = """
import torch, hidden_subnet as hs
from torch import nn

class Network(nn.Sequential):
    def __init__(self, shape, classes):
        super().__init__(nn.Flatten(), nn.Linear(64, classes, bias=False))

@hs.register_model("own_forward")
class OwnForward(Network):
    def forward(self, images):
        return self[1](self[0](images)).relu()

@hs.register_model("own_number")
class OwnNumber(Network):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.temperature = 0.5

    def forward(self, images):
        return super().forward(images) / self.temperature

@hs.register_model("own_module")
class OwnModule(Network):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.add_module("temperature", nn.Hardtanh(-0.1, 0.1))
"""


@pytest.mark.parametrize("name", ["own_forward", "own_number", "own_module"])
def test_the_temperature_divides_the_logits_of_any_network(use: Use, tmp_path: Path, name: str) -> None:
    used = use(OWN_NETWORKS)
    images = torch.randn((8, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    logits = []
    for temperature in (1, 4):
        chosen = [f"model={name}", f"model.temperature={temperature}", "train.epochs=1", f"out={tmp_path}"]
        result = execute(config := composed(used, *chosen), QUIET).result
        assert result is not None
        network = load(folder_of(config), use=used)
        exported = torch.export.load(export(folder_of(config), "last", tmp_path / "net.pt2")).module()
        torch.testing.assert_close(exported(images), network(images))
        run = resolve(config)
        logits.append(random_network(config, run.info, run.weights_seed)(images))
    assert logits[0].abs().max() > 0
    assert torch.equal(logits[1], logits[0] / 4)
