"""init.attention_scale multiplies the weights of queries and keys, and no others, on a small vision transformer."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.methods import batch, config_of, trainer_of
from helpers.runs import small
from torch import Tensor, nn

from hidden_subnet.config.settings import Config, Library, Model
from hidden_subnet.errors import ConfigError
from hidden_subnet.methods.apply import apply_method
from hidden_subnet.models.from_config import draw_weights
from hidden_subnet.sweep.preflight import preflight

QUERIES_KEYS = "encoder.layers.0.self_attn.in_proj_weight"


class SmallTransformer(nn.Module):
    """A vision transformer of one layer: patches of 4x4 pixels, 8 features, 2 heads; it maps (B, 1, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, stride=4)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), 1, enable_nested_tensor=False
        )
        self.head = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        logits: Tensor = self.head(self.encoder(tokens).mean(dim=1))
        return logits


def config(scale: float, method: str = "edge_popup", **settings: object) -> Config:
    found = config_of(method, init="signed_constant", **settings)
    return replace(found, init=replace(found.init, attention_scale=scale))


def drawn(network: nn.Module, scale: float) -> dict[str, Tensor]:
    draw_weights(network, config(scale), 0)
    return {name: value.detach().clone() for name, value in network.named_parameters()}


def test_queries_and_keys_are_scaled_and_values_are_not() -> None:
    network = SmallTransformer()
    plain, scaled = drawn(network, 1.0), drawn(network, 2.5)
    assert torch.equal(scaled[QUERIES_KEYS][:16], 2.5 * plain[QUERIES_KEYS][:16])
    assert torch.equal(scaled[QUERIES_KEYS][16:], plain[QUERIES_KEYS][16:])
    assert all(torch.equal(scaled[name], plain[name]) for name in plain if name != QUERIES_KEYS)


def test_queries_and_keys_of_other_sizes_have_weights_of_their_own() -> None:
    network = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2, kdim=4, vdim=6)})
    plain, scaled = drawn(network, 1.0), drawn(network, 2.5)
    factors = {name: float((scaled[name] / value).mean()) for name, value in plain.items() if "bias" not in name}
    assert factors == {
        "attention.q_proj_weight": 2.5,
        "attention.k_proj_weight": 2.5,
        "attention.v_proj_weight": 1.0,
        "attention.out_proj.weight": 1.0,
    }


def test_weights_that_iterand_draws_again_are_scaled_too() -> None:
    settings = config(2.5, "iterand", every=1, fraction=1.0)
    network = SmallTransformer()
    draw_weights(network, settings, 0)
    method = apply_method(network, settings)
    [layer] = [layer for path, layer in method.layers if path == QUERIES_KEYS]
    before = layer.weight.detach().clone()
    trainer = trainer_of(network, method, lr=0.1)
    trainer.train_step(*batch())
    assert not torch.equal(layer.weight, before)
    assert torch.equal(layer.weight.abs(), before.abs())  # of signed_constant, one magnitude for queries and keys
    assert float(before.abs().max() / before.abs().min()) == pytest.approx(2.5)


@pytest.mark.parametrize(
    "model", [Model(name="conv2", width=0.125), Model(name="resnet18", library=Library.torchvision)]
)
def test_a_network_without_attention_is_refused(model: Model, tmp_path: Path) -> None:
    asked = replace(small(tmp_path), model=model)
    asked.init.attention_scale = 2.8
    if model.library is Library.torchvision:
        asked = replace(asked, data=replace(asked.data, name="cifar10"))
    line = rf"^init\.attention_scale=2\.8: model\.name={model.name} has no nn\.MultiheadAttention, .*type: init\."
    with pytest.raises(ConfigError, match=line):
        preflight([asked])
