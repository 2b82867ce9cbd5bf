"""The surgery masks what it says in any module, leaves the rest as it is, and can be undone without a trace."""

import copy
import io
import subprocess
import sys
from math import sqrt
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.masking import mask_as_edge_popup
from torch import Tensor, nn

from hidden_subnet.masks.layers import (
    KeepAll,
    MaskedConv2d,
    MaskedLinear,
    cached_masks,
    fill_scores,
    mask_layers,
    masked_layers,
    not_masked,
    remove_masks,
)
from hidden_subnet.masks.topk import kept_count


class Small(nn.Module):
    """Conv and linear layers at several depths, with and without biases, and a norm between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.body = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Conv2d(8, 8, 3, groups=2, bias=False), nn.BatchNorm2d(8)))
        self.flat = nn.Flatten()
        self.wide = nn.Linear(8 * 16, 40)
        self.head = nn.Linear(40, 5, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.flat(self.body(self.stem(images)))
        logits: Tensor = self.head(self.wide(hidden).relu())
        return logits


LAYERS = ["stem", "body.1.0", "wide", "head"]


def images() -> Tensor:
    return torch.randn(7, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def masked_small(prune_rate: float = 0.5) -> Small:
    torch.manual_seed(0)
    model = Small()
    assert mask_as_edge_popup(model, prune_rate) == LAYERS
    return model.eval()


def test_every_conv_and_linear_layer_is_masked_in_order() -> None:
    model = masked_small()
    assert [path for path, _ in masked_layers(model)] == LAYERS
    assert isinstance(model.stem, MaskedConv2d)
    assert isinstance(model.head, MaskedLinear)
    assert isinstance(model.stem, nn.Conv2d)
    assert {name for name, value in model.named_parameters() if value.requires_grad} == {
        f"{path}.scores" for path in LAYERS
    }


def test_the_root_itself_can_be_masked() -> None:
    layer = nn.Linear(6, 4)
    assert mask_as_edge_popup(layer) == [""]
    assert isinstance(layer, MaskedLinear)
    assert layer(torch.ones(2, 6)).shape == (2, 4)


def test_a_layer_used_twice_is_one_layer_and_learns_from_both_uses() -> None:
    torch.manual_seed(0)
    shared = nn.Linear(6, 6)
    model = nn.Sequential(nn.Linear(6, 6), shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(6, 2))
    assert mask_as_edge_popup(model) == ["0", "1", "5"]
    inputs = torch.randn(9, 6)
    # The straight-through estimator in plain autograd: the mask's value, the gradient of |score|.
    effective = []
    scores = [layer.scores.detach().clone().requires_grad_() for _, layer in masked_layers(model)]
    for (_, layer), copied in zip(masked_layers(model), scores, strict=True):
        zero_one = layer.rule.mask(copied.detach()).float()
        effective.append(layer.weight * (zero_one + copied.abs() - copied.detach().abs()))
    first, last = model[0], model[5]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    hidden = F.linear(inputs, effective[0], first.bias)
    for _ in range(2):
        hidden = F.linear(hidden, effective[1], shared.bias).relu()
    expected = F.linear(hidden, effective[2], last.bias)
    torch.testing.assert_close(model(inputs), expected)
    expected.square().sum().backward()  # type: ignore[no-untyped-call]
    model(inputs).square().sum().backward()
    for (path, layer), copied in zip(masked_layers(model), scores, strict=True):
        torch.testing.assert_close(layer.scores.grad, copied.grad, msg=path)


def test_scores_start_as_the_weights_and_all_are_kept() -> None:
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.detach().copy_(torch.tensor([[1.0, -2.0], [3.0, -4.0]]))
    assert mask_layers(layer) == [""]
    [(_, masked)] = masked_layers(layer)
    assert isinstance(masked.rule, KeepAll)
    assert masked.scores.tolist() == masked.effective_weight().tolist() == [[1, -2], [3, -4]]
    assert masked.rule.mask(masked.scores).tolist() == [[True, True], [True, True]]
    assert layer(torch.tensor([[1.0, 10.0]])).tolist() == [[-19, -37]]


def test_masking_nothing_is_an_error() -> None:
    for model in (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), nn.Sequential()):
        with pytest.raises(ValueError, match="no conv, linear or embedding layer to mask"):
            mask_as_edge_popup(model)


def test_attention_is_masked_where_it_reads() -> None:
    """Attention reads out_proj.weight itself: a masked out_proj layer would be masked in name only."""
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), 1)
    attention = "layers.0.self_attn"
    paths = [f"{attention}.in_proj_weight", f"{attention}.out_proj", "layers.0.linear1", "layers.0.linear2"]
    plain = copy.deepcopy(model)
    assert mask_as_edge_popup(model) == paths == [path for path, _ in masked_layers(model)]
    assert set(not_masked(model)) == {name for name, value in plain.named_parameters() if value.dim() == 1}
    tokens = torch.randn(3, 4, 8)
    for training in (True, False):  # in evaluation attention takes another way through torch
        model.train(training)
        with torch.no_grad():
            outputs = model(tokens)
            for path, layer in masked_layers(model):
                layer.cached_weight = torch.zeros_like(layer.weight)
                assert not torch.allclose(model(tokens), outputs), (path, training)
                del layer.cached_weight
    model.train()(tokens).square().sum().backward()
    assert all(layer.scores.grad is not None and layer.scores.grad.any() for _, layer in masked_layers(model))
    masks = {path: layer.rule.mask(layer.scores.detach()) for path, layer in masked_layers(model)}
    with torch.no_grad():
        expected = model.eval()(tokens)
        remove_masks(model)
        torch.testing.assert_close(model(tokens), expected)
        assert model.state_dict().keys() == plain.state_dict().keys()
        assert torch.equal(model.get_parameter(paths[0]), plain.get_parameter(paths[0]) * masks[paths[0]])
    assert [type(each) for each in model.modules()] == [type(each) for each in plain.modules()]


def test_separate_projections_are_masked_too() -> None:
    attention = nn.MultiheadAttention(8, 2, kdim=4, vdim=6)
    assert mask_as_edge_popup(attention) == ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj"]


def test_layers_can_be_left_dense() -> None:
    model = Small()
    mask_layers(model, dense={"stem", "head"})
    assert [path for path, _ in masked_layers(model)] == ["body.1.0", "wide"]
    assert type(model.stem) is nn.Conv2d
    assert not model.stem.weight.requires_grad
    assert {name for name in not_masked(model) if name.endswith(".weight")} == {
        "stem.weight", "body.1.1.weight", "head.weight",
    }  # fmt: skip


def test_the_output_is_that_of_the_masked_weights() -> None:
    model = masked_small()
    reference = copy.deepcopy(model)
    for path, layer in masked_layers(reference):
        keep = kept_count(layer.weight.numel(), 0.5)
        largest = layer.scores.detach().abs().flatten().argsort(descending=True)[:keep]
        zero_one = torch.zeros(layer.weight.numel()).index_fill(0, largest, 1.0).view_as(layer.weight)
        plain = nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear
        layer.__class__ = plain  # type: ignore[assignment]
        layer.weight = nn.Parameter(layer.weight.detach() * zero_one)
        assert zero_one.count_nonzero() == keep, path
    assert torch.equal(model(images()), reference(images()))


def test_only_the_scores_receive_gradients() -> None:
    model = masked_small().train()
    loss = model(images()).square().sum()
    loss.backward()
    for name, value in model.named_parameters():
        assert (value.grad is not None) == name.endswith(".scores")
        assert value.grad is None or value.grad.any()


@pytest.mark.parametrize(("layer", "fan_in"), [(nn.Conv2d(32, 64, 3), 288), (nn.Linear(200, 300), 200)])
def test_first_scores_are_uniform(layer: nn.Module, fan_in: int) -> None:
    mask_as_edge_popup(layer)
    [(_, masked)] = masked_layers(layer)
    scores, bound = masked.scores.detach(), 1 / sqrt(fan_in)
    assert scores.shape == masked.weight.shape
    assert 0.999 * bound < scores.abs().max().item() <= bound
    # Standard errors: of the std 0.45 / sqrt(n) of it, of the mean std / sqrt(n); n is 18,432 or 60,000.
    assert scores.std().item() == pytest.approx(bound / sqrt(3), rel=0.02)
    assert abs(scores.mean().item()) < 5 * bound / sqrt(3 * scores.numel())


def test_scores_are_of_their_seed_stream_and_layer() -> None:
    first, same, other = nn.Linear(40, 40), nn.Linear(40, 40), nn.Linear(40, 40)
    mask_as_edge_popup(first, seed=3)
    mask_as_edge_popup(same, seed=3, prune_rate=0.9)
    mask_as_edge_popup(other, seed=4)
    [a, b, c] = [masked_layers(layer)[0][1].scores.detach() for layer in (first, same, other)]
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    fill_scores(first, 3, "mask")
    assert not torch.equal(masked_layers(first)[0][1].scores.detach(), b)
    pair = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40))
    mask_as_edge_popup(pair)
    assert not torch.equal(*(layer.scores for _, layer in masked_layers(pair)))


def test_cached_masks_give_the_same_output() -> None:
    model = masked_small()
    free = model(images())
    with cached_masks(model):
        assert torch.equal(model(images()), free)
        assert torch.equal(model(images()), free)
    for _, layer in masked_layers(model):
        layer.scores.detach().neg_().add_(0.1)
    assert not torch.equal(model(images()), free)  # the mask is computed again


def fail_within(model: nn.Module) -> None:
    with cached_masks(model):
        raise KeyboardInterrupt


def test_cached_masks_are_released_after_an_exception() -> None:
    model = masked_small()
    with pytest.raises(KeyboardInterrupt):
        fail_within(model)
    assert all(layer.cached_weight is None for _, layer in masked_layers(model))


@pytest.mark.parametrize("prune_rate", [0.0, 0.5, 0.9])
def test_layers_without_their_masks_are_torchs_own(prune_rate: float) -> None:
    model = masked_small(prune_rate)
    with cached_masks(model):
        expected = model(images())
    remove_masks(model)
    assert torch.equal(model(images()), expected)
    assert model.state_dict().keys() == Small().state_dict().keys()
    assert not any(value.requires_grad for value in model.parameters())
    fresh = dict(Small().named_modules())
    for path, layer in model.named_modules():
        assert type(layer) is type(fresh[path])
        assert vars(layer).keys() == vars(fresh[path]).keys(), path
    for path in LAYERS:
        weight = model.get_submodule(path).weight
        assert isinstance(weight, Tensor)
        assert weight.count_nonzero() == kept_count(weight.numel(), prune_rate)


@pytest.mark.slow
def test_a_module_without_its_masks_is_read_without_this_package(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(64, 3)).eval()
    mask_as_edge_popup(model)
    expected = model(images())
    remove_masks(model)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    assert b"hidden_subnet" not in buffer.getvalue()
    assert b"scores" not in buffer.getvalue()
    torch.save({"model": model, "images": images(), "expected": expected}, tmp_path / "model.pt")
    code = (
        "import sys, torch; found = torch.load('model.pt', weights_only=False); torch.set_num_threads(1); "
        "assert torch.equal(found['model'](found['images']), found['expected']); "
        "assert 'hidden_subnet' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_a_copy_is_a_network_of_its_own() -> None:
    model = masked_small().train()
    model(images()).sum().backward()  # the rules hold buffers from here on
    twin = copy.deepcopy(model)
    assert torch.equal(twin(images()), model(images()))
    for _, layer in masked_layers(twin):
        layer.scores.detach().neg_().add_(0.1)
    before = model(images()).detach().clone()
    assert not torch.equal(twin(images()), before)
    assert torch.equal(model(images()), before)


def test_channels_last_has_the_same_masks() -> None:
    model = masked_small()
    twin = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert not dict(masked_layers(twin))["body.1.0"].scores.is_contiguous()
    for (path, first), (_, second) in zip(masked_layers(model), masked_layers(twin), strict=True):
        assert torch.equal(first.effective_weight(), second.effective_weight()), path
    outputs = twin(images().to(memory_format=torch.channels_last))
    torch.testing.assert_close(outputs, model(images()))
    outputs.square().sum().backward()
    model(images()).square().sum().backward()
    for (path, first), (_, second) in zip(masked_layers(model), masked_layers(twin), strict=True):
        torch.testing.assert_close(first.scores.grad, second.scores.grad, msg=path)


class Tied(nn.Module):
    """An output layer whose weight is that of an input layer, of one or of two kinds."""

    def __init__(self, first: nn.Linear | nn.Embedding) -> None:
        super().__init__()
        self.first, self.last = first, nn.Linear(4, 4, bias=False)
        self.last.weight = first.weight


@pytest.mark.parametrize("first", [nn.Linear(4, 4, bias=False), nn.Embedding(4, 4)], ids=["twice", "once"])
@pytest.mark.parametrize("by_parameter", [False, True])
def test_a_weight_of_two_modules_is_refused(first: nn.Linear | nn.Embedding, by_parameter: bool) -> None:
    with pytest.raises(ValueError, match=r"first.weight and last.weight are one tied weight"):
        mask_layers(Tied(first), by_parameter=by_parameter)


def test_a_module_in_two_places_has_one_mask() -> None:
    layer = nn.Linear(4, 4, bias=False)
    assert mask_layers(nn.Sequential(layer, nn.ReLU(), layer)) == ["0"]
