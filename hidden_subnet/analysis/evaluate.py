"""Evaluates the checkpoints of a finished run again, by the code of training, and compares the metrics."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hidden_subnet.analysis.load import config_to_measure
from hidden_subnet.config.own_parts import require_own_parts
from hidden_subnet.config.settings import Device
from hidden_subnet.errors import ConfigError
from hidden_subnet.models.from_config import weights_from_seed
from hidden_subnet.store import files
from hidden_subnet.training.devices import choose_device, deterministic, set_threads
from hidden_subnet.training.experiment import Experiment, build_network, masked, open_images, resolve
from hidden_subnet.training.finished import Which, checkpoint_of, finished, load_into, require_its_weights
from hidden_subnet.training.result import metrics_in


@dataclass(frozen=True)
class Measured:
    """The metrics (loss, top1, top5, and those of the user's own) of one checkpoint on one set of images."""

    which: Which
    epoch: int
    images: str
    """test or validation."""
    now: dict[str, float]
    recorded: dict[str, float] | None
    """None where the run did not evaluate it: test images after an epoch that is neither best nor last."""

    @property
    def equal(self) -> bool | None:
        """True where both agree in every bit; None where nothing was recorded."""
        return None if self.recorded is None else self.recorded == self.now


@contextmanager
def rebuilt(folder: Path, device: Device, root: str | None = None) -> Iterator[tuple[Experiment, dict[str, Any]]]:
    """Give the experiment of the finished run in `folder`, as it was before its first step, and its result.json.

    It sets the run's number of threads. Device.auto is the kind of device of the run; `root` replaces its data.root.
    Raises FileNotFoundError for a run that is not finished, DataError where the images are not those that it was on,
    and ConfigError or ValueError where its network cannot be built on this machine.
    """
    result = files.read_result(finished(folder))
    assert result is not None
    _require_whole(result, folder)
    config = config_to_measure(folder)
    require_own_parts(config)  # its metrics too
    config = replace(config, pretrained=None, mask=None)  # pretrained weights and masks are in the checkpoints
    if root is not None:
        config = replace(config, data=replace(config.data, root=root))
    set_threads(result["environment"]["threads"], folder / files.RESULT)
    run = resolve(config, choose_device(_kind(result) if device is Device.auto else device), result)
    deterministic(run.device)
    with open_images(run) as loaders:
        experiment = masked(build_network(run), run, folder, loaders)
        if weights_from_seed(config):
            require_its_weights(folder.name, result, experiment.weights_sha256)
        yield experiment, result


def _require_whole(result: dict[str, Any], folder: Path) -> None:
    """Raise ValueError for a result.json that lacks what an evaluation asks it for; others may have written it."""
    parts = {"environment": ("threads", "device", "torch"), "last": ("epoch", "test", "validation"), "untrained": ()}
    found = {name: value if isinstance(value := result.get(name), dict) else {} for name in parts}
    missing = [f"{name}.{key}" for name, keys in parts.items() for key in keys if key not in found[name]]
    missing += [name for name in ("best", "untrained", "weights_sha256", "kept", "weights") if name not in result]
    if missing:
        raise ValueError(
            f"{folder / files.RESULT} is damaged: it has no {', '.join(missing)}; remove it, or run again with "
            "force=true"
        )


def load_checkpoint(experiment: Experiment, result: dict[str, Any], which: Which) -> int:
    """Load a checkpoint of the run into `experiment.network` and return its epoch; raises the errors of `load_into`."""
    return load_into(experiment.network, experiment.method, experiment.folder, result, which)


def measure(experiment: Experiment, result: dict[str, Any], kept: Sequence[Which]) -> list[Measured]:
    """Evaluate each checkpoint of `kept` on the test images and, where there are any, on the validation images."""
    found = []
    for which in kept:
        epoch = load_checkpoint(experiment, result, which)
        recorded = _recorded(experiment, result, which, epoch)
        for name, images in [("test", experiment.test_images), ("validation", experiment.validation_images)]:
            if images is not None:
                found.append(Measured(which, epoch, name, experiment.evaluate(images).values(), recorded[name]))
    return found


def checkpoints_of(experiment: Experiment, result: dict[str, Any]) -> list[Which]:
    """Return the checkpoints of every run: first, best and last; only last where nothing was trained.

    With checkpoint.keep=mask there is no first.
    """
    if not experiment.method.is_trained():
        return ["last"]
    names: list[Which] = ["first", "last"] if result["best"] is None else ["first", "best", "last"]
    return names[1:] if files.kept_masks(experiment.folder) else names


def _recorded(
    experiment: Experiment, result: dict[str, Any], which: Which, epoch: int
) -> dict[str, dict[str, float] | None]:
    if which in ("best", "last"):
        return {name: result[which][name] for name in ("test", "validation")}
    rows = {int(row["epoch"]): row for row in files.read_rows(experiment.folder)}
    if epoch not in rows:
        raise ValueError(f"{experiment.folder / files.METRICS} is damaged: it has no line of epoch {epoch}")
    untrained = result["untrained"]["first_mask"] or result["untrained"]["unpruned"]
    return {"test": untrained if which == "first" else None, "validation": metrics_in(rows[epoch], "validation")}


def _kind(result: dict[str, Any]) -> Device:
    name = result["environment"]["device"]
    return Device[name] if name in ("cpu", "mps") else Device.cuda


def environment(experiment: Experiment, result: dict[str, Any]) -> str:
    """Return which of device and torch differ from those of the run, so that the last bits may differ; "" for none."""
    here = torch.cuda.get_device_name() if experiment.device == "cuda" else experiment.device
    before = result["environment"]
    pairs = [(f"{before['device']}", here), (f"torch {before['torch']}", f"torch {torch.__version__}")]
    return ", ".join(f"{there} then and {now} now" for there, now in pairs if there != now)


def which_of(path: Path) -> tuple[Path, Which]:
    """Return run folder and name of the checkpoint `path`. Raises ConfigError for a file that is not in a run."""
    found = checkpoint_of(path)
    if found is None:
        raise ConfigError(
            f"evaluate={path}: is not a checkpoint of a run; choose checkpoints/first.ckpt, best.ckpt, last.ckpt or "
            "epoch_<n>.ckpt in the folder of a run, as in: evaluate=runs/digits-conv2/checkpoints/last.ckpt"
        )
    return found
