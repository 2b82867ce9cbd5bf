"""hydra/sweeper=optuna: a search for the best validation accuracy, by Optuna's study.ask and study.tell.

The study is a file in the folder of the sweep, so that the same command continues a search that was killed. Each trial
is a run like any other: one that is done is not run again, and one that was going when the search died is resumed.
"""

import hashlib
import importlib.metadata
import json
import math
import os
import re
import sys
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import MISSING, DictConfig, OmegaConf

from hidden_subnet.config.identity import folder_name
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.seeding import derive
from hidden_subnet.store import claims, files, folders, provenance, sweeps
from hidden_subnet.store.access import why_exchangeable
from hidden_subnet.trackers import first_lines
from hydra_plugins.hidden_subnet.compose import Composer
from hydra_plugins.hidden_subnet.grid_sweeper import call_multirun_end, launch_jobs, with_params
from hydra_plugins.hidden_subnet.optuna_pruner import check_pruner, make_pruner, pruned
from hydra_plugins.hidden_subnet.optuna_space import combinations, search_space

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

GRID = "grid"
SAMPLERS: dict[str, dict[str, Any]] = {
    "tpe": {"_target_": "optuna.samplers.TPESampler", "seed": None, "n_startup_trials": 10, "multivariate": False},
    "random": {"_target_": "optuna.samplers.RandomSampler", "seed": None},
    "gp": {"_target_": "optuna.samplers.GPSampler", "seed": None, "n_startup_trials": 10},
    "cmaes": {"_target_": "optuna.samplers.CmaEsSampler", "seed": None, "n_startup_trials": 1},
    "nsgaii": {"_target_": "optuna.samplers.NSGAIISampler", "seed": None, "population_size": 50},
    "qmc": {"_target_": "optuna.samplers.QMCSampler", "scramble": False},
    GRID: {"_target_": GRID},
}
"""hydra/sweeper/sampler=<name>: the class, and its settings with Optuna's defaults; any other one is added with a plus,
as in +hydra.sweeper.sampler.n_ei_candidates=50. grid is ours: every combination of the values, in order."""
JOURNAL, RESULTS = "study.journal", "optimization_results.yaml"
OLDEST = (4, 9)


@dataclass
class OptunaStudyConfig:
    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "tpe"}])
    _target_: str = "hydra_plugins.hidden_subnet.optuna_study.OptunaStudy"
    _recursive_: bool = False
    sampler: Any = MISSING
    """The group hydra/sweeper/sampler: the names of SAMPLERS."""
    pruner: str = "none"
    """A name of optuna_pruner.PRUNERS."""
    direction: str = "maximize"
    storage: str | None = None
    """A database, as in sqlite:///study.db; by default a file in the folder of the sweep."""
    study_name: str | None = None
    n_trials: int = 20
    """Number of trials of the whole study; the same command with a larger one adds trials."""
    n_jobs: int = 2
    """Number of trials that are chosen, and run, at the same time."""
    max_failure_rate: float = 1.0
    """The study ends if a larger fraction of a batch of trials failed."""
    params: dict[str, str] = field(default_factory=dict)


def take_over() -> None:
    """Register the sweeper and its samplers. After Hydra has found the plugins, since the last one counts.

    The package hydra-optuna-sweeper, where it is installed, has the same names.
    """
    Plugins.instance()
    store = ConfigStore.instance().store
    store(group="hydra/sweeper", name="optuna", node=OptunaStudyConfig, provider="hidden_subnet")
    for name, settings in SAMPLERS.items():
        store(group="hydra/sweeper/sampler", name=name, node=settings, provider="hidden_subnet")


@dataclass(frozen=True)
class Trial:
    """One trial of the study that has a run in our folder."""

    frozen: Any
    """Optuna's FrozenTrial."""
    values: tuple[str, ...]
    """The chosen values, as typed."""
    overrides: tuple[str, ...]
    config: Config


class OptunaStudy(Sweeper):  # type: ignore[misc]
    """Asks the study for `n_jobs` trials, has the launcher run them, tells their values, and repeats."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        _check(self.settings)
        self.sampler = _sampler(self.settings["sampler"])
        self.context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.composer = Composer(hydra_context, config)

    def sweep(self, arguments: list[str]) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        arguments = with_params(parser, {**self.settings["params"]}, arguments)
        self.fixed, self.axes = search_space(parser, arguments)
        corners = self._check_corners()
        self.label = re.sub(
            r"[^A-Za-z0-9._-]",
            "_",
            self.settings["study_name"] or "-".join(["optuna", *(axis.key for axis in self.axes)]),
        )  # the name of a folder
        self.n_trials = self.settings["n_trials"]
        if self.sampler["_target_"] == GRID:
            self.n_trials = min(self.n_trials, self._size_of_grid())
        self.folder = self._folder(corners)
        self.is_new = not os.path.lexists(self.folder)
        self.study = self._open_study(corners[0])
        # With resume_stopped=true those that were pruned are continued, and none is pruned.
        retried = ("FAIL", "PRUNED") if corners[0].resume_stopped else ("FAIL",)
        self.pruner = "none" if corners[0].resume_stopped else self.settings["pruner"]
        self.study.pruner = make_pruner(self.pruner, max(each.train.epochs for each in corners))
        self.again = self._values_of(retried)
        self.given_up = {each.number for each in self.study.trials if each.state.name in retried}
        self.at_first = {each.number for each in self.study.trials if each.state.is_finished()}
        try:
            self._search()
        finally:
            code = self._report()
        if code:
            call_multirun_end(self.context, self.config)
            sys.exit(code)

    def _search(self) -> None:
        """Run trials until the study has n_trials; first those that were going when an earlier command ended."""
        n_jobs = self.settings["n_jobs"]
        running = [each for each in self.study.trials if each.state.name == "RUNNING"]
        left = [trial for each in running if (trial := self._left_behind(each)) is not None]
        while True:
            batch, left = left[:n_jobs], left[n_jobs:]
            missing = self.n_trials - len(self._counted())
            batch += [self._ask() for _ in range(min(n_jobs - len(batch), missing))]
            if not batch:
                return
            self._run(batch)

    def _counted(self) -> "list[FrozenTrial]":
        """Trials of the study, without those of an earlier command that this one tries again."""
        return [each for each in self.study.trials if each.number not in self.given_up and each.state.name != "WAITING"]

    def _values_of(self, states: tuple[str, ...]) -> list[dict[str, Any]]:
        """Return the values of the trials that ended in these states, without those that are in another trial too."""
        trials = self.study.trials
        fine = [each.params for each in trials if each.state.name not in states]
        again: list[dict[str, Any]] = []
        for each in trials:
            if each.state.name in states and "run" in each.user_attrs and each.params not in [*fine, *again]:
                again.append(each.params)
        return again

    def _ask(self) -> Trial:
        if (seed := self.sampler.get("seed")) is not None:
            # One of its own for each trial: a search that is continued draws what it would have drawn.
            self.study.sampler = _built(self.sampler, derive(seed, len(self.study.trials)) % 2**32)
        if self.again:
            self.study.enqueue_trial(self.again.pop(0))
        elif self.sampler["_target_"] == GRID:
            tried = [each.params for each in self._counted()]
            self.study.enqueue_trial(next(each for each in combinations(self.axes) if each not in tried))
        asked = self.study.ask({axis.key: axis.distribution for axis in self.axes})
        frozen = next(each for each in self.study.trials if each.number == asked.number)
        try:
            trial = self._trial(frozen)
        except ValueError:
            self.study.tell(asked.number, state=_state("FAIL"))
            raise
        asked.set_user_attr("run", self._run_of(trial.config))
        return trial

    def _trial(self, frozen: "FrozenTrial") -> Trial:
        """Compose the run of a trial. Raises ConfigError and DataError."""
        values = tuple(axis.typed(frozen.params[axis.key]) for axis in self.axes)
        overrides = (*self.fixed, *values)
        return Trial(frozen, values, overrides, self.composer.compose(overrides))

    def _left_behind(self, frozen: "FrozenTrial") -> Trial | None:
        """Return a trial that was going when its command ended; None if it had no run yet, or one elsewhere.

        If that command is alive, on this machine or another, the run's claim keeps it from being executed twice.
        """
        run = frozen.user_attrs.get("run")
        if run is None:
            self.study.tell(frozen.number, state=_state("FAIL"), skip_if_finished=True)
            self.given_up.add(frozen.number)
            return None
        trial = self._trial(frozen)
        return trial if self._run_of(trial.config) == run else None

    def _run_of(self, config: Config) -> str:
        """Return how the study names a run; the commands of a user's own storage may have different folders."""
        return folder_name(config) if self.settings["storage"] is None else str(files.folder_of(config).absolute())

    def _run(self, batch: list[Trial]) -> None:
        """Have the launcher run these trials, and tell the study what they came to."""
        # Imported here: Hydra executes the plugins' modules a second time and uses the later classes.
        from hydra_plugins.hidden_subnet.local_launcher import LocalLauncher

        configs, overrides = [trial.config for trial in batch], [trial.overrides for trial in batch]
        place = {each.number: index for index, each in enumerate(self._counted(), 1)}
        for trial in batch:
            number = place[trial.frozen.number]
            print(f"trial {number} of {self.n_trials}: {' '.join(trial.values)}", flush=True)
        self._write_sweep()
        first = batch[0].frozen.number
        watched = {files.folder_of(trial.config): self._handle(trial) for trial in batch}
        with pruned(watched, self.pruner) if self.pruner != "none" else nullcontext():
            if isinstance(self.launcher, LocalLauncher):
                self.launcher.label, self.launcher.report = self.label, False
                returns = self.launcher.launch(overrides, first)
            else:
                choice = self.config.hydra.runtime.choices["hydra/launcher"]
                returns = launch_jobs(self.launcher, choice, overrides, configs, self.label, first)
        failed = 0
        for trial, returned in zip(batch, returns, strict=True):
            value = returned.return_value if returned.status is JobStatus.COMPLETED else None
            stopped = value is None and claims.is_stopped(files.folder_of(trial.config))
            failed += value is None and not stopped
            state = _state("PRUNED" if stopped else "FAIL" if value is None else "COMPLETE")
            self.study.tell(trial.frozen.number, value, state=state, skip_if_finished=True)
        if failed > self.settings["max_failure_rate"] * len(batch):
            typed = f"hydra.sweeper.max_failure_rate={self.settings['max_failure_rate']:g}"
            rule = f"{failed} of {len(batch)} trials that ran together failed, which ends the search; to go on with it"
            raise ConfigError(problem(typed, rule, "hydra.sweeper.max_failure_rate=1"))

    def _handle(self, trial: Trial) -> Any:
        """Return Optuna's trial, to which values of epochs can be reported."""
        from optuna.trial import Trial as OptunaTrial

        return OptunaTrial(self.study, trial.frozen._trial_id)

    def _trials(self) -> list[Trial]:
        """Return the trials whose runs are in our folder; another command of the study may have its own."""
        trials = [self._trial(each) for each in self._counted() if "run" in each.user_attrs]
        return [each for each in trials if self._run_of(each.config) == each.frozen.user_attrs["run"]]

    def _configs(self) -> list[Config]:
        return list({folder_name(trial.config): trial.config for trial in self._trials()}.values())

    def _write_sweep(self) -> None:
        """Write the manifest of the whole search, so that `status` shows it; each batch has its own beside it."""
        planned = replace(sweeps.plan(self._configs(), self.label), folder=self.folder)
        sweeps.write(planned, provenance.of_command())

    def _report(self) -> int:
        """Print the table of all runs and the best trial, and write its values to a file; returns the exit code."""
        from hidden_subnet.cli.sweep import finish_jobs

        configs = self._configs()
        if not any(os.path.isdir(files.folder_of(each)) for each in configs):  # refused before any run
            if self.is_new:
                folders.remove_tree(self.folder, root=self.folder.parents[1])
            return 1
        code = finish_jobs(configs, self.label, self.folder)
        trials = self._counted()
        here = sum(each.number not in self.at_first for each in trials)
        count = f"{len(trials)} trials"
        for state, word in (("FAIL", "failed"), ("PRUNED", "were stopped")):
            if number := sum(each.state.name == state for each in trials):
                count += f", {number} of which {word}"
        done = [each for each in trials if each.state.name == "COMPLETE" and each.value is not None]
        if not done:
            print(f"{count}: there is no best trial")
            return code
        best = (max if self.settings["direction"] == "maximize" else min)(done, key=lambda each: float(each.value or 0))
        value, out = float(best.value or 0), self.folder.parents[1]
        if here < len(trials):
            count += f", {here} of them by this command"
        values = " ".join(axis.typed(best.params[axis.key]) for axis in self.axes)
        print(
            f"best of {count}: validation accuracy {100 * value:.2f} % after the last epoch, with {values}\n"
            f"  {out / best.user_attrs['run']}"
        )
        content = {"name": "optuna", "best_params": dict(best.params), "best_value": value}
        files.write_atomically(out / RESULTS, yaml.safe_dump(content).encode())
        return code

    def _folder(self, corners: list[Config]) -> Path:
        """Return the sweep's folder, named after all that makes the search what it is, but for its length."""
        what = {
            "runs": [folder_name(each) for each in corners],
            "space": [[axis.key, repr(axis.distribution)] for axis in self.axes],
            "sampler": self.sampler,
            "direction": self.settings["direction"],
            "pruner": self.settings["pruner"],
        }
        digest = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()
        return Path(os.path.abspath(corners[0].out)) / sweeps.SWEEPS / f"{self.label[:40]}-{digest[:8]}"

    def _open_study(self, config: Config) -> "Study":
        """Open the study, or make it; raises ConfigError if it cannot be opened.

        With force=true a search in the sweep's folder starts from nothing.
        """
        import optuna

        storage: Any = self.settings["storage"]
        name = self.settings["study_name"] or self.folder.name
        sampler = None if self.sampler["_target_"] == GRID else _built(self.sampler, self.sampler.get("seed"))
        try:
            if storage is None:
                storage = self._journal()
                if config.force and name in optuna.get_all_study_names(storage):
                    optuna.delete_study(study_name=name, storage=storage)
            direction = self.settings["direction"]
            study = optuna.create_study(
                storage=storage, study_name=name, direction=direction, sampler=sampler, load_if_exists=True
            )
        except ConfigError:
            raise
        except Exception as error:  # of Optuna, SQLAlchemy or a driver
            message = " ".join(str(error).split())[:200] or type(error).__name__
            typed = "hydra/sweeper=optuna" if self.settings["storage"] is None else f"hydra.sweeper.storage={storage}"
            rule = f"Optuna does not start: {message}"
            raise ConfigError(problem(typed, rule, "hydra.sweeper.storage=sqlite:///study.db", lead="as in")) from error
        if [each.name.lower() for each in study.directions] != [direction]:
            found = study.direction.name.lower()
            rule = f"the study {name} in {self.settings['storage']} has the direction {found}"
            raise ConfigError(problem(f"hydra.sweeper.direction={direction}", rule, f"hydra.sweeper.direction={found}"))
        return study

    def _journal(self) -> Any:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        out = self.folder.parents[1]
        out.mkdir(parents=True, exist_ok=True)
        for made in (self.folder.parent, self.folder):
            folders.make_folder(made, root=out)
        if self.sampler["_target_"] == SAMPLERS["cmaes"]["_target_"] and (why := why_exchangeable(self.folder)):
            rule = f"its state is a pickle in the study, which runs code, and {why}"
            raise ConfigError(problem("hydra/sweeper/sampler=cmaes", rule, "hydra/sweeper/sampler=tpe", lead="as in"))
        journal = self.folder / JOURNAL
        if not folders.is_file(journal):
            folders.create(journal)
        return JournalStorage(JournalFileBackend(str(journal)))

    def _size_of_grid(self) -> int:
        for axis in self.axes:
            if axis.ends:
                typed = f"{axis.key}=interval({','.join(axis.ends)})"
                rule = "hydra/sweeper/sampler=grid tries every value, of which an interval has too many"
                low, high = map(float, axis.ends)
                words = f"{axis.key}=range({axis.ends[0]},{axis.ends[1]},{(high - low) / 8:g})"
                raise ConfigError(problem(typed, rule, words, lead="as in"))
        return math.prod(len(axis.values) for axis in self.axes)

    def _check_corners(self) -> list[Config]:
        """Compose every value that may be chosen, both ends of an interval, to find errors before the first run.

        Returns the configs. Raises ConfigError.
        """
        first = {axis.key: (axis.values or axis.ends)[0] for axis in self.axes}
        rows = [{**first, axis.key: value} for axis in self.axes for value in axis.values or axis.ends] or [{}]
        configs = []
        for row in rows:
            config = self.composer.compose([*self.fixed, *(f"{key}={value}" for key, value in row.items())])
            if config.data.validation == 0:
                rule = "hydra/sweeper=optuna maximizes the accuracy on validation images, and none are held out"
                raise ConfigError(problem("data.validation=0", rule, "data.validation=0.1", lead="as in"))
            if config.plan:
                rule = "Optuna chooses values by the results before, so there is no plan"
                raise ConfigError(problem("plan=true", rule, "plan=false"))
            configs.append(config)
        if not self.axes:
            rule = "has nothing to search, as no setting has a range of values"
            raise ConfigError(problem("hydra/sweeper=optuna", rule, "prune_rate=interval(0.1,0.9)", lead="as in"))
        for line in first_lines(configs[0], sweep=True):
            print(line)
        return configs


def _check(settings: dict[str, Any]) -> None:
    """Raise ConfigError for settings that are wrong, and where Optuna is not installed, or too old."""
    if settings["direction"] not in ("maximize", "minimize"):
        typed, right = f"hydra.sweeper.direction={settings['direction']}", "hydra.sweeper.direction=maximize"
        raise ConfigError(problem(typed, "must be maximize or minimize", right))
    for name, number in (("n_trials", 20), ("n_jobs", 2)):
        if settings[name] < 1:
            typed, right = f"hydra.sweeper.{name}={settings[name]}", f"hydra.sweeper.{name}={number}"
            raise ConfigError(problem(typed, "must be 1 or more", right, lead="as in"))
    if not 0 <= settings["max_failure_rate"] <= 1:
        typed = f"hydra.sweeper.max_failure_rate={settings['max_failure_rate']:g}"
        raise ConfigError(problem(typed, "must be from 0 to 1", "hydra.sweeper.max_failure_rate=0.5", lead="as in"))
    check_pruner(settings["pruner"])
    try:
        found = importlib.metadata.version("optuna")
    except importlib.metadata.PackageNotFoundError:
        found = ""
    if not found or tuple(map(int, re.findall(r"\d+", found)[:2])) < OLDEST:
        has = f", and {found} is installed" if found else ""
        raise ConfigError(
            f"hydra/sweeper=optuna: needs the package optuna>=4.9{has} (pip install -e '.[optuna]'); type: pip install "
            "'optuna>=4.9'"
        )


def _sampler(chosen: Any) -> dict[str, Any]:
    """Return the settings of the sampler. Raises ConfigError for a name that is none."""
    if isinstance(chosen, DictConfig):
        chosen = OmegaConf.to_container(chosen, resolve=True)
    if isinstance(chosen, str):
        if chosen not in SAMPLERS:
            rule = f"must be one of {', '.join(SAMPLERS)}"
            raise ConfigError(
                problem(f"hydra.sweeper.sampler={chosen}", rule, "hydra/sweeper/sampler=tpe", lead="as in")
            )
        chosen = SAMPLERS[chosen]
    return dict(chosen)


def _built(settings: dict[str, Any], seed: int | None) -> Any:
    """Make Optuna's sampler. Raises ConfigError if it does not take its settings."""
    from hydra.utils import instantiate

    given = {key: value for key, value in settings.items() if value is not None and key != "seed"}
    try:
        return instantiate(given if seed is None else {**given, "seed": seed})
    except Exception as error:
        typed = [f"hydra.sweeper.sampler.{key}={value}" for key, value in given.items() if key != "_target_"]
        message = " ".join(str(error.__cause__ or error).split())[:200]
        raise ConfigError(
            problem(" ".join(typed) or "hydra/sweeper/sampler", message, "hydra/sweeper/sampler=tpe", lead="as in")
        ) from error


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]
