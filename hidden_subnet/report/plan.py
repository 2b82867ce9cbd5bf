"""What a command would run, and how long it may take (plan=true). Runs nothing, writes nothing, needs no torch."""

import heapq
import json
import os
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from hidden_subnet import claims, owners, record
from hidden_subnet.dataset import info_of
from hidden_subnet.identity import projection
from hidden_subnet.models.plan import plan
from hidden_subnet.models.plan import weights as count_weights
from hidden_subnet.report.console import count, make_console, say
from hidden_subnet.report.runs import dig, number
from hidden_subnet.report.table import flat, short_names, shown, varying
from hidden_subnet.settings import Config, Library

MOST_RUNS = 30
"""More are shown as a line for each combination of settings, over its seeds."""
MOST_LINES = 60
ORDER = ("done", "running", "failed", "lost", "interrupted", "to do")

Kind = tuple[Any, ...]


@dataclass(frozen=True)
class Planned:
    folder: Path
    projection: dict[str, Any]
    state: str
    """One of ORDER."""
    again: bool
    """force=true: done or not, it runs."""
    weights: int | None
    """None for a network of torchvision, whose size only torch can tell."""
    seconds: float | None
    """What is left of it, as far as finished runs alike tell; None where there is none."""

    @property
    def runs(self) -> bool:
        return self.again or self.state not in ("done", "running")


def print_plan(configs: Sequence[Config]) -> None:
    """Print the runs of one sweep (or one run) with their states, weights and times."""
    console = make_console()
    out = Path(os.path.abspath(configs[0].out))
    runs = planned(configs)
    say(console, f"plan: {count(len(runs), 'run')} in {out}: {_states(runs)}")
    console.print(_each(runs) if len(runs) <= MOST_RUNS else _combinations(runs))
    for line in _times([run for run in runs if run.runs]):
        say(console, line)
    console.print("nothing was run; the same command without plan=true runs it", highlight=False)


def planned(configs: Sequence[Config]) -> list[Planned]:
    """Where each run stands in its folder, and what it would take."""
    out = Path(os.path.abspath(configs[0].out))
    observer, known = owners.Observer(out), finished(out)
    found = []
    for config in configs:
        folder, what = record.folder_of(config), projection(config)
        state = claims.standing(folder, observer).state
        state = "to do" if state == "queued" else state
        whole = estimate(what, known)
        if whole is not None and state in ("failed", "lost", "interrupted") and not config.force:
            whole *= 1 - _epochs_done(folder) / config.train.epochs
        found.append(Planned(folder, what, state, config.force, weights(config), whole))
    return found


def weights(config: Config) -> int | None:
    """Weights of the network's conv and linear layers; none of our own has a bias."""
    if config.model.library is Library.torchvision:
        return None
    info = info_of(config.data)
    return count_weights(plan(config.model.name, config.model.width, info.shape, info.classes))


def finished(out: Path) -> dict[Kind, dict[int, list[float]]]:
    """Seconds of the runs that are done in `out`, by what they are and by epochs (0: the method has none)."""
    known: dict[Kind, dict[int, list[float]]] = {}
    for path in out.glob(f"*/{record.RESULT}"):
        try:
            result = json.loads(path.read_text())
        except (OSError, ValueError):
            continue  # a damaged result tells nothing
        seconds, what = number(dig(result, "seconds")), dig(result, "projection")
        if seconds is not None and isinstance(what, dict):
            known.setdefault(_kind(what), {}).setdefault(_epochs(what), []).append(seconds)
    return known


def estimate(what: dict[str, Any], known: dict[Kind, dict[int, list[float]]]) -> float | None:
    """Median seconds of runs of the same data, model, width and method; other numbers of epochs are scaled."""
    alike, epochs = known.get(_kind(what)), _epochs(what)
    if not alike:
        return None
    nearest = min(alike, key=lambda each: (abs(each - epochs), each))
    return statistics.median(alike[nearest]) * (epochs / nearest if nearest else 1)


def _kind(what: dict[str, Any]) -> Kind:
    data = ("data.name", "data.fraction", "data.one_batch", "data.pad", "data.size", "data.found.digest")
    return tuple(dig(what, path) for path in (*data, "model.library", "model.name", "model.width", "method.name"))


def _epochs(what: dict[str, Any]) -> int:
    return int(dig(what, "train.epochs") or 0)


def _epochs_done(folder: Path) -> int:
    try:
        rows = record.read_rows(record.working(folder))
    except ValueError:
        return 0
    return max(0, len(rows) - 1)  # the first row is of the untrained network


def makespan(seconds: Iterable[float], workers: int, busy: Sequence[float] = ()) -> float:
    """Until the last is done, when each worker takes the next as soon as it is free; `busy`: some are, for so long."""
    free = [*busy, *[0.0] * (workers - len(busy))]
    heapq.heapify(free)
    for each in seconds:
        heapq.heappush(free, heapq.heappop(free) + each)
    return max(free)


def _times(todo: list[Planned]) -> list[str]:
    if not todo:
        return []
    told = [run.seconds for run in todo if run.seconds is not None]
    if not told:
        return [f"{count(len(todo), 'run')} to execute; no finished run alike tells how long they take"]
    workers = [1]
    while workers[-1] * 2 <= min(len(todo), 64):
        workers.append(workers[-1] * 2)
    rest = f" ({len(todo) - len(told)} more have no finished run alike)" if len(told) < len(todo) else ""
    spans = ", ".join(f"{each} at a time {clock(makespan(told, each))}" for each in workers)
    return [f"{count(len(told), 'run')} to execute{rest}, as finished runs alike tell: {spans}"]


def _each(runs: Sequence[Planned]) -> Table:
    table = _table(["run"])
    for run in runs:
        table.add_row(Text(run.folder.name), _weights(run), _time([run]), _state([run]))
    return table


def _combinations(runs: Sequence[Planned]) -> Table:
    groups: dict[str, list[Planned]] = {}
    for run in runs:
        groups.setdefault(json.dumps({**run.projection, "seeds": None}, sort_keys=True), []).append(run)
    flats = [flat(members[0].projection) for members in groups.values()]
    paths = varying(flats)
    if len({each.get("prune_rate") for each in flats}) > 1:
        paths = [*paths, "prune_rate"]
    names = short_names(paths)
    table = _table([names[path] for path in paths], "runs")
    for settings, members in list(zip(flats, groups.values(), strict=True))[:MOST_LINES]:
        table.add_row(
            *(Text(shown(settings.get(path))) for path in paths),
            str(len(members)),
            _weights(members[0]),
            _time(members),
            _state(members),
        )
    if len(groups) > MOST_LINES:
        table.caption = Text(f"... and {len(groups) - MOST_LINES} more combinations of settings")
    return table


def _table(texts: list[str], *counts: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption_justify="left")
    for name in texts:
        table.add_column(Text(name), no_wrap=True, overflow="fold")
    for name in (*counts, "weights", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", overflow="fold")
    return table


def _weights(run: Planned) -> str:
    return "-" if run.weights is None else f"{run.weights:,}"


def _time(members: Sequence[Planned]) -> str:
    """Of those that would run, one after the other; "-" where that of one is not known, or none would run."""
    left = [run.seconds for run in members if run.runs]
    told = [each for each in left if each is not None]
    return clock(sum(told)) if told and len(told) == len(left) else "-"


def _state(members: Sequence[Planned]) -> str:
    return members[0].state + " (again)" * members[0].again if len(members) == 1 else _states(members)


def _states(runs: Sequence[Planned]) -> str:
    states = Counter(run.state for run in runs)
    said = ", ".join(f"{states[state]} {state}" for state in ORDER if states[state])
    return said + (" (force=true: all run again)" if any(run.again for run in runs) else "")


def clock(seconds: float) -> str:
    """1:05 is a minute and five seconds, 2:01:05 two hours more; below a minute with a tenth, as 4.2 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
