"""From a finished run back to its subnetwork, as a plain torch module without masks or scores."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from hidden_subnet import checkpoints, record
from hidden_subnet.config import load_config
from hidden_subnet.feed import open_test
from hidden_subnet.layers import bake
from hidden_subnet.methods.method import Method
from hidden_subnet.models.resnet import ResidualBlock
from hidden_subnet.settings import Config, Library
from hidden_subnet.subnetwork import load_trained, put_masks, random_network, weights_digest, weights_from_seed

Which = Literal["first", "best", "last"] | int
"""A checkpoint; a number is that of an epoch, kept where checkpoint.every asked for it."""


def load(run: str | Path, which: Which = "last") -> nn.Module:
    """The run's network on the CPU, in evaluation mode, with its mask baked into the weights (removed ones are 0).

    It takes normalised images, as `test_images(run)` gives them. The weights are drawn again from the run's seed;
    pretrained ones are in its checkpoints.
    Raises FileNotFoundError if `run` is no finished run, or has no such checkpoint, and ValueError if this torch
    draws other weights from the seed, or if the checkpoint is damaged.
    """
    folder = finished(run)
    config = load_config(folder / record.CONFIG)
    model = random_network(config)
    result = record.read_result(folder)
    assert result is not None
    if weights_from_seed(config):
        require_its_weights(folder, result, weights_digest(model))
    course = put_masks(model, config)
    if (state := read_checkpoint(folder, which, config, course.method)) is not None:
        load_trained(model, state["trained"])
        course.before_evaluation(state["epoch"])  # the best epoch's mask may be another than the last's
    frozen = course.method.trains not in ("weights", "both") and config.model.library is Library.own
    if not weights_from_seed(config) and frozen:
        require_its_weights(folder, result, weights_digest(model))
    bake(model)
    return model.requires_grad_(False).eval()


def require_its_weights(folder: Path, result: dict[str, Any], digest: str) -> None:
    """ValueError where the weights of a network are not those with which the run was done."""
    if digest != result["weights_sha256"]:
        raise ValueError(
            f"torch {torch.__version__} draws other random weights from the seed than torch "
            f"{result['environment']['torch']}, with which {folder.name} was run: load it with that version"
        )


def read_checkpoint(folder: Path, which: Which, config: Config, method: Method) -> dict[str, Any] | None:
    """What the finished run of `folder` kept; None where nothing was trained and the seed tells all.

    Raises FileNotFoundError, and ValueError for `best` of a run without validation images or a damaged file.
    """
    if method.trains == "nothing":
        if weights_from_seed(config) and not config.train.norm_batches:
            return None
        which = "last"
    if which == "best" and config.data.validation == 0:
        raise ValueError(f"{folder.name} has no best epoch, since data.validation=0 held out no images; load 'last'")
    path = folder / "checkpoints" / record.checkpoint_name(which)
    if not path.exists():
        there = [each.removeprefix("epoch_").removesuffix(".ckpt") for each in record.kept_checkpoints(folder)]
        there = [name for name in there if (folder / "checkpoints" / record.checkpoint_name(_which(name))).exists()]
        what = f"epoch {which}" if isinstance(which, int) else f"the name {which}"
        raise FileNotFoundError(f"{folder.name} has no checkpoint of {what}; it has {', '.join(there)}")
    return checkpoints.load(path)


def _which(name: str) -> str | int:
    return int(name) if name.isdigit() else name


def test_images(run: str | Path) -> tuple[Tensor, Tensor]:
    """The run's test images, normalised as its network saw them (N, C, H, W), and their labels (N,)."""
    config = load_config(finished(run) / record.CONFIG)
    with open_test(config, "cpu") as test:
        batches = list(test)
    return torch.cat([batch for batch, _ in batches]), torch.cat([labels for _, labels in batches])


def finished(run: str | Path) -> Path:
    folder = Path(run)
    if not (folder / record.RESULT).exists():
        raise FileNotFoundError(
            f"{folder} is not a finished run: it holds no {record.RESULT}; "
            "finished runs are the folders in runs/ that do"
        )
    return folder


def export(run: str | Path, which: Which, to: Path | None) -> Path:
    """Write the plain module with torch.save; any program that has torch reads it, without this package.

    Of a network of torchvision the file needs torchvision too.
    """
    path = to or Path(run) / f"subnetwork-{which}.pt"
    model = load(run, which)
    if any(isinstance(module, ResidualBlock) for module in model.modules()):
        model = fx.symbolic_trace(model)  # torch has no module that adds two others, and a file must not need ours
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:  # torch's own error for what cannot be opened is a RuntimeError
        torch.save(model, file)
    return path
