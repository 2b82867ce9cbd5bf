"""hydra/sweeper=optuna: Hydra's Optuna sweeper with our objective, and an end in words.

Hydra's own (the package hydra-optuna-sweeper) minimises unless told otherwise, ends at the first job that fails, tells
its best value to a log, and knows nothing of a run without validation images.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import MISSING, DictConfig

from hidden_subnet.check import ConfigError
from hidden_subnet.identity import folder_name
from hidden_subnet.record import folder_of
from hidden_subnet.settings import Config
from hydra_plugins.hidden_subnet.compose import Composer
from hydra_plugins.hidden_subnet.grid_sweeper import launch_jobs
from hydra_plugins.hidden_subnet.secrets import refuse_secrets_in


@dataclass
class OptunaStudyConfig:
    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "tpe"}])
    _target_: str = "hydra_plugins.hidden_subnet.optuna_study.OptunaStudy"
    sampler: Any = MISSING
    """The group hydra/sweeper/sampler: tpe, random, grid, cmaes, ..."""
    direction: str = "maximize"
    storage: str | None = None
    """As in sqlite:///study.db; with it and `study_name` a study goes on."""
    study_name: str | None = None
    n_trials: int = 20
    n_jobs: int = 2
    """Trials that are chosen, and run, at a time."""
    max_failure_rate: float = 1.0
    """Of the trials of a batch: more of them failed end the study."""
    params: dict[str, str] | None = None


def take_over() -> None:
    """Store our config under the plugin's name; after Hydra has found the plugins, since the last one counts."""
    Plugins.instance()
    ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaStudyConfig, provider="hidden_subnet")


class OptunaStudy(Sweeper):  # type: ignore[misc]
    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        refuse_secrets_in(config)
        if self.settings["direction"] not in ("maximize", "minimize"):
            raise ConfigError(f"hydra.sweeper.direction={self.settings['direction']}: must be maximize or minimize")
        for name in ("n_trials", "n_jobs"):
            if self.settings[name] < 1:
                raise ConfigError(f"hydra.sweeper.{name}={self.settings[name]}: must be 1 or more")
        if config.grids:
            raise ConfigError(
                f"sweep={config.hydra.runtime.choices.sweep}: the combinations of a preset are for hydra/sweeper=grid; "
                "give Optuna what to search, as in 'prune_rate=interval(0.1,0.9)'"
            )
        from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import (  # type: ignore[import-untyped,import-not-found]
            OptunaSweeper,
        )

        self.study = OptunaSweeper(**self.settings, search_space=None, custom_search_space=None)
        self.study.setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.batches = Batches(self.study.sweeper.launcher, Composer(hydra_context, config), self.settings["n_trials"])
        self.study.sweeper.launcher = self.batches

    def sweep(self, arguments: list[str]) -> None:
        given = [f"{key}={value}" for key, value in (self.settings["params"] or {}).items()]
        batches = self.batches
        batches.searched = _check_corners(batches.composer, [*given, *arguments])
        label = self.settings["study_name"] or "-".join(["optuna", *batches.searched])
        batches.label = re.sub(r"[^A-Za-z0-9._-]", "_", label)  # it names a folder
        try:
            self.study.sweep(arguments)
        except Exception as error:
            if not batches.started and not isinstance(error, ConfigError):  # as of a storage that is not there
                said = " ".join(str(error).split())[:200]
                raise ConfigError(
                    f"hydra/sweeper=optuna: Optuna does not start: {said or type(error).__name__}"
                ) from error
            # Without any value Optuna has no best trial to speak of, and raises: every run failed, as the table says.
            if isinstance(error, ConfigError) or batches.values():
                raise
        finally:
            code = batches.finish(largest=self.settings["direction"] == "maximize")
        if code:
            sys.exit(code)


@dataclass(frozen=True)
class Trial:
    config: Config
    said: str
    """The values that were chosen, as typed."""
    value: float | None


class Batches(Launcher):  # type: ignore[misc]
    """Hands each batch of trials to the launcher that the user chose, and keeps what came out."""

    def __init__(self, launcher: Launcher, composer: Composer, planned: int) -> None:
        self.launcher, self.composer, self.planned = launcher, composer, planned
        self.searched: list[str] = []
        self.label = "optuna"
        self.trials: list[Trial] = []
        self.started = False

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """The launcher within is set up already."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        # Imported here: Hydra's search for plugins executes their modules a second time, and the class that it
        # instantiates is the later one.
        from hydra_plugins.hidden_subnet.local_launcher import LocalLauncher

        self.started = True
        configs = [self.composer.compose(overrides) for overrides in job_overrides]
        chosen = [[line for line in each if line.partition("=")[0] in self.searched] for each in job_overrides]
        for number, lines in enumerate(chosen, initial_job_idx + 1):
            print(f"trial {number} of {self.planned}: {' '.join(lines)}", flush=True)
        if isinstance(self.launcher, LocalLauncher):
            self.launcher.label, self.launcher.report = self.label, False
            returns = self.launcher.launch(job_overrides, initial_job_idx)
        else:
            returns = launch_jobs(self.launcher, job_overrides, configs, self.label, initial_job_idx)
        for config, lines, said in zip(configs, chosen, returns, strict=True):
            value = said.return_value if said.status is JobStatus.COMPLETED else None
            self.trials.append(Trial(config, " ".join(lines), value))
        return returns

    def values(self) -> list[float]:
        return [trial.value for trial in self.trials if trial.value is not None]

    def finish(self, largest: bool) -> int:
        """One table of all runs, and the best of them; the exit code."""
        if not self.trials:
            return 1
        from hidden_subnet.sweep.sweep import finish_jobs

        distinct = {folder_name(trial.config): trial.config for trial in self.trials}
        code = finish_jobs(list(distinct.values()), self.label)
        values = self.values()
        failed = f", {len(self.trials) - len(values)} of which failed" if len(values) < len(self.trials) else ""
        count = f"{len(self.trials)} trials{failed}"
        if values:
            best = (max if largest else min)(values)
            trial = next(trial for trial in self.trials if trial.value == best)
            print(
                f"best of {count}: validation accuracy {100 * best:.2f} % after the last epoch, with {trial.said}\n"
                f"  {folder_of(trial.config)}"
            )
        else:
            print(f"{count}: there is no best")
        return code


def _check_corners(composer: Composer, lines: list[str]) -> list[str]:
    """Compose every value that may be tried, of an interval both ends; returns the settings that are searched."""
    axes = {each.get_key_element(): _tried(each) for each in OverridesParser.create().parse_overrides(lines)}
    first = {key: values[0] for key, values in axes.items()}
    searched = [key for key, values in axes.items() if len(values) > 1]
    for key in searched or [next(iter(axes), "")]:
        for value in axes.get(key, [""]):
            config = composer.compose([line for line in {**first, key: value}.values() if line])
            if config.data.validation == 0:
                raise ConfigError(
                    "data.validation=0: hydra/sweeper=optuna maximises the accuracy on validation images, and there "
                    "are none; hold some out, as in data.validation=0.1"
                )
            if config.plan:
                raise ConfigError("plan=true: what Optuna tries depends on what came out before, so there is no plan")
    if not searched:
        raise ConfigError(
            "hydra/sweeper=optuna has nothing to search; give values as in 'prune_rate=interval(0.1,0.9)'"
        )
    return searched


def _tried(override: Override) -> list[str]:
    key, value = override.get_key_element(), override.value()
    if not override.is_sweep_override():
        return [override.input_line or f"{key}={override.get_value_element_as_str()}"]
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}", f"{key}={value.end}"]
    tried = [f"{key}={each}" for each in override.sweep_string_iterator()]
    # Where Hydra's range ends before its stop, Optuna's may reach it.
    return [*tried, f"{key}={value.stop}"] if isinstance(value, RangeSweep) else tried
