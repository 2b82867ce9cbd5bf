"""Run folders read back: what was asked for, how far it got, what came out."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

try:
    from yaml import CSafeLoader as Loader
except ImportError:  # PyYAML built without libyaml: the same result in ten times the 0.5 ms a file
    from yaml import SafeLoader as Loader  # type: ignore[assignment]

from hidden_subnet.claims import standing
from hidden_subnet.config import from_dict
from hidden_subnet.identity import projection
from hidden_subnet.owners import Observer
from hidden_subnet.record import CONFIG, ERROR, RESULT, working

STATES = ("done", "failed", "lost", "interrupted", "running", "queued")


@dataclass(frozen=True)
class Run:
    folder: Path
    settings: dict[str, Any]
    """The whole config.yaml; empty where it cannot be read."""
    projection: dict[str, Any]
    """The settings that make the run what it is (hidden_subnet.identity)."""
    result: dict[str, Any] | None
    """result.json; None unless done."""
    state: str
    """One of STATES."""
    error: str = ""
    """The last line of error.txt, how its process died, or what is wrong with the folder."""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def method(self) -> str | None:
        name = dig(self.projection, "method.name")
        return None if name is None else str(name)

    @property
    def test_top1(self) -> float | None:
        """Accuracy on the test set after the last epoch, 0 to 1; None unless done."""
        return number(dig(self.result, "last.test.top1"))

    @property
    def collapsed(self) -> bool:
        """Done, trained, and no better than guessing on the test images; its accuracy counts all the same."""
        return dig(self.result, "collapsed") is True

    @property
    def untrained_top1(self) -> float | None:
        """Test accuracy before any training, 0 to 1: under the first mask, unpruned where there is none."""
        masked = number(dig(self.result, "untrained.first_mask.top1"))
        return number(dig(self.result, "untrained.unpruned.top1")) if masked is None else masked


def read_runs(out: Path) -> list[Run]:
    """Every run folder of `out` in the order of names."""
    observer = Observer(out)
    return [read_run(path.parent, observer) for path in sorted(out.glob(f"*/{CONFIG}"))]


def read_run(folder: Path, observer: Observer | None = None) -> Run:
    """Never raises on a folder's content: one that cannot be read is a failed run that says why."""
    settings: dict[str, Any] = {}
    what: dict[str, Any] = {}
    try:
        settings = _mapping(folder / CONFIG)
        result = _mapping(folder / RESULT) if (folder / RESULT).exists() else None
        if result is None:
            try:
                what = projection(from_dict(settings))
            except ValueError as error:
                raise ValueError(f"{CONFIG}: {error}") from None
            return Run(folder, settings, what, None, *_unfinished(folder, observer or Observer(folder.parent)))
        if number(dig(result, "last.test.top1")) is None or not isinstance(result.get("projection"), dict):
            raise ValueError("result.json: has no test accuracy or no projection; remove it and run again")
        return Run(folder, settings, result["projection"], result, "done")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        return Run(folder, settings, what, None, "failed", f"cannot be read: {' '.join(str(error).split())}")


def _unfinished(folder: Path, observer: Observer) -> tuple[str, str]:
    now = standing(folder, observer)
    error = working(folder) / ERROR
    return now.state, (_last_line(error) if os.path.exists(error) else "") or now.message * (
        now.state in ("failed", "lost")
    )


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _mapping(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path.name}: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name}: holds no settings")
    return content


def dig(tree: Any, path: str) -> Any:
    """`dig(result, "last.test.top1")`: the value at a dotted path, None where any part of it is missing."""
    for key in path.split("."):
        if not isinstance(tree, dict):
            return None
        tree = tree.get(key)
    return tree


def number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
