"""The records of a run: a row of metrics.jsonl for each epoch, and result.json at the end."""

import platform
import socket
from typing import Any

import numpy
import torch
from torch import Tensor

from hidden_subnet.config.identity import folder_name, id_of, projection
from hidden_subnet.config.parents import parent_of
from hidden_subnet.masks.layers import masked_layers, not_masked
from hidden_subnet.masks.state import current_masks, flips, kept_weights
from hidden_subnet.training.accounting import count_bits, count_flops, count_trained, peak_memory
from hidden_subnet.training.callbacks import Row
from hidden_subnet.training.collapse import chance
from hidden_subnet.training.experiment import Experiment
from hidden_subnet.training.metrics import Metrics


def named(name: str, metrics: Metrics) -> Row:
    """Return the metrics as the columns <name>/loss, <name>/top1, <name>/top5, ... of a row."""
    return {f"{name}/{key}": value for key, value in metrics.values().items()}


def metrics_in(row: Row, name: str) -> Row | None:
    """Return the columns <name>/... of a row without their prefix; None where there are none (no validation images)."""
    return {key.removeprefix(f"{name}/"): value for key, value in row.items() if key.startswith(f"{name}/")} or None


def first_row(experiment: Experiment, untrained: dict[str, Any]) -> Row:
    """Return the row of epoch 0: the untrained network under its first mask."""
    if experiment.validation_images:
        measured = named("validation", experiment.evaluate(experiment.validation_images))
    else:
        measured = {f"test/{key}": value for key, value in (untrained["first_mask"] or untrained["unpruned"]).items()}
    masks = mask_columns(experiment, current_masks(experiment.network))
    return {"epoch": 0, "step": 0, **measured, **masks, **experiment.method.metrics()}


def mask_columns(experiment: Experiment, masks: dict[str, Tensor], before: dict[str, Tensor] | None = None) -> Row:
    """Return the columns density, density_all, density/<layer>, and given the masks `before`, flip_rate(/<layer>).

    All are fractions in [0, 1]; a flip rate is the fraction of weights that changed between kept and pruned since the
    epoch before. `masks`: boolean (out, in, *kernel) by path.
    """
    sizes, kept = {path: mask.numel() for path, mask in masks.items()}, kept_weights(experiment.network, masks)
    row = _densities(experiment, kept, weights := sum(sizes.values()))
    row |= {f"density/{path}": kept[path] / size for path, size in sizes.items()}
    if before:
        changed = flips(before, masks)
        row["flip_rate"] = sum(changed.values()) / weights
        row |= {f"flip_rate/{path}": changed[path] / size for path, size in sizes.items()}
    return row


def _densities(experiment: Experiment, kept: dict[str, float], weights: int) -> Row:
    """Return the fractions kept of the weights in masked layers, and of all parameters; a dense network keeps all."""
    count, parameters = sum(kept.values()), experiment.parameters
    return {
        "density": count / weights if kept else 1.0,
        "density_all": (count + parameters - weights) / parameters,
    }


def run_result(
    experiment: Experiment,
    *,
    kept: dict[str, float],
    untrained: dict[str, Any],
    last: dict[str, Any],
    best: dict[str, Any] | None,
    collapse: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """Return the content of result.json: plain values only.

    `kept`: number of kept weights after the last epoch, by layer. `untrained`, `last`, `best`: metrics by image set.
    `seconds`: training time.
    """
    layers = [
        {
            "name": path,
            "shape": list(layer.weight.shape),
            "weights": layer.weight.numel(),
            "kept": round(kept[path]),
        }
        for path, layer in masked_layers(experiment.network)
    ]
    config, method = experiment.config, experiment.method
    flops = count_flops(config.model, experiment.run.info)
    shares = {path: kept[path] / layer.weight.numel() for path, layer in masked_layers(experiment.network)}
    pretrained, parent = experiment.pretrained, parent_of(config)
    densities = _densities(
        experiment, kept, sum(layer.weight.numel() for _, layer in masked_layers(experiment.network))
    )
    return {
        "schema": 1,
        "name": folder_name(config),
        "projection": projection(config),
        "chance": chance(experiment.test_images.labels, experiment.run.info.classes),
        "untrained": untrained,
        "last": last,
        "best": best,
        **collapse,
        "weights": sum(layer["weights"] for layer in layers) if layers else experiment.parameters,
        "kept": sum(layer["kept"] for layer in layers) if layers else experiment.parameters,
        "parameters": experiment.parameters,
        "trained_parameters": count_trained(method),
        **densities,
        "bits": count_bits(method, kept, config.pruning),
        "dense_flops": flops and flops.total,
        "sparse_flops": flops and flops.sparse(shares),
        "layers": layers,
        "not_masked": not_masked(experiment.network) if layers else {},
        "weights_sha256": experiment.weights_sha256,
        **(
            {"pretrained": {"file": config.pretrained, "sha256": config.pretrained_sha256, **pretrained.record()}}
            if pretrained
            else {}
        ),
        **({"parent": {"name": folder_name(parent), "id": id_of(parent)}} if parent else {}),
        **({"extend": {"folder": config.extend, "sha256": config.extend_sha256}} if config.extend else {}),
        **({"mask": {"sha256": config.mask_sha256, **experiment.mask.record()}} if experiment.mask else {}),
        "seconds": seconds,
        "environment": {
            "host": socket.gethostname(),
            "device": torch.cuda.get_device_name() if experiment.device == "cuda" else experiment.device,
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "peak_memory": peak_memory(experiment.device),
        },
    }
