"""Lines on runs that begin again, since the images under their data.root have changed."""

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hidden_subnet.config.identity import projection
from hidden_subnet.config.program import PROGRAM
from hidden_subnet.config.registries import DATA
from hidden_subnet.config.settings import Config
from hidden_subnet.store import files
from hidden_subnet.store.find import is_run, run_folders
from hidden_subnet.store.liveness import LivenessProbe
from hidden_subnet.store.read import Run, dig, read_run
from hidden_subnet.sweep.console import count

NAMED = 3
"""The most runs that a line names."""


def other_images(configs: Sequence[Config], runs: Sequence[Path]) -> Iterator[str]:
    """Yield a line for each data.root whose images have changed since runs of the same settings were begun.

    runs: the folders of the configs.
    """
    begun: dict[Path, dict[str, Config]] = {}
    for config, run in zip(configs, runs, strict=True):
        if not config.force and DATA[config.data.name].has_files and not is_run(run):
            begun.setdefault(Path(config.out), {})[_key(projection(config), _root(config))] = config
    for out, by_key in begun.items():
        earlier: dict[str, list[Run]] = {}
        begins: dict[str, set[str]] = {}
        for found in _runs_on(out, {config.data.name for config in by_key.values()}):
            root = str(dig(found.settings, "data.root"))
            if (key := _key(found.projection, root)) in by_key:
                earlier.setdefault(root, []).append(found)
                begins.setdefault(root, set()).add(key)
        for root, former in earlier.items():
            yield _line(Path(root), former, len(begins[root]), out)


def _root(config: Config) -> str:
    return str(files.portable(config)["data"]["root"])


def _key(what: dict[str, Any], root: str) -> str:
    """Return a text that is equal for runs that differ in the content of their images only."""
    data = {name: value for name, value in what.get("data", {}).items() if name != "found"}
    return json.dumps([{**what, "data": data}, root], sort_keys=True)


def _runs_on(out: Path, names: set[str]) -> Iterator[Run]:
    """Yield the runs in `out` on data sets of these names."""
    if not os.path.isdir(out):
        return
    probe = LivenessProbe(out, glance=True)
    for folder in run_folders(out):
        if any(folder.name.startswith((f"{name}-", f"{name}.")) for name in names):
            yield read_run(folder, probe)


def _line(root: Path, runs: list[Run], new: int, out: Path) -> str:
    link = f" (a link, now to {os.path.realpath(root)})" if os.path.islink(root) else ""
    some = ", ".join(f"{run.name} ({_state(run)})" for run in runs[:NAMED])
    more = f" and {len(runs) - NAMED} more" if len(runs) > NAMED else ""
    begins = "this begins another run" if new == 1 else f"this begins {count(new, 'other run')}"
    where = [] if str(out) == "runs" else ["--out", str(out)]
    words = ["rm", *(run.name for run in runs)] if len(runs) <= NAMED else ["status"]
    command = shlex.join([*PROGRAM.split(), *words, *where])
    what = "remove" if len(runs) <= NAMED else "see"
    return (
        f"{root}{link}: the images changed since {some}{more}; {begins}. To {what} the old "
        f"{'one' if len(runs) == 1 else 'ones'}, type: {command}"
    )


def _state(run: Run) -> str:
    if run.state == "done":
        return run.state
    epochs = max(files.count_rows(files.working(run.folder)) - 1, 0)
    return f"{run.state} after {count(epochs, 'epoch')}"
