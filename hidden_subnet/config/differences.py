"""The settings that differ between runs, and the text in which names and values are shown."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

# Shown wherever they vary; another setting is shown only if it separates runs that are equal in these.
ALWAYS = ("data.name", "model.name", "model.width", "method.name", "init.name")
NOT_SHOWN = ("schema", "prune_rate", "seeds.")


def varying(flats: Sequence[dict[str, Any]]) -> list[str]:
    """Return the dotted names of a few settings that together separate the runs.

    A setting that follows from those before it is omitted, as train.lr where each method has its own default.
    """
    shown = [path for path in ALWAYS if len({flat.get(path) for flat in flats}) > 1]
    # Names first: pruning=global says more than the settings that change with it.
    others = sorted(
        {path for flat in flats for path in flat} - set(ALWAYS), key=lambda path: (path[-5:] != ".name", path)
    )
    for path in others:
        if not path.startswith(NOT_SHOWN) and _classes(flats, [*shown, path]) > _classes(flats, shown):
            shown.append(path)
    if _classes(flats, [*shown, "schema"]) > _classes(flats, shown):
        shown.append("schema")  # the same settings before and after a change of what they compute
    return shown


def _classes(flats: Sequence[dict[str, Any]], paths: Sequence[str]) -> int:
    return len({tuple(flat.get(path) for path in paths) for flat in flats})


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Return short names, as model for model.name and lr for train.lr; equal ones stay at their full names.

    A rate of a layer stays rates.<layer>, whose own name has dots too.
    """
    short = {
        path: path.removeprefix("pruning.")
        if path.startswith("pruning.rates.")
        else path.removesuffix(".name").rpartition(".")[2]
        for path in paths
    }
    count = Counter(short.values())
    return {path: name if count[name] == 1 else path for path, name in short.items()}


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values with dotted names, {"train": {"lr": 0.1}} as {"train.lr": 0.1}; lists become text."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = json.dumps(value) if isinstance(value, list) else value
    return found


def shown(value: Any) -> str:
    """Return a value as the command line writes it; "-" for None."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value)  # settings have 12 digits


class Run(Protocol):
    """The parts of a run that `described` needs."""

    @property
    def folder(self) -> Path: ...

    @property
    def projection(self) -> dict[str, Any]: ...


def described(runs: Sequence[Run]) -> dict[str, str]:
    """Return for each run's folder name a text that tells it from the others: "digits-fc-...-1f2e (lr 0.1)".

    What differs is added where names differ in their last part only, the digits of the id.
    """
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(run.folder.name.rpartition("-")[0], []).append(run)
    texts = {}
    for group in alike.values():
        flats = [flat(run.projection) for run in group] if len(group) > 1 else [{}]
        names = short_names(varying(flats))
        for run, settings in zip(group, flats, strict=True):
            differs = ", ".join(f"{name} {shown(settings.get(path))}" for path, name in names.items())
            texts[run.folder.name] = f"{run.folder.name} ({differs})" if differs else run.folder.name
    return texts
