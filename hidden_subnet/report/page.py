"""The page of a sweep: one HTML file, with everything in it, that opens from disk without a network (page.html)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from hidden_subnet.config.differences import flat, short_names, shown, varying
from hidden_subnet.config.program import LAUNCH, PROGRAM
from hidden_subnet.report.results import completed
from hidden_subnet.report.table import fixed, mean, summarise
from hidden_subnet.store import files, folders
from hidden_subnet.store.read import STATES, Run, dig, number
from hidden_subnet.store.redact import without_folders, without_keys

UNITS = ((3600, "hours"), (60, "minutes"), (1, "seconds"))
SPLITS = ("train", "validation", "test")


def page(
    title: str,
    runs: Sequence[Run],
    figure: str = "",
    *,
    question: str = "",
    command: str = "",
    queued: int = 0,
    paths: bool = False,
    refresh: int | None = None,
) -> str:
    """Return the page's HTML. figure: an SVG. question: what the sweep asks. queued: number of its
    runs without a folder, beside `runs`. refresh: seconds between reloads.

    Keys of known services are left out, and without `paths` also folders and names of hosts.
    """

    def told(text: str) -> str:
        text = without_keys(text)
        return text if paths else without_folders(text)

    lines = summarise(runs)
    settings = _differing(runs)
    entries = [_entry(run, settings[run.name]) for run in runs]
    failures = [
        {
            "name": run.name,
            "state": run.state,
            "error": told(run.error),
            "traceback": told(files.read_error(run.folder)),
        }
        for run in runs
        if run.state in ("failed", "lost")
    ]
    names = list(lines[0].settings) if lines else []
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    return environment.get_template("page.html").render(
        title=title,
        question=question,
        command=told(command),
        summary=_summary(runs, queued),
        figure=figure[figure.find("<svg") :],
        headers=[*names, "prune rate", "density", "first mask %", "test %", "n", "seconds", "state"],
        lines=[
            [
                *(shown(line.settings[name]) for name in names),
                shown(line.prune_rate),
                fixed(line.density, 4),
                _percent(line.untrained),
                _percent(line.mean) + (f" ± {100 * line.std:.2f}" if line.std is not None else ""),
                line.n,
                fixed(line.seconds, 1),
                line.state,
            ]
            for line in lines
        ],
        columns=["run", *_columns(settings), "test %", "best %", "density", "seconds", "state"],
        runs=entries,
        failures=failures,
        curves={entry["name"]: entry["rows"] for entry in entries if entry["rows"]},
        provenance=_provenance(runs, paths),
        refresh=refresh,
    )


def _entry(run: Run, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": run.name,
        "label": run.name.rpartition("-")[2],
        "state": run.state,
        "collapsed": run.collapsed,
        "cells": [
            *(shown(value) for value in settings.values()),
            _percent(run.test_top1),
            _percent(number(dig(run.result, "best.test.top1"))),
            fixed(number(dig(run.result, "density")), 4),
            fixed(number(dig(run.result, "seconds")), 1),
        ],
        "rows": _curves(run),
        "controls": _controls(run),
        "commands": "\n".join(
            [
                f"{LAUNCH} evaluate={run.folder.parent.name}/{run.name}",
                *(f"{PROGRAM} {command} {run.name.rpartition('-')[2]}" for command in ("show", "controls", "export")),
            ]
        ),
    }


def _differing(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Return for each run its settings that differ between the runs, by short names, its prune rate and its seed."""
    flats = {run.name: flat({**run.projection, "seeds": None}) for run in runs}
    paths = varying([each for each in flats.values() if each])
    names = short_names(paths)
    values = {run.name: completed(flats[run.name], run, paths) for run in runs}
    return {
        run.name: {
            **{names[path]: values[run.name].get(path) for path in paths},
            "prune rate": run.projection.get("prune_rate"),
            "seed": run.settings.get("seed"),
        }
        for run in runs
    }


def _columns(settings: dict[str, dict[str, Any]]) -> list[str]:
    return list(next(iter(settings.values()), {}))


def _curves(run: Run) -> dict[str, list[float | None]]:
    """Return epochs and accuracies of the run by epoch; {} where there is none."""
    try:
        rows = files.read_rows(files.working(run.folder))
    except (OSError, ValueError):
        return {}
    found: dict[str, list[float | None]] = {
        split: [None if (value := number(row.get(f"{split}/top1"))) is None else round(value, 4) for row in rows]
        for split in SPLITS
    }
    return {"epoch": [number(row.get("epoch")) for row in rows], **found} if rows else {}


def _controls(run: Run) -> list[dict[str, str]]:
    found = _read(run.folder / files.CONTROLS).get("controls")
    return [
        {
            "name": str(each.get("name")),
            "top1": f"{_percent(mean(values if isinstance(values := each.get('test_top1'), list) else []))} %",
            "says": str(each.get("says")),
        }
        for each in (found if isinstance(found, list) else [])
        if isinstance(each, dict)
    ]


def _provenance(runs: Sequence[Run], paths: bool) -> list[tuple[str, str]]:
    """Return what the runs were made with; several values where they differ."""
    found = [each for run in runs if (each := _read(files.working(run.folder) / files.PROVENANCE))]
    commits = (
        f"{commit}{' with changes' * bool(dig(each, 'git.dirty'))}"
        for each in found
        if (commit := dig(each, "git.commit"))
    )
    rows = [("code", _distinct(commits)), ("device", _distinct(each.get("device") for each in found))]
    rows += [
        (name, _distinct(dig(each, "versions").get(name) for each in found if isinstance(dig(each, "versions"), dict)))
        for name in ("hidden_subnet", "python", "torch", "torchvision")
    ]
    if paths:
        rows += [(name, _distinct(each.get(name) for each in found)) for name in ("host", "directory", "package")]
    return [(name, value) for name, value in rows if value]


def _summary(runs: Sequence[Run], queued: int) -> str:
    count = Counter([run.state for run in runs] + ["queued"] * queued)
    seconds = sum(number(dig(run.result, "seconds")) or 0 for run in runs)
    collapsed = sum(run.collapsed for run in runs)
    cost = next(f"{seconds / size:.1f} {unit}" for size, unit in UNITS if seconds >= size or size == 1)
    parts = [f"{count[state]} {state}" for state in STATES if count[state]] + [f"{collapsed} collapsed"] * bool(
        collapsed
    )
    return f"{count.total()} runs: {', '.join(parts)}. Together they took {cost}."


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file; {} where there is none, or it is damaged."""
    try:
        content = folders.read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _distinct(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None))


def _percent(value: float | None) -> str:
    return fixed(value, 2, 100)
