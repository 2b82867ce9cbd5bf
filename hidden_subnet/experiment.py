"""One run from its config to its result: load, build, mask, fit, and everything that the record keeps of it."""

import os
import platform
import socket
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from hidden_subnet import checkpoints, record
from hidden_subnet.check import ConfigError
from hidden_subnet.collapse import at_chance, dead_layer
from hidden_subnet.data.interfaces import WHOLE, shared
from hidden_subnet.feed import Feed, open_feed
from hidden_subnet.fit import (
    GO_ON,
    STOP,
    Hooks,
    InterruptedRun,
    Parts,
    Progress,
    Row,
    densities,
    first_row,
    fit,
    renew_norm,
    saved_state,
)
from hidden_subnet.identity import folder_name, projection
from hidden_subnet.layers import masked_layers, not_masked
from hidden_subnet.memory import keep_freed_memory
from hidden_subnet.methods.table import METHODS
from hidden_subnet.norm import layers_with_statistics
from hidden_subnet.profile import profiled
from hidden_subnet.ranks import ALONE, Team, cores, team_of, team_of_tasks
from hidden_subnet.settings import Config, Device
from hidden_subnet.speed import speed_up
from hidden_subnet.subnetwork import (
    count_parameters,
    current_masks,
    load_trained,
    put_masks,
    random_network,
    weights_digest,
    weights_from_seed,
)
from hidden_subnet.tasks import Meeting
from hidden_subnet.training import evaluate
from hidden_subnet.weights import Fit, load_weights


def choose_device(device: Device) -> str:
    """Raises ConfigError for a device that is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device is Device.auto:
        return next(name for name, is_there in there.items() if is_there)
    if not there[device.name]:
        choices = ", ".join(name for name, is_there in there.items() if is_there)
        raise ConfigError(f"train.device={device.name}: there is none here; choose auto or {choices}")
    return device.name


def require_devices(device: str, wanted: int) -> None:
    """ConfigError where there are fewer: GPUs that this process may use, or cores."""
    if wanted == 1:
        return
    there = {"cuda": torch.cuda.device_count(), "mps": 1, "cpu": cores()}[device]
    if wanted > there:
        what = "core" if device == "cpu" else f"{device} device"
        raise ConfigError(
            f"train.devices={wanted}: there {'is' if there == 1 else 'are'} {there} {what}{'' if there == 1 else 's'} "
            f"here; choose at most {there}"
        )


def run(config: Config, folder: Path, hooks: Hooks, met: Meeting | None = None) -> dict[str, Any]:
    """Execute the run, from the checkpoint in `folder` where there is one; the last that it writes is result.json.

    Its other ranks (train.devices) are processes that it starts, or the tasks with which it `met`.
    Raises InterruptedRun once `hooks.should_stop()` is true and the state is saved.
    """
    device = choose_device(config.train.device)
    size = 1 if METHODS[config.method.name].trains == "nothing" else config.train.devices
    if met is not None and size > 1:
        met.tell(folder)
        team_here = team_of_tasks(met, device)
    else:
        team_here = team_of(size, device, follow, (config, folder))
    with team_here as team:
        result = _prepared(config, folder, hooks, team)
        assert result is not None
    record.write_json(folder / record.RESULT, result)
    return result


def follow(config: Config, folder: Path, team: Team) -> None:
    """The same run on another rank, which writes nothing; saved and interrupted by what rank 0 decides."""
    silent = Hooks(lambda row: None, lambda epoch, batch, batches: None, lambda: False, lambda line: None)
    with suppress(InterruptedRun):
        _prepared(config, folder, silent, team)


def _prepared(config: Config, folder: Path, hooks: Hooks, team: Team) -> dict[str, Any] | None:
    device = choose_device(config.train.device)
    deterministic(device)
    keep_freed_memory()
    saved = saved_state(folder, device, team.size, hooks.say)
    threads = saved["threads"] if saved else config.train.threads
    if threads is not None:
        # A resumed run keeps its number: sums over 1 and over 2 threads differ in the last bit.
        torch.set_num_threads(threads)
    with open_feed(config, device, team.share) as feed:
        return _run(config, folder, hooks, device, saved, feed, team)


def _run(
    config: Config, folder: Path, hooks: Hooks, device: str, saved: dict[str, Any] | None, feed: Feed, team: Team
) -> dict[str, Any] | None:
    """None on a rank that only follows."""

    def before_batch() -> None:
        if team.agree(STOP if hooks.should_stop() else GO_ON) == STOP:
            raise InterruptedRun(f"stopped before it {'went on' if saved else 'had taken a step'}")

    network = unmasked(config, device)
    renew_norm(config, network.model, feed.train)
    unpruned = evaluate(network.model, feed.test, device, team.total, before_batch)
    if config.train.sync_norm and team.size > 1:
        network = replace(network, model=nn.SyncBatchNorm.convert_sync_batchnorm(network.model))  # type: ignore[no-untyped-call]
    parts = replace(masked(network, config, folder, device, feed, team), before_batch=before_batch)
    if parts.team.size > 1 and layers_with_statistics(parts.model):
        each = "over the whole batch" if config.train.sync_norm else f"over each rank's part of it, 1/{team.size}"
        hooks.say(f"train.devices={team.size}: batch norm takes its statistics {each}")
    first_mask = None
    if parts.course.method.masks:
        renew_norm(config, parts.model, feed.train)
        first_mask = parts.measured(feed.test)
    untrained = {"unpruned": asdict(unpruned), "first_mask": first_mask and asdict(first_mask)}
    if parts.pretrained and not saved:
        hooks.say(f"pretrained={config.pretrained}: {parts.pretrained.told()}")
    _say_what_is_masked(parts, hooks)
    if parts.course.method.trains == "nothing":
        record.keep_rows(folder, 0)
        record.append_row(folder, row := first_row(parts, untrained))
        hooks.on_row(row)
        last = {"epoch": 0, "train": None, "validation": _of(row, "validation"), "test": untrained["first_mask"]}
        best: dict[str, Any] | None = last
        masks, seconds = current_masks(parts.model), 0.0
        # Batch norm's statistics follow from the data, not from the seed.
        if not weights_from_seed(config) or config.train.norm_batches:
            checkpoints.save(folder / "checkpoints" / record.LAST, {"epoch": 0, "trained": parts.state()})
        collapse: dict[str, Any] = {"collapsed": False, "dead_layer": None}
    else:
        with _watched(parts, hooks) as watched:
            progress, save = fit(parts, untrained, saved, watched)
        masks, seconds = progress.masks, progress.total_seconds
        try:
            last, best, collapse = _test_last_and_best(parts, progress)
        except InterruptedRun:
            # By now the network may be that of the best epoch.
            load_trained(parts.model, checkpoints.load(folder / "checkpoints" / record.LAST, device)["trained"])
            save()
            raise InterruptedRun("stopped and saved in the evaluation after its last epoch") from None
    if not team.leads:
        return None
    return _result(parts, masks, untrained, last, best, collapse, seconds)


def _watched(parts: Parts, hooks: Hooks) -> AbstractContextManager[Hooks]:
    train = parts.config.train
    if not train.profile or not parts.team.leads:
        return nullcontext(hooks)
    return profiled(parts.folder, parts.device, train.epochs * len(parts.train), hooks)


@dataclass(frozen=True)
class Unmasked:
    """The network before its mask."""

    model: nn.Module
    parameters: int
    weights: str
    """Digest of its weights."""
    pretrained: Fit | None


def unmasked(config: Config, device: str) -> Unmasked:
    model = random_network(config)
    pretrained = None
    if config.pretrained is not None:
        pretrained = load_weights(model, Path(config.pretrained), config.pretrained_sha256)
    weights, parameters = weights_digest(model), count_parameters(model)
    model.to(device)
    speed_up(model, config.train, device)
    return Unmasked(model, parameters, weights, pretrained)


def masked(network: Unmasked, config: Config, folder: Path, device: str, feed: Feed, team: Team = ALONE) -> Parts:
    """Everything in place for the first step; `network.model` is masked, in place."""
    course = put_masks(network.model, config)
    return Parts(
        config,
        folder,
        network.model,
        course,
        device,
        feed.train,
        feed.validation,
        feed.test,
        network.parameters,
        network.weights,
        team,
        network.pretrained,
    )


def _test_last_and_best(
    parts: Parts, progress: Progress
) -> tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any]]:
    """Both as result.json has them, and whether the last has collapsed; leaves the model as at the best epoch."""
    row = record.read_rows(parts.folder)[-1] if parts.team.leads else {}
    parts.course.before_evaluation(progress.epoch)
    parts.team.same_norms(parts.model)
    renew_norm(parts.config, parts.model, parts.train)
    parts.save(record.LAST, progress.epoch)
    test = asdict(parts.measured(parts.test))
    last = {
        "epoch": progress.epoch,
        "train": _of(row, "train"),
        "validation": _of(row, "validation"),
        "test": test,
    }
    collapse = _collapse(parts, test["top1"])
    if parts.validation is None:
        return last, None, collapse
    if progress.best_epoch == progress.epoch:
        return last, last, collapse
    # Rank 0 has written it, since all have measured something together after that.
    best = checkpoints.load(parts.folder / "checkpoints" / record.BEST, parts.device)
    load_trained(parts.model, best["trained"])
    parts.course.before_evaluation(best["epoch"])
    test = asdict(parts.measured(parts.test))
    best = {"epoch": best["epoch"], "train": best["train"], "validation": best["validation"], "test": test}
    return last, best, collapse


def _say_what_is_masked(parts: Parts, hooks: Hooks) -> None:
    masked, left = masked_layers(parts.model), not_masked(parts.model)
    if masked and left and parts.course.method.trains in ("scores", "nothing"):
        frozen = sum(left.values())
        shown = ", ".join(list(left)[:6]) + (f" and {len(left) - 6} more" if len(left) > 6 else "")
        hooks.say(
            f"masks {parts.parameters - frozen:,} of {parts.parameters:,} parameters, in {len(masked)} weights; "
            f"prune_rate is a fraction of these. Not masked, kept as they were drawn: {shown} (all in {record.RESULT})"
        )


def _collapse(parts: Parts, top1: float) -> dict[str, Any]:
    """Of the model as it is now, whose accuracy on the test images is `top1`."""
    collapsed = at_chance(top1, parts.test.info.classes, len(parts.test.labels))
    whole = shared(parts.test, WHOLE)
    return {"collapsed": collapsed, "dead_layer": dead_layer(parts.model, whole) if collapsed else None}


def _result(
    parts: Parts,
    masks: dict[str, Tensor],
    untrained: dict[str, Any],
    last: dict[str, Any],
    best: dict[str, Any] | None,
    collapse: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    layers = [
        {
            "name": path,
            "shape": list(layer.weight.shape),
            "weights": layer.weight.numel(),
            "kept": int(masks[path].count_nonzero()),
        }
        for path, layer in masked_layers(parts.model)
    ]
    return {
        "schema": 1,
        "name": folder_name(parts.config),
        "projection": projection(parts.config),
        "chance": 1 / parts.test.info.classes,
        "untrained": untrained,
        "last": last,
        "best": best,
        **collapse,
        "weights": sum(layer["weights"] for layer in layers) if layers else parts.parameters,
        "kept": sum(layer["kept"] for layer in layers) if layers else parts.parameters,
        "parameters": parts.parameters,
        **densities(parts, masks),
        "layers": layers,
        "not_masked": not_masked(parts.model) if layers else {},
        "weights_sha256": parts.weights,
        **({"pretrained": _pretrained(parts)} if parts.pretrained else {}),
        "seconds": seconds,
        "environment": {
            "host": socket.gethostname(),
            "device": torch.cuda.get_device_name() if parts.device == "cuda" else parts.device,
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
        },
    }


def _pretrained(parts: Parts) -> dict[str, Any]:
    assert parts.pretrained is not None
    return {"file": parts.config.pretrained, "sha256": parts.config.pretrained_sha256, **parts.pretrained.record()}


def _of(row: Row, name: str) -> Row | None:
    """The metrics of `name` in a row of metrics.jsonl; None where it has none (no validation images)."""
    return {key.removeprefix(f"{name}/"): value for key, value in row.items() if key.startswith(f"{name}/")} or None


def deterministic(device: str) -> None:
    if device == "cuda":
        # cudnn's own choice by timing would give other bits in the next process.
        torch.backends.cudnn.benchmark = False
        # cuBLAS asks for it before the first CUDA call, and raises without it.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
