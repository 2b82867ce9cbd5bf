"""Tells the author of a part whether a run on it ends with the same bits after interruptions."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from hidden_subnet.cli.python_api import config_of
from hidden_subnet.config.settings import Config
from hidden_subnet.store import checkpoints, files
from hidden_subnet.sweep.execute import Outcome, RunObserver, execute

SMALL = ("model=conv2", "model.width=0.125", "data=digits", "train.epochs=3", "train.batch_size=500")
"""A run of a second, but for what is given."""
TIMES = ("seconds", "images_per_second")


def assert_resumes(*overrides: str, use: str | Iterable[str] = (), **settings: Any) -> None:
    """Raise AssertionError unless an interrupted run ends with the bits of an undisturbed one.

    >>> hs.assert_resumes("method=edge_popup", prune_rate=0.9)

    With use="my_parts.py" "method=my_method" it is a test of your own file. The run is
    that of a small network on `digits`, for 3 epochs of 4 steps, but for what is given; it is interrupted after its
    first step, within each epoch and before each evaluation. The message names what differs. Raises ConfigError and
    DataError for what cannot be run, RuntimeError for a run that fails.
    """
    given = {word.partition("=")[0] for word in overrides} | settings.keys()
    fixed = [
        word for word in SMALL if (name := word.partition("=")[0]) not in given and not _is_of_another(name, given)
    ]
    with TemporaryDirectory() as out:
        config = config_of([*fixed, *overrides], settings, use)
        names = ("undisturbed", "interrupted", "again")
        configs = [replace(config, out=str(Path(out) / name)) for name in names]
        whole = _executed(configs[0], None)
        steps = int(files.read_rows(whole)[-1]["step"]) // max(1, configs[0].train.epochs)
        interrupted = _interrupted(configs[1], steps)
        found = list(_differences(whole, interrupted))
        if not found:
            return
        if any(_differences(whole, _executed(configs[2], None))):
            why = "Two undisturbed runs differ too, so that random numbers come from a global generator"
        else:
            why = (
                "Where a run resumes within an epoch, on_epoch_start is called again for it, and must do the same twice"
            )
        raise AssertionError(
            f"{' '.join(overrides)}: a run that was interrupted ends with other bits than one that was not: "
            f"{'; '.join(found)}. {why}. Draw random numbers from self.generator(step, path), and "
            "return what else a resumed run needs in state_dict"
        )


def _is_of_another(name: str, given: set[str]) -> bool:
    """Return whether a setting is of a part in whose place another one is given: model.width, with another model."""
    return "." in name and name.partition(".")[0] in given


def _executed(config: Config, steps: int | None) -> Path:
    """Execute the run until it has taken `steps` steps, or to its end, and return its folder."""
    taken: list[int] = []
    said: list[str] = []
    observer = RunObserver(lambda row: None, lambda epoch, batch, batches: taken.append(batch), said.append)
    outcome = execute(config, observer, stopped=lambda: steps is not None and len(taken) >= steps)
    _require(outcome, "done" if steps is None else "interrupted")
    return outcome.folder


def _interrupted(config: Config, steps: int) -> Path:
    """Execute the run with interruptions after 1 step, then every `steps` - 1 steps, `steps` to an epoch."""
    total, done = steps * config.train.epochs, 0
    for count in [1, *[max(1, steps - 1)] * config.train.epochs]:
        if (done := done + count) < total:
            _executed(config, count)
    return _executed(config, None)


def _require(outcome: Outcome, state: str) -> None:
    if outcome.state != state:
        raise RuntimeError(f"{outcome.folder.name}: {outcome.state}, and should be {state}: {outcome.message}")


def _differences(one: Path, other: Path) -> Iterator[str]:
    """Yield what differs between two finished runs: the first row that does, and tensors of their checkpoints."""
    for a, b in zip(files.read_rows(one), files.read_rows(other), strict=True):
        names = [name for name in a if name not in TIMES and a[name] != b.get(name)]
        if names:
            yield f"from epoch {a['epoch']:.0f} on, {names[0]} is {b.get(names[0])} and not {a[names[0]]}"
            break
    first, second = (_trained(folder) for folder in (one, other))
    names = [name for name in first if not _same(first[name], second[name])]
    if names:
        yield f"in {files.LAST} {names[0]} differs" + (f", and {len(names) - 1} more" if names[1:] else "")


def _trained(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = checkpoints.load(folder / "checkpoints" / files.LAST)["trained"]
    return state


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)
