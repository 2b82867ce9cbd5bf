"""`plan=true`: what a command would run and how long it may take. Runs nothing and writes nothing."""

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from hidden_subnet.config.chains import chained
from hidden_subnet.config.differences import described, flat, short_names, shown, varying
from hidden_subnet.config.identity import projection, settings_in_use
from hidden_subnet.config.registries import info_of, model_entry
from hidden_subnet.config.settings import Config, Structure
from hidden_subnet.store import claims, files, folders, liveness
from hidden_subnet.store.read import dig, number
from hidden_subnet.sweep.console import added_line, clock, count, make_console, say
from hidden_subnet.sweep.execute import missing_before
from hidden_subnet.sweep.progress import RunTimes, makespan

MAX_RUNS = 30
"""With more runs, one line per combination of settings is printed, over its seeds."""
MAX_LINES = 60
ORDER = ("done", "running", "stopped", "failed", "lost", "interrupted", "to do")


@dataclass(frozen=True)
class PlannedRun:
    """A run of the command, and what it would take."""

    folder: Path
    config: Config
    projection: dict[str, Any]
    state: str
    """One of ORDER."""
    again: bool
    """force=true: it runs even if it is done."""
    weights: int | None
    """None for a network of torchvision, which would have to be built."""
    seconds: float | None
    """Estimated seconds until it is done; None if nothing tells."""
    is_similar: bool = True
    """Whether `seconds` are those of similar finished runs, not of a few steps."""

    depth: int = 0
    """Number of runs before it in its chain, the last of which stands above it."""

    @property
    def runs(self) -> bool:
        """Whether the command would execute it."""
        return self.again or self.state not in ("done", "running", "stopped")


def print_plan(
    configs: Sequence[Config],
    at_a_time: int = 1,
    described: Callable[[int], str] = lambda tasks: "",
    *,
    single: bool = False,
) -> None:
    """Print the runs of one sweep (or one run) with their states, weights and times.

    at_a_time: runs that the launcher would execute at a time. described: its line on what would execute them, by their
    number; "" where there is nothing to say. single: one run without a sweep, which executes only what it needs of its
    chain.
    """
    links = chained(configs)
    if single:
        needed = [*missing_before(configs[0]), configs[0]]
        links = [link for link in links if link.config in needed]
    added, configs = len(links) - len(configs), [link.config for link in links]
    if named := [config for config in configs if _names_layers(config)]:
        from hidden_subnet.sweep.preflight import refuse_wrong_allocations, refuse_wrong_augmentation  # loads torch

        refuse_wrong_allocations(named, [info_of(config.data) for config in named])
        refuse_wrong_augmentation(named)
    console = make_console()
    out = Path(os.path.abspath(configs[0].out))
    runs = [replace(run, depth=link.depth) for run, link in zip(planned(configs), links, strict=True)]
    elsewhere = described(min(at_a_time, sum(run.runs for run in runs)))
    if not elsewhere:
        runs = _with_estimates(configs, runs, at_a_time)
    say(console, f"plan: {count(len(runs), 'run')} in {out}: {_states(runs)}")
    if added:
        say(console, added_line(added))
    console.print(_each(runs) if len(runs) <= MAX_RUNS else _combinations(runs))
    todo = [run for run in runs if run.runs]
    condition = "if Slurm starts them all at once" if elsewhere else ""
    for line in [*_times(todo, at_a_time, _longest_chain(runs), condition), elsewhere]:
        if line:
            say(console, line)
    console.print("nothing was run; the same command without plan=true runs it", highlight=False)


def _names_layers(config: Config) -> bool:
    """Return whether the settings must suit the layers or the images, which only a look at these tells."""
    pruning = config.pruning
    return bool(pruning.rates or config.data.augment) or pruning.structure is not Structure.weight


def planned(configs: Sequence[Config]) -> list[PlannedRun]:
    """Return each run's state and its estimated time."""
    out = Path(os.path.abspath(configs[0].out))
    probe, known = liveness.LivenessProbe(out, glance=True), finished(out)
    found = []
    for config in configs:
        folder, what = files.folder_of(config), projection(config)
        state = claims.run_status(folder, probe).state
        state = "to do" if state == "queued" else state
        whole = known.estimate(what)
        if whole is not None and state in ("stopped", "failed", "lost", "interrupted") and not config.force:
            whole *= 1 - _epochs_done(folder) / config.train.epochs
        state = "to do" if state == "stopped" and config.resume_stopped else state
        found.append(PlannedRun(folder, config, what, state, config.force, weights(config), whole))
    return found


def _with_estimates(configs: Sequence[Config], runs: list[PlannedRun], at_a_time: int) -> list[PlannedRun]:
    """Give the runs without similar finished ones the time that a few steps on this machine tell."""
    unknown = [index for index, run in enumerate(runs) if run.runs and run.seconds is None]
    if not unknown:
        return runs
    from hidden_subnet.report.estimate import estimates
    from hidden_subnet.training.devices import cores

    threads = max(1, cores() // min(at_a_time, len(unknown)))
    found = list(runs)
    for index, seconds in zip(unknown, estimates([configs[index] for index in unknown], threads), strict=True):
        found[index] = replace(runs[index], seconds=seconds, is_similar=False)
    return found


def weights(config: Config) -> int | None:
    """Return the number of conv and linear weights; None where only building the network tells."""
    entry = model_entry(config.model)
    return None if entry is None else entry.weights(config.model, info_of(config.data))


def finished(out: Path) -> RunTimes:
    """Return the seconds of the finished runs in `out`."""
    known = RunTimes()
    for name in os.listdir(out) if out.is_dir() else []:
        try:
            result = folders.read_json(out / name / files.RESULT)
        except (OSError, ValueError):
            continue  # not done, or damaged
        seconds, what = number(dig(result, "seconds")), dig(result, "projection")
        if seconds is not None and isinstance(what, dict):
            known.add(what, seconds)
    return known


def _epochs_done(folder: Path) -> int:
    try:
        return int(number(files.last_row(files.working(folder)).get("epoch")) or 0)
    except OSError:
        return 0


def _longest_chain(runs: Sequence[PlannedRun]) -> float:
    """Return the seconds of the chain that takes longest, whose runs are executed one after the other."""
    until: list[float] = []
    longest = 0.0
    for run in runs:
        before = until[run.depth - 1] if run.depth else 0.0
        until[run.depth :] = [before + ((run.seconds or 0.0) if run.runs else 0.0)]
        longest = max(longest, until[-1])
    return longest


def _times(todo: list[PlannedRun], at_a_time: int, least: float, condition: str = "") -> list[str]:
    if not todo:
        return []
    known = [run.seconds for run in todo if run.seconds is not None]
    if not known:
        return [f"{count(len(todo), 'run')} to execute; there is no similar finished run to estimate the time from"]
    workers = sorted({1, min(at_a_time, len(todo))})
    rest = f" ({len(todo) - len(known)} more without an estimate)" if len(known) < len(todo) else ""
    spans = ", ".join(f"{each} at a time {clock(max(least, makespan(known, each)))}" for each in workers)
    sources = {run.is_similar for run in todo if run.seconds is not None}
    source = " and ".join(["similar finished runs"] * (True in sources) + ["a few steps (~)"] * (False in sources))
    if_so = f" {condition}" * (bool(condition) and len(workers) > 1)
    return [f"{count(len(known), 'run')} to execute{rest}; estimated from {source}: {spans}{if_so}"]


def _each(runs: Sequence[PlannedRun]) -> Table:
    table, names = _table(["run"]), described(runs)
    for run in runs:
        table.add_row(Text("  " * run.depth + names[run.folder.name]), _weights(run), _time([run]), _state([run]))
    return table


def _combinations(runs: Sequence[PlannedRun]) -> Table:
    groups: dict[str, list[PlannedRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps({**run.projection, "seeds": None}, sort_keys=True), []).append(run)
    flats = [flat(members[0].projection) for members in groups.values()]
    paths = varying(flats)
    if len({each.get("prune_rate") for each in flats}) > 1:
        paths = [*paths, "prune_rate"]
    names = short_names(paths)
    table = _table([names[path] for path in paths], "runs")
    for members in list(groups.values())[:MAX_LINES]:
        settings = flat(settings_in_use(members[0].config))
        table.add_row(
            *(Text(shown(settings.get(path))) for path in paths),
            str(len(members)),
            _weights(members[0]),
            _time(members),
            _state(members),
        )
    if len(groups) > MAX_LINES:
        table.caption = Text(f"... and {len(groups) - MAX_LINES} more combinations of settings")
    return table


def _table(texts: list[str], *counts: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption_justify="left")
    for name in texts:
        table.add_column(Text(name), no_wrap=True, overflow="fold")
    for name in (*counts, "weights", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", overflow="fold")
    return table


def _weights(run: PlannedRun) -> str:
    return "-" if run.weights is None else f"{run.weights:,}"


def _time(members: Sequence[PlannedRun]) -> str:
    """Total time of the runs to execute; "-" if the time of one is unknown, or there are none."""
    left = [run.seconds for run in members if run.runs]
    known = [each for each in left if each is not None]
    about = "~" * any(not run.is_similar for run in members if run.runs)
    return about + clock(sum(known)) if known and len(known) == len(left) else "-"


def _state(members: Sequence[PlannedRun]) -> str:
    return members[0].state + " (again)" * members[0].again if len(members) == 1 else _states(members)


def _states(runs: Sequence[PlannedRun]) -> str:
    states = Counter(run.state for run in runs)
    counts = ", ".join(f"{states[state]} {state}" for state in ORDER if states[state])
    return counts + (" (force=true: all run again)" if any(run.again for run in runs) else "")
