"""The sweeper: combinations of values from the command line and from a preset's list of grids.

Hydra's own sweeper knows one cartesian product and runs the first jobs before it looks at the last. This one expands
a preset's grids (a union of products), lets the command line win in each, drops doubles, checks every job before any
starts, and ends in a table and a figure.
"""

import itertools
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
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

from hidden_subnet.check import ConfigError
from hidden_subnet.config import names_in
from hidden_subnet.identity import folder_name
from hidden_subnet.settings import Config
from hydra_plugins.hidden_subnet.compose import Composer
from hydra_plugins.hidden_subnet.doubles import doubles
from hydra_plugins.hidden_subnet.options import refuse_names
from hydra_plugins.hidden_subnet.secrets import refuse_secrets_in


@dataclass
class GridSweeperConfig:
    _target_: str = "hydra_plugins.hidden_subnet.grid_sweeper.GridSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridSweeperConfig, provider="hidden_subnet")


class GridSweeper(Sweeper):  # type: ignore[misc]
    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        refuse_secrets_in(config)
        self.context = hydra_context
        self.config = config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        jobs = expand(parser, arguments, grids(self.config))
        if not jobs:
            raise ConfigError(f"{' '.join(arguments)}: there is nothing to run; one of the settings has no values")
        composer = Composer(self.context, self.config)
        configs: dict[str, Config] = {}
        alike: dict[str, list[Config]] = {}
        overrides: list[Sequence[str]] = []
        for job in jobs:
            config = composer.compose(job)
            if config.out != next(iter(configs.values()), config).out:
                raise ConfigError(f"out={config.out}: a sweep writes to one folder; give out one value")
            name = folder_name(config)
            alike.setdefault(name, []).append(config)
            if name not in configs:
                configs[name] = config
                overrides.append(job)
        for line in doubles(alike.values()):
            print(line)
        label = self.config.hydra.runtime.choices.get("sweep") or "-".join(_varying(jobs)) or "sweep"
        if any(config.plan for config in configs.values()):
            from hidden_subnet.report.plan import print_plan

            print_plan(list(configs.values()))
            return []
        # Imported here: Hydra's search for plugins executes their modules a second time, and the class that it
        # instantiates is the later one.
        from hydra_plugins.hidden_subnet.local_launcher import LocalLauncher

        if isinstance(self.launcher, LocalLauncher):
            return self.launcher.execute(list(configs.values()), overrides, label)
        from hidden_subnet.sweep.sweep import finish_jobs

        try:
            returns = launch_jobs(self.launcher, overrides, list(configs.values()), label)
        except SystemExit as stopped:  # Ctrl-C: table and results.csv of what there is
            if stopped.code == 130:
                finish_jobs(list(configs.values()), label)
            raise
        if code := finish_jobs(list(configs.values()), label):
            sys.exit(code)
        return returns


def launch_jobs(
    launcher: Launcher, overrides: Sequence[Sequence[str]], configs: list[Config], label: str, first: int = 0
) -> Sequence[JobReturn]:
    """Through one of Hydra's own launchers, which know overrides only."""
    from hidden_subnet.prepare import prepare
    from hidden_subnet.sweep.manifest import sweep_name

    prepare(configs)
    os.environ["HIDDEN_SUBNET_SWEEP"] = sweep_name(label, configs)  # for their jobs
    returns: Sequence[JobReturn] = launcher.launch(overrides, initial_job_idx=first)
    return returns


def grids(config: DictConfig) -> list[dict[str, Any]]:
    """The preset's grids, or one that adds nothing."""
    found = OmegaConf.to_container(config.grids) if isinstance(config.grids, ListConfig) else []
    assert isinstance(found, list)
    for grid in found:
        if not isinstance(grid, dict):
            raise ConfigError(f"grids: each must map settings to values, as in 'method: edge_popup'; got {grid!r}")
    return [{str(key): value for key, value in grid.items()} for grid in found] or [{}]


def expand(parser: OverridesParser, arguments: list[str], preset: list[dict[str, Any]]) -> list[list[str]]:
    """The override list of each job: in every grid the product of its values, where the command line replaces a key."""
    given = parser.parse_overrides(arguments)
    for override in given:
        if override.get_key_element() == "sweep" and override.is_sweep_override():
            raise ConfigError(f"{override.input_line}: one preset at a time; give each a command of its own")
    named = {name for grid in preset for name in names_in(grid)}
    keys = {override.get_key_element().lstrip("+~") for override in given}
    jobs: dict[tuple[str, ...], None] = {}
    for grid in preset:
        axes: list[list[tuple[str, ...]]] = []
        for key, value in grid.items():
            if re.match(r"(hydra|sweep)\b", key):
                raise ConfigError(f"grids: {key}: is no setting of a run; give it on the command line")
            if "," in key:
                axes.append(_tied(key, value, keys))
            # A method that the command line replaces takes its own options with it.
            elif key not in keys and not (key.startswith("method.") and "method" in keys):
                axes.append([(line,) for each in _values(value) for line in _lines(parser, key, each)])
        refuse_names(line for axis in axes for row in axis for line in row)
        for override in given:
            key = override.get_key_element()
            # An option of one method goes to the grids that name it: in the others the method has no such thing.
            if not key.startswith("method.") or key not in named or key in names_in(grid):
                axes.append([(line,) for line in _axis(override)])
        jobs |= dict.fromkeys(tuple(itertools.chain(*rows)) for rows in itertools.product(*axes))
    return [list(job) for job in jobs]


def _tied(key: str, rows: Any, given: set[str]) -> list[tuple[str, ...]]:
    """Settings that move together; one that the command line gives is taken from there in every row."""
    names = [name.strip() for name in key.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise ConfigError(f"grids: {key!r}: needs different names on the two sides of a comma")
    if not isinstance(rows, list) or any(not isinstance(row, list) or len(row) != len(names) for row in rows):
        raise ConfigError(
            f"grids: {key}: must be a list of rows with a value for each of the {len(names)} settings, as in "
            f"'model.width, prune_rate: [[0.5, 0.1], [1, 0.3]]'; got {rows!r}"
        )
    return [
        tuple(f"{name}={_value(value)}" for name, value in zip(names, row, strict=True) if name not in given)
        for row in rows
    ]


def _values(value: Any) -> list[Any]:
    """A list in a preset is a choice of its items."""
    return value if isinstance(value, list) else [value]


def _lines(parser: OverridesParser, key: str, value: Any) -> list[str]:
    """What stands in a preset is what one would type, and so may itself be a choice, as range(0,5) is."""
    line = f"{key}={_value(value)}"
    # Hydra's grammar takes a minute for a list of thousands.
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
            f"{override.input_line}: an interval has no list of values; "
            "give values as in prune_rate=0.1,0.5 or range(0.1,1.0,0.2), or take hydra/sweeper=optuna"
        )
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _varying(jobs: list[list[str]]) -> list[str]:
    """The keys whose values differ among the jobs, for the sweep's name."""
    keys = dict.fromkeys(line.split("=")[0] for job in jobs for line in job)
    values = {key: {line for job in jobs for line in job if line.startswith(f"{key}=")} for key in keys}
    return [key.replace("/", "_") for key in keys if len(values[key]) > 1]
