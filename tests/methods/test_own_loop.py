"""A network of the user's own is masked for a training loop of the user's own, and comes back as plain layers."""

import copy
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hidden_subnet as hs
from hidden_subnet.masks.state import current_masks


class Net(nn.Module):
    """A network with all kinds of parameters: conv, linear, bias and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 36, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.conv(images)).relu().flatten(1))
        return logits


@pytest.fixture
def network() -> Net:
    torch.manual_seed(0)
    return Net()


IMAGES, LABELS = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(40) % 10


def train(network: nn.Module, steps: int) -> float:
    trained = [each for each in network.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.5, momentum=0.9)
    network.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(IMAGES), LABELS)
        loss.backward()
        optimizer.step()
    return loss.item()


def test_the_scores_learn_and_nothing_else_changes(network: Net) -> None:
    before = copy.deepcopy(network.state_dict())
    assert hs.mask(network, prune_rate=0.7) is network
    assert [name for name, each in network.named_parameters() if each.requires_grad] == ["conv.scores", "head.scores"]
    first = train(network, 1)
    masks = current_masks(network)
    assert train(network, 30) < 0.7 * first
    assert any(not torch.equal(masks[path], mask) for path, mask in current_masks(network).items())
    after = network.state_dict()
    assert all(
        torch.equal(after[name], value) for name, value in before.items() if "running" not in name and "num" not in name
    )
    network.eval()
    logits = network(IMAGES)
    kept = current_masks(network)
    assert [int(mask.sum()) for mask in kept.values()] == [22, 864]  # 0.3 of 72 and of 2880, rounded

    assert hs.remove_masks(network) is network
    assert torch.equal(network(IMAGES), logits)
    assert type(network.conv) is nn.Conv2d
    assert network.state_dict().keys() == before.keys()
    assert torch.equal(network.conv.weight, before["conv.weight"] * kept["conv"])
    assert not any(each.requires_grad for each in network.parameters())


def test_each_forward_pass_has_the_masks_of_its_scores(network: Net) -> None:
    hs.mask(network, prune_rate=0.5, dense=["head"])
    layer = network.conv
    for training in (True, False):
        network.train(training)
        with torch.no_grad():
            layer.scores.copy_(torch.randn(layer.scores.shape))  # type: ignore[operator, union-attr]
            network(IMAGES)
        magnitudes = layer.scores.detach().abs()  # type: ignore[operator, union-attr]
        assert torch.equal(current_masks(network)["conv"], magnitudes > magnitudes.flatten().sort().values[35])


def test_the_same_seed_draws_the_same(network: Net) -> None:
    one, other, third = (copy.deepcopy(network) for _ in range(3))
    hs.mask(one, init="signed_constant", seed=1)
    hs.mask(other, init="signed_constant", seed=1)
    hs.mask(third, init="signed_constant", seed=2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not torch.equal(one.conv.weight, third.conv.weight)
    assert one.conv.weight.unique().numel() == 2


def test_methods_that_train_weights(network: Net) -> None:
    hs.mask(network, prune_rate=0.5, method="random_trained")
    first = train(network, 1)
    before = current_masks(network)
    assert train(network, 20) < first
    assert all(torch.equal(before[path], mask) for path, mask in current_masks(network).items())
    hs.remove_masks(network)
    assert (network.conv.weight == 0).double().mean() == 0.5
    hs.mask(network, method="dnw")  # once more, by another method
    train(network, 1)


def test_a_copy_is_a_network_of_its_own(network: Net) -> None:
    other = copy.deepcopy(hs.mask(network, prune_rate=0.5))
    train(other, 3)
    assert not torch.equal(other.conv.scores, network.conv.scores)  # type: ignore[arg-type]
    hs.remove_masks(other)
    train(network, 1)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"method": "edgepopup"}, "unknown method 'edgepopup'"),
        ({"prune_rate": 1.5}, "prune_rate=1.5: the fraction of weights removed must be at least 0 and below 1"),
        ({"pruning": "glob"}, "pruning.name=glob: there is no such pruning (layerwise, global, erk, balanced)"),
        ({"init": "kaimin"}, "init.name=kaimin: there is no such init"),
        ({"beta": 3}, "'beta' is not a setting of EdgePopupSettings"),
        ({"method": "dense"}, "method='dense': masks nothing; as in: method='edge_popup'"),
        ({"method": "sampled"}, "method='sampled': works in moments of a run that your own loop lacks (penalty)"),
        ({"dense": ["fc"]}, "dense='fc': no layer of the network has this path"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_the_network_as_it_was(
    network: Net, given: dict[str, Any], line: str
) -> None:
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ValueError, match=f"^{re.escape(line)}"):
        hs.mask(network, **given)
    assert network.state_dict().keys() == before.keys()
    assert all(each.requires_grad for each in network.parameters())


def test_masks_are_put_on_and_taken_off_once(network: Net) -> None:
    with pytest.raises(ValueError, match="is not masked"):
        hs.remove_masks(network)
    hs.mask(network)
    with pytest.raises(ValueError, match="is masked already"):
        hs.mask(network)
    with pytest.raises(ValueError, match="no conv, linear or embedding layer to mask"):
        hs.mask(nn.ReLU())


class Others(nn.Module):
    """A network of all other layers with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 8, padding_idx=0)
        self.conv1 = nn.Conv1d(8, 6, 3, padding=1)
        self.depthwise = nn.Conv2d(6, 12, (1, 3), groups=6)
        self.conv3 = nn.Conv3d(1, 4, (3, 1, 3))
        self.up1, self.up2 = nn.ConvTranspose1d(40, 20, 2, stride=2), nn.ConvTranspose2d(20, 6, 3, groups=2)
        self.up3 = nn.ConvTranspose3d(1, 2, (2, 1, 1))

    def forward(self, words: Tensor) -> Tensor:
        seen = self.conv1(self.embedding(words).transpose(1, 2)).tanh()  # (B, 6, L)
        seen = self.depthwise(seen[:, :, None]).tanh()  # (B, 12, 1, L - 2)
        seen = self.conv3(seen[:, None, :]).tanh().flatten(1, 2)  # (B, 40, 1, L - 4)
        seen = self.up1(seen[:, :, 0])[:, :, None]
        seen = self.up3(self.up2(seen)[:, None])
        logits: Tensor = seen.square().mean((2, 3, 4))
        return logits


def test_layers_of_every_kind_are_masked_and_come_back() -> None:
    torch.manual_seed(0)
    network, words = Others(), torch.randint(0, 12, (5, 10))
    network.load_state_dict(network.state_dict())
    hs.mask(network, prune_rate=0.5, init="signed_constant", seed=3)
    masks = current_masks(network)
    assert list(masks) == ["embedding", "conv1", "depthwise", "conv3", "up1", "up2", "up3"]
    assert {name for name, each in network.named_parameters() if each.requires_grad} == {
        name for name, _ in network.named_parameters() if name.endswith("scores")
    }
    network.train()
    network(words).square().sum().backward()
    grads = {name: each.grad for name, each in network.named_parameters() if each.requires_grad}
    assert all(each is not None and bool(each.any()) for each in grads.values())
    network.eval()
    logits = network(words)
    hs.remove_masks(network)
    assert torch.equal(network(words), logits)
    layers = dict(network.named_modules())
    for path, mask in masks.items():
        weight = layers[path].get_parameter("weight")
        assert type(layers[path]).__module__.startswith("torch.nn")
        assert mask.sum() == mask.numel() // 2
        assert not weight[~mask].any()
    assert not network.embedding.weight[0].any()  # the padding stays 0


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (nn.Conv1d(4, 6, 3), 12),
        (nn.Conv3d(2, 6, (3, 1, 2)), 12),
        (nn.ConvTranspose2d(5, 7, 2), 20),
        (nn.Embedding(9, 8), 8),
        (nn.Conv2d(6, 6, 3, groups=6), 9),
    ],
)
def test_weights_are_drawn_for_the_inputs_of_a_unit(layer: nn.Module, fan_in: int) -> None:
    hs.mask(layer, init="signed_constant")
    weight = hs.remove_masks(layer).get_parameter("weight")
    assert weight.abs().max().item() == pytest.approx((2 / fan_in) ** 0.5)
