"""A finished run measured again, by the engine that measured it first: equal to its record, or not."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hidden_subnet import record
from hidden_subnet.check import ConfigError
from hidden_subnet.config import load_config
from hidden_subnet.experiment import choose_device, deterministic, masked, unmasked
from hidden_subnet.feed import open_feed
from hidden_subnet.fit import Parts
from hidden_subnet.loading import Which, finished, read_checkpoint, require_its_weights
from hidden_subnet.record import CONFIG
from hidden_subnet.settings import Device, Library
from hidden_subnet.subnetwork import load_trained, weights_digest, weights_from_seed
from hidden_subnet.training import evaluate


@dataclass(frozen=True)
class Measured:
    """One checkpoint on one set of images; loss, top1 and top5 each."""

    which: Which
    epoch: int
    images: str
    """test or validation."""
    now: dict[str, float]
    recorded: dict[str, float] | None
    """None where the run did not measure it: test images after an epoch that is neither best nor last."""

    @property
    def equal(self) -> bool | None:
        return None if self.recorded is None else self.recorded == self.now


@contextmanager
def rebuilt(folder: Path, device: Device, root: str | None = None) -> Iterator[tuple[Parts, dict[str, Any]]]:
    """The finished run of `folder` as it was before its first step, from its own config, and its result.

    Its own number of threads is set. Device.auto is the kind of device that it ran on; `root` takes the place of its
    data.root. Raises ConfigError or ValueError where it cannot be the same network here.
    """
    result = record.read_result(finished(folder))
    assert result is not None
    config = load_config(folder / CONFIG)
    config.pretrained = None  # what was read from that file is in the checkpoints
    if root is not None:
        config.data.root = root
    if device is Device.auto:
        device = _kind(result)
    torch.set_num_threads(result["environment"]["threads"])
    deterministic(chosen := choose_device(device))
    with open_feed(config, chosen) as feed:
        parts = masked(unmasked(config, chosen), config, folder, chosen, feed)
        if weights_from_seed(config):
            require_its_weights(folder, result, parts.weights)
        yield parts, result


def load_checkpoint(parts: Parts, result: dict[str, Any], which: Which) -> int:
    """Bring `parts.model` to a checkpoint of its run; returns the epoch, and raises ValueError if it is another's."""
    state = read_checkpoint(parts.folder, which, parts.config, parts.course.method)
    if state is None:
        return 0
    try:
        load_trained(parts.model, state["trained"])
    except ValueError as error:
        raise ValueError(f"{parts.folder / 'checkpoints' / record.checkpoint_name(which)}: {error}") from None
    parts.course.before_evaluation(int(state["epoch"]))
    frozen = parts.course.method.trains not in ("weights", "both") and parts.config.model.library is Library.own
    if not weights_from_seed(parts.config) and frozen:
        require_its_weights(parts.folder, result, weights_digest(parts.model))
    return int(state["epoch"])


def measure(parts: Parts, result: dict[str, Any], kept: Sequence[Which]) -> list[Measured]:
    """Each checkpoint on the test images and, where the run holds some out, on the validation images."""
    found = []
    for which in kept:
        epoch = load_checkpoint(parts, result, which)
        recorded = _recorded(parts, result, which, epoch)
        for name, batches in [("test", parts.test), ("validation", parts.validation)]:
            if batches is not None:
                now = asdict(evaluate(parts.model, batches, parts.device))
                found.append(Measured(which, epoch, name, now, recorded[name]))
    return found


def checkpoints_of(parts: Parts, result: dict[str, Any]) -> list[Which]:
    """Those that every run keeps; one where nothing was trained."""
    if parts.course.method.trains == "nothing":
        return ["last"]
    return ["first", "last"] if result["best"] is None else ["first", "best", "last"]


def _recorded(parts: Parts, result: dict[str, Any], which: Which, epoch: int) -> dict[str, dict[str, float] | None]:
    if which in ("best", "last"):
        return {name: result[which][name] for name in ("test", "validation")}
    rows = {int(row["epoch"]): row for row in record.read_rows(parts.folder)}
    if epoch not in rows:
        raise ValueError(f"{parts.folder / record.METRICS} has no line of epoch {epoch}; it is damaged")
    row = {key.removeprefix("validation/"): value for key, value in rows[epoch].items() if "validation/" in key}
    untrained = result["untrained"]["first_mask"] or result["untrained"]["unpruned"]
    return {"test": untrained if which == "first" else None, "validation": row or None}


def _kind(result: dict[str, Any]) -> Device:
    name = result["environment"]["device"]
    return Device[name] if name in ("cpu", "mps") else Device.cuda


def environment(parts: Parts, result: dict[str, Any]) -> str:
    """What differs here from where the run was done, and can change the last bits; "" where nothing does."""
    here = torch.cuda.get_device_name() if parts.device == "cuda" else parts.device
    before = result["environment"]
    pairs = [(f"{before['device']}", here), (f"torch {before['torch']}", f"torch {torch.__version__}")]
    return ", ".join(f"{there} then and {now} now" for there, now in pairs if there != now)


def which_of(path: Path) -> tuple[Path, Which]:
    """The run's folder and the checkpoint that the file `path` is; raises ConfigError where it lies in no run."""
    name = path.stem
    which: Which | None = None
    if name in ("first", "best", "last"):
        which = name  # type: ignore[assignment]
    elif name.startswith("epoch_") and name[6:].isdigit():
        which = int(name[6:])
    if which is None or path.parent.name != "checkpoints" or not (path.parent.parent / CONFIG).is_file():
        raise ConfigError(
            f"evaluate={path}: is no checkpoint of a run; these are checkpoints/first.ckpt, best.ckpt, last.ckpt and "
            "epoch_<n>.ckpt in its folder"
        )
    return path.absolute().parent.parent, which
