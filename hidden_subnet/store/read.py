"""Read run folders: settings, state and result of each run."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from hidden_subnet.config.convert import from_dict
from hidden_subnet.config.identity import projection
from hidden_subnet.config.parsing import parse_json, parse_yaml
from hidden_subnet.store import folders
from hidden_subnet.store.claims import run_status
from hidden_subnet.store.files import CONFIG, RESULT, last_error_line
from hidden_subnet.store.find import run_folders
from hidden_subnet.store.liveness import LivenessProbe
from hidden_subnet.store.patience import patiently

READ_SECONDS = 5.0
"""How long to wait for a file server that does not answer."""
WRITES = 10
"""How often `until_settled` writes where runs end all the time."""
LARGEST = 1e100
"""Whose square is still a number, as in a standard deviation."""
STATES = ("done", "stopped", "failed", "lost", "interrupted", "running", "queued")


@dataclass(frozen=True)
class Run:
    """A run as its folder describes it."""

    folder: Path
    settings: dict[str, Any]
    """All of config.yaml; empty if it cannot be read."""
    projection: dict[str, Any]
    """The settings that make up the run's identity (hidden_subnet/config/identity.py)."""
    result: dict[str, Any] | None
    """result.json; None unless the run is done."""
    state: str
    """One of STATES."""
    error: str = ""
    """The last line of error.txt, how the process died, why it was stopped, or why the folder cannot be read."""

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.folder.name

    @property
    def method(self) -> str | None:
        """Name of the method; None if the settings cannot be read."""
        name = dig(self.projection, "method.name")
        return None if name is None else str(name)

    @property
    def test_top1(self) -> float | None:
        """Test accuracy after the last epoch, 0 to 1; None unless the run is done."""
        return number(dig(self.result, "last.test.top1"))

    @property
    def collapsed(self) -> bool:
        """Whether the run is done and trained, but no better than chance on the test images."""
        return has_collapsed(self.result)

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics of the user's own that the run measures."""
        named = self.settings.get("metrics")
        return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []

    @property
    def untrained_top1(self) -> float | None:
        """Test accuracy before training, 0 to 1: of the subnetwork at prune_rate, or unpruned without a mask.

        None for older results whose first mask has another rate, since a ramp or a dense phase comes before prune_rate.
        """
        unpruned, first = (dig(self.result, f"untrained.{name}") for name in ("unpruned", "first_mask"))
        if (at_prune_rate := number(dig(self.result, "untrained.at_prune_rate.top1"))) is not None:
            return at_prune_rate
        removed = dig(self.result, "kept") != dig(self.result, "weights")
        if dig(self.projection, "pruning.ramp_epochs") or (first is not None and first == unpruned and removed):
            return None
        return number(dig(unpruned if first is None else first, "top1"))


def has_collapsed(result: Any) -> bool:
    """Return whether result.json says that a trained network is at chance.

    Not where there was nothing to learn, as for scores at prune_rate=0: all weights are kept, and the network has
    to the bit the loss that it had before.
    """
    if dig(result, "collapsed") is not True:
        return False
    learned: bool = dig(result, "last.test.loss") != dig(result, "untrained.unpruned.loss")
    return learned or dig(result, "kept") != dig(result, "weights")


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Have Python look for cycles once in 50,000 new objects, and not in 700: thousands of runs are trees."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def read_runs(out: Path) -> list[Run]:
    """Read every run folder in `out`, in the order of names."""
    probe = LivenessProbe(out, glance=True)
    return [read_run(folder, probe) for folder in run_folders(out) if os.path.lexists(folder / CONFIG)]


def until_settled(out: Path, runs: list[Run], write: Callable[[list[Run]], None]) -> None:
    """Call `write` with all runs in `out`, as read before; and again with newer ones where runs have ended meanwhile.

    So of several commands that write the same file, each from what it has read, the last leaves no older view behind.
    """
    latest = {run.folder: run for run in runs}
    seen = {run.folder for run in runs if run.result is not None}
    for _ in range(WRITES):
        write(sorted(latest.values(), key=lambda run: run.name))
        ended = [each for each in run_folders(out) if each not in seen and folders.is_file(each / RESULT)]
        if not ended:
            return
        seen.update(ended)
        latest |= {folder: read_run(folder) for folder in ended}


def read_run(folder: Path, probe: LivenessProbe | None = None) -> Run:
    """Read one run folder. Never raises for its content: an unreadable folder is a failed run whose error says why."""
    settings: dict[str, Any] = {}
    what: dict[str, Any] = {}
    try:
        settings = _mapping(folder / CONFIG)
        result = _result(folder)
        if result is None:
            try:
                what = projection(from_dict(settings))
            except ValueError as error:
                raise ValueError(f"{CONFIG}: {error}") from None
            probe = probe or LivenessProbe(folder.parent, glance=True)
            return Run(folder, settings, what, None, *_unfinished(folder, probe))
        recorded = result.get("projection")
        if number(dig(result, "last.test.top1")) is None or not isinstance(recorded, dict) or not _usable(recorded):
            raise ValueError("result.json: has no test accuracy or no projection; remove it and run again")
        return Run(folder, settings, recorded, result, "done")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Run(folder, settings, what, None, "failed", f"cannot be read: {' '.join(str(error).split())}")


def _unfinished(folder: Path, probe: LivenessProbe) -> tuple[str, str]:
    """State and error of a run without a result."""
    now = run_status(folder, probe)
    if now.state == "stopped":
        return now.state, now.message
    return now.state, last_error_line(folder) or now.message * (now.state in ("failed", "lost"))


def _result(folder: Path) -> dict[str, Any] | None:
    try:
        return _mapping(folder / RESULT)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _mapping(path: Path) -> dict[str, Any]:
    try:
        text = patiently(partial(folders.read_text, path), READ_SECONDS)
        content = parse_json(text) if path.suffix == ".json" else parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name}: holds no settings")
    return content


def dig(tree: Any, path: str) -> Any:
    """The value at a dotted path, as in dig(result, "last.test.top1"); None if any part of the path is missing."""
    for key in _keys(path):
        if not isinstance(tree, dict):
            return None
        tree = tree.get(key)
    return tree


@cache
def _keys(path: str) -> list[str]:
    return path.split(".")


def number(value: Any) -> float | None:
    """`value` as a float if it is a number that one can calculate with, else None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < LARGEST else None


def _usable(tree: dict[str, Any]) -> bool:
    """Whether all numbers in it are such numbers."""
    return all(
        _usable(each) if isinstance(each, dict) else not isinstance(each, float) or number(each) is not None
        for each in tree.values()
    )
