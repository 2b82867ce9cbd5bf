"""Without biases and norm layers a scale of the weights is a temperature of the logits, and nothing else."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from silence import QUIET
from test_experiment import small

from hidden_subnet.execute import execute
from hidden_subnet.layers import masked_layers
from hidden_subnet.settings import Config, Model, Scale
from hidden_subnet.subnetwork import put_masks, random_network

LAYERS = {"fc": 3, "conv2": 5, "conv4": 7}


def score_gradients(config: Config) -> tuple[float, dict[str, torch.Tensor]]:
    network = random_network(config)
    put_masks(network, config)
    images = torch.randn((8, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    loss = F.cross_entropy(network(images), torch.arange(8))
    loss.backward()
    return loss.item(), {
        path: layer.scores.grad for path, layer in masked_layers(network) if layer.scores.grad is not None
    }


@pytest.mark.parametrize(("scale", "rate"), [("density", 0.3), ("density", 0.9), ("reference", 0.1)])
@pytest.mark.parametrize("model", LAYERS)
def test_a_scale_is_a_temperature(tmp_path: Path, model: str, scale: str, rate: float) -> None:
    scaled = small(tmp_path)
    scaled.model, scaled.prune_rate, scaled.init.scale = Model(name=model, width=0.25), rate, Scale[scale]
    cooled = small(tmp_path)
    kept = 1 - rate if scale == "density" else rate
    cooled.model = Model(name=model, width=0.25, temperature=kept ** (LAYERS[model] / 2))
    cooled.prune_rate = rate
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
        config.model.temperature = temperature
        result = execute(config, QUIET).result
        assert result is not None
        losses.append(result["last"]["test"]["loss"])
        hits.append(result["last"]["test"]["top1"])
    assert losses[0] != losses[1]
    assert hits[0] == hits[1]
