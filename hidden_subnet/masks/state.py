"""The state of a masked network: its masks, the tensors that training changes, and counts of its parameters."""

import hashlib

import torch
from torch import Tensor, nn

from hidden_subnet.masks.layers import WeighingRule, masked_layers, not_masked
from hidden_subnet.models.pretrained_weights import differences


def trained_state(model: nn.Module, *, frozen: bool = False) -> dict[str, Tensor]:
    """Return trained parameters and buffers by name; with `frozen` also the parameters that require no gradient."""
    state = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad or frozen}
    return state | {name: value.detach() for name, value in model.named_buffers()}


def scores_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the scores of the masked layers by the names of their parameters."""
    scores = {id(layer.scores) for _, layer in masked_layers(model)}
    return {name: value.detach() for name, value in model.named_parameters() if id(value) in scores}


def load_trained(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy the tensors of a checkpoint, as `trained_state` returned them, into the network, in place.

    Raises ValueError, before anything is copied, where names or shapes are those of another network. What is not
    masked may be missing in a checkpoint of version 0.1.0, if it was not trained then, and stays as it was drawn.
    """
    mine = trained_state(model, frozen=True)
    required = trained_state(model).keys() - (not_masked(model).keys() if masked_layers(model) else set())
    wanted = {name: mine[name] for name in mine if name in state or name in required}
    if differ := differences(wanted, state):
        raise ValueError(f"the checkpoint is of another network: {'; '.join(differ)}")
    for name, value in state.items():
        mine[name].copy_(value)


def current_masks(model: nn.Module) -> dict[str, Tensor]:
    """Return the boolean mask (out, in, *kernel) of each masked layer by its path, on the CPU."""
    return {path: layer.rule.mask(layer.scores.detach()).cpu() for path, layer in masked_layers(model)}


def kept_weights(model: nn.Module, masks: dict[str, Tensor]) -> dict[str, float]:
    """Return the number of kept weights of each masked layer, given the network's current masks."""
    return {
        path: layer.rule.kept(layer.scores.detach(), masks[path])
        if isinstance(layer.rule, WeighingRule)
        else int(masks[path].count_nonzero())
        for path, layer in masked_layers(model)
    }


def flips(before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, int]:
    """Return for each masked layer how many weights changed between kept and removed."""
    return {path: int(torch.count_nonzero(before[path] ^ after[path])) for path in after}


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters of the network, masked or not; scores are not counted."""
    scores = scores_state(model)
    return sum(parameter.numel() for name, parameter in model.named_parameters() if name not in scores)


def weights_digest(model: nn.Module) -> str:
    """Return the sha256 of all parameters but scores, 64 hex digits: another torch may draw other random weights.

    It depends on the order of the parameters, which masking changes in torchvision's networks.
    """
    state, scores = hashlib.sha256(), scores_state(model)
    for name, value in model.named_parameters():
        if name not in scores:
            state.update(value.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()
