"""From a finished run back to its subnetwork, as a plain torch module without masks or scores."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, fx, nn

from hidden_subnet import checkpoints, record
from hidden_subnet.config import load_config
from hidden_subnet.data.batches import EvaluationBatches
from hidden_subnet.data.load import load as load_data
from hidden_subnet.layers import bake
from hidden_subnet.models.resnet import ResidualBlock
from hidden_subnet.subnetwork import load_trained, put_masks, random_network, weights_digest

Which = Literal["first", "best", "last"]


def load(run: str | Path, which: Which = "last") -> nn.Module:
    """The run's network on the CPU, in evaluation mode, with its mask baked into the weights (removed ones are 0).

    It takes normalised images, as `test_images(run)` gives them. The weights are drawn again from the run's seed.
    Raises FileNotFoundError if `run` is no finished run, or has no such checkpoint, and ValueError if this torch
    draws other weights from the seed, or if the checkpoint is damaged.
    """
    folder = finished(run)
    config = load_config(folder / record.CONFIG)
    model = random_network(config)
    result = record.read_result(folder)
    assert result is not None
    if weights_digest(model) != result["weights_sha256"]:
        raise ValueError(
            f"torch {torch.__version__} draws other random weights from the seed than torch "
            f"{result['environment']['torch']}, with which {folder.name} was run: load it with that version"
        )
    method = put_masks(model, config)
    if method.trains != "nothing":
        if which == "best" and result["best"] is None:
            raise ValueError(
                f"{folder.name} has no best epoch, since data.validation=0 held out no images; load 'last'"
            )
        load_trained(model, checkpoints.load(folder / "checkpoints" / f"{which}.ckpt")["trained"])
    elif config.train.norm_batches:
        load_trained(model, checkpoints.load(folder / "checkpoints" / record.LAST)["trained"])
    bake(model)
    return model.requires_grad_(False).eval()


def test_images(run: str | Path) -> tuple[Tensor, Tensor]:
    """The run's test images, normalised as its network saw them (N, C, H, W), and their labels (N,)."""
    config = load_config(finished(run) / record.CONFIG)
    images = load_data(config.data.name.name, Path(config.data.root))
    batches = list(EvaluationBatches(images.test, images.test_labels, images.info, "cpu"))
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
    torch.save(model, path)
    return path
