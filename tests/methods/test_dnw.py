"""Discovering neural wirings: the rule on four numbers, and where its scores start."""

import torch
from helpers.methods import config_of
from torch import nn

from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.selection import TopKSelection
from hidden_subnet.methods.apply import apply_method
from hidden_subnet.methods.dnw import DnwRule
from hidden_subnet.models.from_config import random_network
from hidden_subnet.training.experiment import resolve


def test_written_out() -> None:
    trained = torch.tensor([[0.5, -3.0], [2.0, -1.0]], requires_grad=True)
    weight = torch.tensor([[1.0, -2.0], [3.0, -4.0]], requires_grad=True)
    effective = DnwRule(TopKSelection(2))(trained, weight)
    assert effective.tolist() == [[0, -3], [2, 0]]  # the two largest magnitudes of what is trained
    effective.backward(torch.tensor([[1.0, 10.0], [100.0, 1000.0]]))
    assert trained.grad is not None
    assert trained.grad.tolist() == [[1, 10], [100, 1000]]  # to all, as if none were removed
    assert weight.grad is None


def test_it_starts_with_the_random_weights() -> None:
    run = resolve(config_of("dnw", model="conv2"))
    network = random_network(run.config, run.info, run.weights_seed)
    before = {
        path: layer.weight.detach().clone()
        for path, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    apply_method(network, run.config)
    assert [path for path, _ in masked_layers(network)] == list(before)
    for path, layer in masked_layers(network):
        assert torch.equal(layer.scores, before[path])
