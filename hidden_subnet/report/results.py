"""Results as a pandas DataFrame and as results.csv: one row per run, always made from the run folders.

pandas takes half a second to import, and so is imported where it is used: at the end of a sweep, or by a command.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hidden_subnet.config.convert import from_dict
from hidden_subnet.config.differences import flat
from hidden_subnet.config.identity import STREAMS, settings_in_use
from hidden_subnet.store.folders import write_atomically
from hidden_subnet.store.read import Run, dig, read_runs

if TYPE_CHECKING:
    from pandas import DataFrame

# Column: path of its value in result.json. docs/results.md describes all columns.
OUTCOME = {
    "density": "density",
    "density_all": "density_all",
    "chance": "chance",
    "unpruned_top1": "untrained.unpruned.top1",
    "first_mask_top1": "untrained.first_mask.top1",
    "at_prune_rate_top1": "untrained.at_prune_rate.top1",
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
    "trained_parameters": "trained_parameters",
    "bits": "bits",
    "dense_flops": "dense_flops",
    "sparse_flops": "sparse_flops",
    "seconds": "seconds",
    "peak_memory": "environment.peak_memory",
    "host": "environment.host",
    "device": "environment.device",
    "torch": "environment.torch",
}
FIRST = ["name", "state"]
NAMES = {
    "init.mode": "init_mode",
    **{f"seeds.{each}": f"seed_{each}" for each in STREAMS},
}
"""Columns of settings whose last word would not say which they are."""


def results(out: str | Path) -> "DataFrame":
    """Return the runs in the folder `out` as a DataFrame, with the columns and rows of results.csv and typed values.

    >>> table = hs.results("runs")
    >>> means = table.groupby("prune_rate")["last_test_top1"].mean()

    Accuracies are fractions in [0, 1]; <NA> where a run does not have a value (yet).
    """
    return frame(read_runs(Path(out))).convert_dtypes()


def table_of(rows: Sequence[dict[str, Any]]) -> "DataFrame":
    """Return rows, as those of metrics.jsonl, as a DataFrame with typed columns; <NA> where one lacks a value."""
    from pandas import DataFrame

    return DataFrame(rows).convert_dtypes()


def write_results(out: Path, to: Path | None = None, runs: Iterable[Run] | None = None) -> Path:
    """Write results.csv from the run folders in `out` and return its path; `to` is the folder, by default `out`.

    runs: what read_runs(out) has returned, if it was called before.
    """
    path = (to or out) / "results.csv"
    rows = [row(run) for run in (read_runs(out) if runs is None else runs)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = columns_of(rows)
    writer.writerow(columns)
    writer.writerows([cell(each.get(name)) for name in columns] for each in rows)
    write_atomically(path, text.getvalue().encode(), root=path.parent)
    return path


def frame(runs: Iterable[Run]) -> "DataFrame":
    """Return a row for each run, as `row` describes it; columns with the same value in every row come last."""
    from pandas import DataFrame

    rows = [row(run) for run in runs]
    return DataFrame(rows, columns=columns_of(rows), dtype=object)


def columns_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the columns of rows; those with the same value in every row come last."""
    names = [name for name in dict.fromkeys(name for each in rows for name in each) if name not in FIRST]
    same = [name for name in names if len({_comparable(each.get(name, ...)) for each in rows}) == 1]
    return [*FIRST, *(name for name in names if name not in same), *same]


def _comparable(value: Any) -> Any:
    return value if value == value else "nan"


def row(run: Run) -> dict[str, Any]:
    """Return the values of a run by column; None, or no column, where it does not use the setting or has no result.

    Settings at their defaults have their value, too, and one that is null or empty is "none".
    """
    try:
        settings = _in_use(run.settings) | {"seeds": run.projection["seeds"]}
    except (ValueError, KeyError, TypeError, AttributeError):  # the result of another version, or a damaged folder
        settings = run.projection
    return {
        "name": run.name,
        "state": run.state,
        **{column(path): "none" if value in (None, "") else value for path, value in flat(settings).items()},
        "seed": run.settings.get("seed"),
        **{name: dig(run.result, path) for name, path in OUTCOME.items()},
        **own_metrics(run),
        "error": run.error,
    }


REMEMBERED = 4096
"""The most settings that `_in_use` remembers."""
_IN_USE: dict[str, dict[str, Any]] = {}


def _in_use(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings_in_use, computed once for runs that differ in their seed only: the seeds may be those of another.

    Raises as from_dict.
    """
    is_seed = type(settings.get("seed")) is int  # else from_dict refuses it
    key = repr({**settings, "seed": 0} if is_seed else settings)  # 1, 1.0 and True are equal, and their texts are not
    if key not in _IN_USE:
        if len(_IN_USE) >= REMEMBERED:
            _IN_USE.clear()
        _IN_USE[key] = settings_in_use(from_dict(settings))
    return _IN_USE[key]


def completed(found: dict[str, Any], run: Run, paths: Iterable[str]) -> dict[str, Any]:
    """Return the flat projection `found` of a run with the values of `paths` that it leaves out at their defaults.

    A setting that the run does not use stays away.
    """
    missing = [path for path in paths if path not in found]
    if not missing:
        return found
    try:
        used = flat(settings_in_use(from_dict(run.settings)))
    except (ValueError, KeyError, TypeError, AttributeError):  # of another version, or a damaged folder
        return found
    return found | {path: used[path] for path in missing if path in used}


def own_metrics(run: Run) -> dict[str, Any]:
    """Return the metrics of the user's own by column, as last_test_calibration; none where the run names no metric."""
    places = ("last.validation", "last.test", "best.test")
    return {
        f"{place.replace('.', '_')}_{name}": dig(run.result, f"{place}.{name}")
        for name in run.metrics
        for place in places
    }


@cache
def column(path: str) -> str:
    """Return the column of a setting: model for model.name, lr for train.lr, method_penalty for method.penalty."""
    path = path.removesuffix(".name")
    if path.startswith("search."):  # of the run that finds the mask of mask=<method>
        return f"search_{column(path.removeprefix('search.'))}"
    if path.startswith(("method.", "data.found.")):
        return path.replace(".", "_")
    if path.startswith("pruning.rates."):  # the name of the layer has dots too
        return path.removeprefix("pruning.")
    return NAMES.get(path, path.rpartition(".")[2])


def cell(value: Any) -> str:
    """Return the text of a cell. Numbers are exact; text that a spreadsheet would evaluate as a formula is quoted."""
    if value is None or value != value:  # NaN: pandas has no value there
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
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
