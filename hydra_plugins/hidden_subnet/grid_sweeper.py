"""The default sweeper: combinations of values from the command line and from a preset's list of grids.

Hydra's own sweeper has one cartesian product only, and runs the first jobs before it checks the last. This one expands
a preset's grids (a union of products), in which the command line takes precedence, drops duplicates, checks every job
before any starts, and prints a table and writes a figure at the end.
"""

import itertools
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, ListConfig, OmegaConf

from hidden_subnet.config.convert import names_in
from hidden_subnet.config.identity import name_of, projections
from hidden_subnet.config.registries import ALLOCATIONS, METHODS, MODELS
from hidden_subnet.config.settings import Config, OnError
from hidden_subnet.config.unused import unused_lines
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.store.former_code import changed_lines
from hidden_subnet.trackers import first_lines
from hydra_plugins.hidden_subnet.compose import Composer
from hydra_plugins.hidden_subnet.duplicate_runs import duplicate_runs
from hydra_plugins.hidden_subnet.errors import problem_of
from hydra_plugins.hidden_subnet.hydra_settings import require_sbatch
from hydra_plugins.hidden_subnet.hydra_versions import SINCE_1_4
from hydra_plugins.hidden_subnet.options import refuse_names


@dataclass
class GridSweeperConfig:
    _target_: str = "hydra_plugins.hidden_subnet.grid_sweeper.GridSweeper"
    params: dict[str, str] = field(default_factory=dict)
    """Settings and their values, as typed; those on the command line take precedence."""


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridSweeperConfig, provider="hidden_subnet")


class GridSweeper(Sweeper):  # type: ignore[misc]
    """Composes all jobs and hands them to the launcher; see this file's docstring."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context = hydra_context
        self.config = config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        try:
            return self._sweep(arguments)
        except SystemExit as end:
            if end.code != 130:
                call_multirun_end(self.context, self.config)
            raise

    def _sweep(self, arguments: list[str]) -> Any:
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        arguments = with_params(parser, self.params, arguments)
        default = {group: self.config.hydra.runtime.choices[group] for group in ("method", "model", "pruning")}
        jobs = expand(parser, arguments, grids(self.config), default)
        if not jobs:
            raise ConfigError(_nothing_to_run(parser, arguments))
        composer = Composer(self.context, self.config)
        composed: list[Config] = []
        for job in jobs:
            try:
                config = composer.compose(job)
            except ConfigError:
                for problem in filter(
                    None, (problem_of(word, ["-m", *arguments], missing=False) for word in arguments)
                ):
                    raise ConfigError(problem) from None  # as it was typed, and not as this job has it
                raise
            composed.append(config)
            if config.out != composed[0].out:
                raise ConfigError(f"out={config.out}: a sweep writes to one folder; as in: out=runs")
        configs: dict[str, Config] = {}
        by_run: dict[str, list[Config]] = {}
        overrides: list[Sequence[str]] = []
        for job, config, what in zip(jobs, composed, projections(composed), strict=True):
            name = name_of(config, what)
            by_run.setdefault(name, []).append(config)
            if name not in configs:
                configs[name] = config
                overrides.append(job)
        runs = list(configs.values())
        for line in [*duplicate_runs(by_run.values()), *unused_lines(runs, arguments), *changed_lines(runs)]:
            print(line)
        label = self.config.hydra.runtime.choices.get("sweep") or "-".join(_varying(jobs)) or "sweep"
        # Imported here: Hydra executes the plugins' modules a second time and uses the later classes.
        from hydra_plugins.hidden_subnet.local_launcher import LocalLauncher

        if any(config.plan for config in configs.values()):
            from hidden_subnet.report.plan import print_plan

            ours = isinstance(self.launcher, LocalLauncher)
            print_plan(runs, *((self.launcher.at_a_time(runs), self.launcher.described) if ours else ()))
            return []
        for line in first_lines(next(iter(configs.values())), sweep=True):
            print(line)
        if isinstance(self.launcher, LocalLauncher):
            return self.launcher.execute(list(configs.values()), overrides, label)
        from hidden_subnet.cli.sweep import finish_jobs

        try:
            choice = self.config.hydra.runtime.choices["hydra/launcher"]
            returns = launch_jobs(self.launcher, choice, overrides, list(configs.values()), label)
        except SystemExit as stopped:  # Ctrl-C: table and results.csv of the finished runs
            if stopped.code == 130:
                finish_jobs(list(configs.values()), label)
            raise
        if code := finish_jobs(list(configs.values()), label):
            sys.exit(code)
        return returns


def call_multirun_end(context: HydraContext, config: DictConfig) -> None:
    """Call the callbacks' on_multirun_end where some runs failed; Hydra 1.3 calls it only where a sweep returns."""
    if not SINCE_1_4:
        context.callbacks.on_multirun_end(config=config, config_name=config.hydra.job.config_name)


def launch_jobs(
    launcher: Launcher,
    choice: str,
    overrides: Sequence[Sequence[str]],
    configs: list[Config],
    label: str,
    first: int = 0,
) -> Sequence[JobReturn]:
    """Run the jobs by one of Hydra's own launchers, hydra/launcher=`choice`, which get overrides and not configs.

    overrides, configs: one per job, in the same order. first: number of the first job.
    """
    if choice != "basic" and any(config.code is not None for config in configs):
        raise ConfigError(
            f"hydra/launcher={choice}: starts processes that do not import your own parts, which hydra/launcher=slurm "
            "does; to run here, type: hydra/launcher=local"
        )
    from hidden_subnet.store import sweeps
    from hidden_subnet.sweep.preflight import preflight
    from hidden_subnet.sweep.slurm import refusals_of_sbatch

    if any(config.on_error is OnError.stop for config in configs):
        raise ConfigError(
            f"on_error=stop: hydra/launcher={choice} starts every run, unlike hydra/launcher=slurm and local; type: "
            "hydra/launcher=local"
        )
    preflight(configs)
    sweep = sweeps.plan(configs, label).folder
    os.environ["HIDDEN_SUBNET_SWEEP"] = sweep.name  # read by their jobs
    if choice.startswith("submitit_"):
        from hidden_subnet.sweep.slurm_array import submitit_folder

        launcher.params["submitit_folder"] = submitit_folder(
            launcher.params["submitit_folder"], Path(configs[0].out), sweep
        )
    if choice == "submitit_slurm":
        require_sbatch(choice)
    with refusals_of_sbatch("the jobs") if choice == "submitit_slurm" else nullcontext():
        returns: Sequence[JobReturn] = launcher.launch(overrides, initial_job_idx=first)
    return returns


def _nothing_to_run(parser: OverridesParser, arguments: list[str]) -> str:
    """Return the line on a sweep of no jobs: one of its settings, as in seed=range(0,0), has no values."""
    parsed = parser.parse_overrides(arguments)
    empty = [each.input_line or "" for each in parsed if not _axis(each)]
    return problem(
        " ".join(empty or arguments), "has no values, so there is nothing to run", "-m", "seed=0,1", lead="as in"
    )


def grids(config: DictConfig) -> list[dict[str, Any]]:
    """Return the preset's grids; one empty grid if there is no preset."""
    found = OmegaConf.to_container(config.grids) if isinstance(config.grids, ListConfig) else []
    assert isinstance(found, list)
    for grid in found:
        if not isinstance(grid, dict):
            raise ConfigError(f"grids: each must map settings to values, not {grid!r}; as in: method: edge_popup")
    return [{str(key): value for key, value in grid.items()} for grid in found] or [{}]


def with_params(parser: OverridesParser, params: dict[str, str], arguments: list[str]) -> list[str]:
    """Return hydra.sweeper.params as arguments, and then those of the command line, which replaces equal settings."""
    given = {override.get_key_element() for override in parser.parse_overrides(arguments)}
    return [*(f"{key}={value}" for key, value in params.items() if key not in given), *arguments]


def expand(
    parser: OverridesParser,
    arguments: list[str],
    preset: list[dict[str, Any]],
    default: Mapping[str, str] | None = None,
) -> list[list[str]]:
    """Return the overrides of each job: for each grid of the preset, the product of the values of its settings.

    A setting in `arguments` (the command line) replaces that of a grid. An option of a method (method.penalty) goes to
    the jobs whose method has it, that of a network (model.hidden) likewise. `default`: method and network of jobs that
    choose none. Raises ConfigError.
    """
    given = parser.parse_overrides(arguments)
    for override in given:
        if override.get_key_element() == "sweep" and override.is_sweep_override():
            first = next(override.sweep_string_iterator())
            raise ConfigError(problem(override.input_line, "only one preset at a time", f"sweep={first}"))
    named = {name for grid in preset for name in names_in(grid)}
    keys = {override.get_key_element().lstrip("+~") for override in given}
    jobs: dict[tuple[str, ...], None] = {}
    for grid in preset:
        axes: list[list[tuple[str, ...]]] = []
        for key, value in grid.items():
            if re.match(r"(hydra|sweep)\b", key):
                first = f"{key}={_value(next(iter(_values(value)), None))}"
                raise ConfigError(
                    problem(f"grids: {key}", "is not a setting of a run; to be given on the command line", first)
                )
            if "," in key:
                axes.append(_tied(key, value, keys))
            # If the command line chooses the method, the settings of the preset's method are dropped.
            elif key not in keys and not (key.startswith("method.") and "method" in keys):
                axes.append([(line,) for each in _values(value) for line in _lines(parser, key, each)])
        refuse_names(line for axis in axes for row in axis for line in row)
        for override in given:
            key = override.get_key_element()
            # A method's setting is applied to the grids that name it; the methods of the others do not have it.
            if not key.startswith("method.") or key not in named or key in names_in(grid):
                axes.append([(line,) for line in _axis(override)])
        jobs |= dict.fromkeys(tuple(itertools.chain(*rows)) for rows in itertools.product(*axes))
    parts: Collection[tuple[str, ...]] = jobs
    methods = {name: _names_in(method.settings) for name, method in METHODS.items()}
    models = {name: _names_in(entry.settings) for name, entry in MODELS.items()}
    budgets = {name: _names_in(entry.settings) for name, entry in ALLOCATIONS.items()}
    for group, has in (("method", methods), ("model", models), ("pruning", budgets)):
        parts = [*_without_options_of_others(parts, keys, group, has, (default or {}).get(group))]
    return [list(job) for job in dict.fromkeys(parts)]


def _without_options_of_others(
    jobs: Collection[tuple[str, ...]], given: set[str], group: str, has: Mapping[str, set[str]], default: str | None
) -> Iterator[tuple[str, ...]]:
    """Yield the jobs without those of the options `given` on the command line that their method does not have.

    group: method, or model; has: the names of the settings of each. An option that none of the sweep's has stays, and
    so do those of a method of the user's own yaml (method=mine): composing refuses what is wrong.
    """
    start = f"{group}="
    chosen = [next((line.removeprefix(start) for line in job if line.startswith(start)), default or "") for job in jobs]
    owners = {
        option: names
        for option in given
        if option.startswith(f"{group}.")
        for names in [{name for name in chosen if name in has and option.split(".")[1] in has[name]}]
        if names
    }
    for job, name in zip(jobs, chosen, strict=True):
        dropped = {option for option, names in owners.items() if name in has and name not in names}
        yield tuple(line for line in job if line.partition("=")[0] not in dropped) if dropped else job


def _names_in(settings: type[Any]) -> set[str]:
    return {field.name for field in fields(settings)}


def _tied(key: str, rows: Any, given: set[str]) -> list[tuple[str, ...]]:
    """Return the overrides of each row of tied settings, without those in `given`, the command line's."""
    names = [name.strip() for name in key.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise ConfigError(f"grids: {key!r}: needs different names, separated by commas; as in: 'model.width, seed'")
    if not isinstance(rows, list) or any(not isinstance(row, list) or len(row) != len(names) for row in rows):
        raise ConfigError(
            f"grids: {key}: must be a list of rows with one value for each of the {len(names)} settings, not {rows!r}; "
            "as in: 'model.width, prune_rate: [[0.5, 0.1], [1, 0.3]]'"
        )
    return [
        tuple(f"{name}={_value(value)}" for name, value in zip(names, row, strict=True) if name not in given)
        for row in rows
    ]


def _values(value: Any) -> list[Any]:
    """In a preset, a list means several values of the setting."""
    return value if isinstance(value, list) else [value]


def _lines(parser: OverridesParser, key: str, value: Any) -> list[str]:
    """Return the overrides for one value of a preset, which may itself stand for several: range(0,5)."""
    line = f"{key}={_value(value)}"
    # Other types need no parsing, which would take a minute for thousands of values.
    return _axis(*parser.parse_overrides([line])) if isinstance(value, str) else [line]


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _axis(override: Override) -> list[str]:
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [override.input_line or f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{override.input_line}: an interval is for a search (hydra/sweeper=optuna), a sweep has a list of values, "
            f"as in: -m '{key}=range(0.1,1.0,0.2)'"
        )
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _varying(jobs: list[list[str]]) -> list[str]:
    """Return the settings whose values differ between jobs; the sweep is named after them."""
    keys = dict.fromkeys(line.split("=")[0] for job in jobs for line in job)
    values = {key: {line for job in jobs for line in job if line.startswith(f"{key}=")} for key in keys}
    return [key.replace("/", "_") for key in keys if len(values[key]) > 1]
