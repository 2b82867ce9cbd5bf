"""hydra/sweeper=optuna: Hydra's Optuna sweeper with our objective, and a summary at the end.

Hydra's own (the package hydra-optuna-sweeper) minimizes by default, ends at the first job that fails, writes its best
value to a log only, and does not check that there are validation images.
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

from hidden_subnet.config.identity import folder_name
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.store.files import folder_of
from hidden_subnet.trackers.wandb_environment import notices
from hydra_plugins.hidden_subnet.compose import Composer
from hydra_plugins.hidden_subnet.grid_sweeper import call_multirun_end, launch_jobs


@dataclass
class OptunaStudyConfig:
    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "tpe"}])
    _target_: str = "hydra_plugins.hidden_subnet.optuna_study.OptunaStudy"
    sampler: Any = MISSING
    """The group hydra/sweeper/sampler: tpe, random, grid, cmaes, ..."""
    direction: str = "maximize"
    storage: str | None = None
    """A database, as in sqlite:///study.db; with it and `study_name` an earlier study is continued."""
    study_name: str | None = None
    n_trials: int = 20
    n_jobs: int = 2
    """Number of trials that are chosen, and run, at the same time."""
    max_failure_rate: float = 1.0
    """The study ends if a larger fraction of a batch of trials failed."""
    params: dict[str, str] = field(default_factory=dict)


def take_over() -> None:
    """Register our config under the plugin's name. After Hydra has found the plugins, since the last one counts."""
    Plugins.instance()
    ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaStudyConfig, provider="hidden_subnet")


class OptunaStudy(Sweeper):  # type: ignore[misc]
    """Wraps Hydra's Optuna sweeper: checks the settings first, and prints the best trial at the end."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        if self.settings["direction"] not in ("maximize", "minimize"):
            typed, right = f"hydra.sweeper.direction={self.settings['direction']}", "hydra.sweeper.direction=maximize"
            raise ConfigError(problem(typed, "must be maximize or minimize", right))
        for name, number in (("n_trials", 20), ("n_jobs", 2)):
            if self.settings[name] < 1:
                typed, right = f"hydra.sweeper.{name}={self.settings[name]}", f"hydra.sweeper.{name}={number}"
                raise ConfigError(problem(typed, "must be 1 or more", right, lead="as in"))
        from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import (  # type: ignore[import-untyped,import-not-found]
            OptunaSweeper,
        )

        self.study = OptunaSweeper(**self.settings, search_space=None, custom_search_space=None)
        self.study.setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.context, self.config = hydra_context, config
        choice = config.hydra.runtime.choices["hydra/launcher"]
        self.batches = Batches(
            self.study.sweeper.launcher, choice, Composer(hydra_context, config), self.settings["n_trials"]
        )
        self.study.sweeper.launcher = self.batches

    def sweep(self, arguments: list[str]) -> None:
        given = [f"{key}={value}" for key, value in self.settings["params"].items()]
        batches = self.batches
        batches.searched = _check_corners(batches.composer, [*given, *arguments])
        label = self.settings["study_name"] or "-".join(["optuna", *batches.searched])
        batches.label = re.sub(r"[^A-Za-z0-9._-]", "_", label)  # the name of a folder
        try:
            self.study.sweep(arguments)
        except Exception as error:
            if not batches.started and not isinstance(error, ConfigError):  # e.g. the storage does not exist
                message = " ".join(str(error).split())[:200]
                rule = f"Optuna does not start: {message or type(error).__name__}"
                raise ConfigError(problem(*self._culprit(rule), lead="as in")) from error
            # If every run failed, Optuna raises since there is no best trial; the table shows the failures.
            if isinstance(error, ConfigError) or batches.values():
                raise
        finally:
            code = batches.finish(largest=self.settings["direction"] == "maximize")
            self._report_whole_study()
        if code:
            call_multirun_end(self.context, self.config)
            sys.exit(code)

    def _culprit(self, rule: str) -> tuple[str, str, str]:
        """Return what was typed, the rule and what to type, where Optuna does not start."""
        if storage := self.settings["storage"]:
            return f"hydra.sweeper.storage={storage}", rule, "hydra.sweeper.storage=sqlite:///study.db"
        return "hydra/sweeper=optuna", rule, "hydra/sweeper/sampler=tpe"

    def _report_whole_study(self) -> None:
        """Print the best trial of a stored study to which earlier commands have added trials too."""
        import optuna  # type: ignore[import-not-found,unused-ignore]

        name, storage, here = self.settings["study_name"], self.settings["storage"], len(self.batches.trials)
        if not (name and storage and here):
            return
        trials = optuna.load_study(study_name=name, storage=storage).trials
        done = [(trial.value, trial.params) for trial in trials if trial.value is not None]
        if len(trials) == here or not done:
            return
        choose = max if self.settings["direction"] == "maximize" else min
        value, params = choose(done, key=lambda trial: trial[0])
        print(
            f"best of all {len(trials)} trials of the study {name}, {here} of them by this command: validation "
            f"accuracy {100 * value:.2f} %, with {' '.join(f'{key}={chosen}' for key, chosen in params.items())}"
        )


@dataclass(frozen=True)
class Trial:
    """One run of the study."""

    config: Config
    values: str
    """The chosen values, as typed."""
    value: float | None
    """Its objective; None if it failed."""


class Batches(Launcher):  # type: ignore[misc]
    """Passes each batch of trials to the launcher that the user chose, and keeps the results."""

    def __init__(self, launcher: Launcher, choice: str, composer: Composer, planned: int) -> None:
        self.launcher, self.choice, self.composer, self.planned = launcher, choice, composer, planned
        self.searched: list[str] = []
        self.label = "optuna"
        self.trials: list[Trial] = []
        self.started = False

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Nothing to do: the inner launcher is set up already."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run one batch of trials."""
        # Imported here: Hydra executes the plugins' modules a second time and uses the later classes.
        from hydra_plugins.hidden_subnet.local_launcher import LocalLauncher

        configs = [self.composer.compose(overrides) for overrides in job_overrides]
        for line in [] if self.started else notices(configs[0], sweep=True):
            print(line)
        self.started = True
        chosen = [[line for line in each if line.partition("=")[0] in self.searched] for each in job_overrides]
        for number, lines in enumerate(chosen, initial_job_idx + 1):
            print(f"trial {number} of {self.planned}: {' '.join(lines)}", flush=True)
        if isinstance(self.launcher, LocalLauncher):
            self.launcher.label, self.launcher.report = self.label, False
            returns = self.launcher.launch(job_overrides, initial_job_idx)
        else:
            returns = launch_jobs(self.launcher, self.choice, job_overrides, configs, self.label, initial_job_idx)
        for config, lines, returned in zip(configs, chosen, returns, strict=True):
            value = returned.return_value if returned.status is JobStatus.COMPLETED else None
            self.trials.append(Trial(config, " ".join(lines), value))
        return returns

    def values(self) -> list[float]:
        """Objectives of the trials that did not fail."""
        return [trial.value for trial in self.trials if trial.value is not None]

    def finish(self, largest: bool) -> int:
        """Print the table of all runs and the best trial. Returns the exit code.

        largest: whether a larger objective is better.
        """
        if not self.trials:
            return 1
        from hidden_subnet.cli.sweep import finish_jobs

        distinct = {folder_name(trial.config): trial.config for trial in self.trials}
        code = finish_jobs(list(distinct.values()), self.label)
        values = self.values()
        failed = f", {len(self.trials) - len(values)} of which failed" if len(values) < len(self.trials) else ""
        count = f"{len(self.trials)} trials{failed}"
        if values:
            best = (max if largest else min)(values)
            trial = next(trial for trial in self.trials if trial.value == best)
            print(
                f"best of this command's {count}: validation accuracy {100 * best:.2f} % after the last epoch, "
                f"with {trial.values}\n  {folder_of(trial.config)}"
            )
        else:
            print(f"{count}: there is no best trial")
        return code


def _check_corners(composer: Composer, lines: list[str]) -> list[str]:
    """Compose every value that may be chosen, both ends of an interval, to find errors before the first run.

    Returns the settings that are searched. Raises ConfigError.
    """
    axes = {each.get_key_element(): _candidates(each) for each in OverridesParser.create().parse_overrides(lines)}
    first = {key: values[0] for key, values in axes.items()}
    searched = [key for key, values in axes.items() if len(values) > 1]
    for key in searched or [next(iter(axes), "")]:
        for value in axes.get(key, [""]):
            config = composer.compose([line for line in {**first, key: value}.values() if line])
            if config.data.validation == 0:
                rule = "hydra/sweeper=optuna maximizes the accuracy on validation images, and none are held out"
                raise ConfigError(problem("data.validation=0", rule, "data.validation=0.1", lead="as in"))
            if config.plan:
                rule = "Optuna chooses values by the results before, so there is no plan"
                raise ConfigError(problem("plan=true", rule, "plan=false"))
    if not searched:
        rule = "has nothing to search, as no setting has a range of values"
        raise ConfigError(problem("hydra/sweeper=optuna", rule, "prune_rate=interval(0.1,0.9)", lead="as in"))
    return searched


def _candidates(override: Override) -> list[str]:
    key, value = override.get_key_element(), override.value()
    if not override.is_sweep_override():
        return [override.input_line or f"{key}={override.get_value_element_as_str()}"]
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}", f"{key}={value.end}"]
    values = [f"{key}={each}" for each in override.sweep_string_iterator()]
    # Hydra's range excludes its stop, Optuna's may include it.
    return [*values, f"{key}={value.stop}"] if isinstance(value, RangeSweep) else values
