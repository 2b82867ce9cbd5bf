"""Any classification network of torchvision by its name, untrained and sized to the data; torchvision loads on use."""

import difflib
from typing import Any

import torch
from torch import nn

from hidden_subnet.models.plan import Shape


def names() -> list[str]:
    from torchvision import models

    found: list[str] = models.list_models(module=models)
    return found


def build(name: str, shape: Shape, classes: int, seed: int) -> nn.Module:
    """What torchvision draws besides conv and linear weights (positions of a ViT, say) follows `seed` alone.

    Raises ValueError for a name that torchvision has not, or a network that cannot be sized to `shape`.
    """
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
        choices = f"near it are {', '.join(near)}" if near else f"it has {', '.join(known[:8])} and others"
        raise ValueError(
            f"model.name={name}: torchvision has no such classification network; {choices} "
            f"(all {len(known)}: torchvision.models.list_models())"
        )
    from torchvision import models

    # Their constructors draw from torch's global stream, which is left as it was found.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = models.get_model(name, weights=None, num_classes=classes, **_sizes(name, shape))
    return model


def probe(name: str, shape: Shape, classes: int, last_batch: int) -> nn.Module:
    """The network without memory or numbers, after a pass in training and one in evaluation on such images.

    Raises ValueError, in one line, where that fails; `last_batch` is the number of images in the smallest batch, for
    batch norm cannot train on a single value.
    """
    try:
        model = _without_numbers(name, shape, classes)
        with torch.no_grad(), torch.device("meta"):
            model.train()(torch.empty(last_batch, *shape))
            logits = model.eval()(torch.empty(2, *shape))
    except (RuntimeError, AssertionError, TypeError, IndexError, NotImplementedError, ZeroDivisionError) as error:
        raise ValueError(_refusal(name, shape, last_batch, " ".join(str(error).split()))) from None
    except ValueError as error:
        if str(error).startswith("model.name="):
            raise
        raise ValueError(_refusal(name, shape, last_batch, " ".join(str(error).split()))) from None
    assert logits.shape == (2, classes)
    return model


def _without_numbers(name: str, shape: Shape, classes: int) -> nn.Module:
    try:
        with torch.device("meta"):
            return build(name, shape, classes, seed=0)
    except NotImplementedError:  # RegNet works out its widths with tensors
        return build(name, shape, classes, seed=0).to("meta")


def _sizes(name: str, shape: Shape) -> dict[str, Any]:
    if name.startswith("vit_"):
        return {"image_size": shape[1]}
    if name.startswith("maxvit_"):
        return {"input_size": shape[1:]}
    if name in ("googlenet", "inception_v3"):  # with these their output in training is no tensor
        return {"aux_logits": False, "init_weights": False}
    return {}


def _refusal(name: str, shape: Shape, last_batch: int, said: str) -> str:
    channels, height, width = shape
    begin = f"model.name={name}: torchvision's network does not take this data ({channels}x{height}x{width})"
    if channels != 3:
        return f"{begin}, only images of 3 channels; choose data that has them, or one of our own models"
    if "more than 1 value per channel" in said:
        return (
            f"{begin} in a batch of {last_batch}, the last of an epoch: batch norm has no second value there; "
            "choose another train.batch_size or larger images"
        )
    return f"{begin}: {said[:90]}; choose data with larger images, or one of our own models"
