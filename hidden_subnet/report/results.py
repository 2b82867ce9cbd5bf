"""results.csv: one row a run, in long form, made anew from the run folders each time."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from hidden_subnet.record import write_atomically
from hidden_subnet.report.runs import Run, dig, read_runs

# Column, and where its value lies in the projection (empty where the run's method does not use the setting).
SETTINGS = {
    "data": "data.name",
    "model": "model.name",
    "width": "model.width",
    "init": "init.name",
    "scale": "init.scale",
    "method": "method.name",
    "pruning": "pruning.name",
    "prune_rate": "prune_rate",
}
# Column, and where its value lies in result.json.
OUTCOME = {
    "chance": "chance",
    "untrained_top1": "untrained.unpruned.top1",
    "first_mask_top1": "untrained.first_mask.top1",
    "last_epoch": "last.epoch",
    "last_train_top1": "last.train.top1",
    "last_validation_top1": "last.validation.top1",
    "last_test_top1": "last.test.top1",
    "last_test_loss": "last.test.loss",
    "last_test_top5": "last.test.top5",
    "collapsed": "collapsed",
    "dead_layer": "dead_layer",
    "best_epoch": "best.epoch",
    "best_validation_top1": "best.validation.top1",
    "best_test_top1": "best.test.top1",
    "weights": "weights",
    "kept": "kept",
    "seconds": "seconds",
    "host": "environment.host",
    "device": "environment.device",
    "torch": "environment.torch",
}
TRAINING = {
    "epochs": "train.epochs",
    "lr": "train.lr",
    "batch_size": "train.batch_size",
    "optimizer": "train.optimizer",
    "momentum": "train.momentum",
    "nesterov": "train.nesterov",
    "weight_decay": "train.weight_decay",
    "schedule": "train.schedule",
    "warmup_epochs": "train.warmup_epochs",
    "milestones": "train.milestones",
    "gamma": "train.gamma",
    "label_smoothing": "train.label_smoothing",
    "norm_decay": "train.norm_decay",
    "pretrained": "pretrained",
    "init_mode": "init.mode",
    "validation": "data.validation",
    "ramp_epochs": "pruning.ramp_epochs",
    "norm": "model.norm",
    "temperature": "model.temperature",
    "precision": "train.precision",
    "fraction": "data.fraction",
    "pad": "data.pad",
    "crop": "data.crop",
    "flip": "data.flip",
    "seed_weights": "seeds.weights",
    "seed_scores": "seeds.scores",
    "seed_data": "seeds.data",
    "seed_split": "seeds.split",
}
COLUMNS = [
    "name",
    "state",
    *SETTINGS,
    "density",
    "density_all",
    "seed",
    *TRAINING,
    *OUTCOME,
    "error",
]


def write_results(out: Path) -> Path:
    """Write `out`/results.csv from the run folders in `out`; accuracies are fractions 0 to 1."""
    path, text = out / "results.csv", io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in read_runs(out):
        values = row(run)
        writer.writerow([cell(values[column]) for column in COLUMNS])
    write_atomically(path, text.getvalue().encode())
    return path


def row(run: Run) -> dict[str, Any]:
    """A value a column of COLUMNS; None where the run has none (yet)."""
    return {
        "name": run.name,
        "state": run.state,
        "density": dig(run.result, "density"),
        "density_all": dig(run.result, "density_all"),
        "seed": run.settings.get("seed"),
        "error": run.error,
        **{column: dig(run.projection, path) for column, path in (SETTINGS | TRAINING).items()},
        **{column: dig(run.result, path) for column, path in OUTCOME.items()},
    }


def cell(value: Any) -> str:
    """Text of a cell: numbers to the last bit; what a spreadsheet would run as a formula is quoted."""
    if value is None:
        return ""
    if isinstance(value, bool | list | dict):
        return json.dumps(value)
    text = str(value)
    if isinstance(value, str) and text.startswith(("=", "+", "-", "@", "\t", "\r")) and not _is_number(text):
        return "'" + text
    return text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
