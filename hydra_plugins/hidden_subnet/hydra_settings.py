"""Settings of Hydra's own config (`hydra.*`): those that would have no effect here are refused, in one line.

docs/configuration.md says of every one of them what it does.
"""

import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobRuntime
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from hidden_subnet.config.differences import flat
from hidden_subnet.config.program import LAUNCH, rank_in_environment
from hidden_subnet.errors import ConfigError, Ended, problem
from hydra_plugins.hidden_subnet.secrets import refuse_secrets_in

_OUT = "results are written to `out`"
FIXED: dict[str, tuple[Any, str, str | None]] = {
    "run.dir": (".", _OUT, "out={value}"),
    "sweep.dir": ("${out}", _OUT, "out={value}"),
    "sweep.subdir": (".", "a run's folder is named after its settings, so that the same command finds it", None),
    "output_subdir": (None, "the folder of a run has its settings (config.yaml) and its command", None),
    "job.chdir": (False, "runs stay in the folder where the command was given", None),
}
"""Settings of Hydra that conf/config.yaml fixes: their value there, why, and what to type instead, if there is any."""
SINGLE = "is for sweeps, and this is a single run"
FILLED_IN = r"\W*hydra\.(overrides|runtime|job\.(id|num|override_dirname|config_name))\b"
"""Settings that Hydra itself fills in while it composes, whatever is given."""
PER_SWEEP = ("launcher", "sweeper", "callbacks", "job.env_set", "job_logging", "hydra_logging", "verbose")
"""Settings that the launcher of a sweep reads once, for all runs."""


class CheckSettings(Callback):  # type: ignore[misc]
    """Refuses settings when Hydra has composed them, before a single run or a sweep starts; ends a run that failed."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        check_hydra(config)

    def on_run_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        # Hydra calls it after all others, and would then print a line of its own above the exception.
        if isinstance(job_return._return_value, Ended):
            sys.exit(job_return._return_value.code)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        check_hydra(config)


CHOICES = {"sweeper": "grid", "launcher": "local", "hydra_logging": "none", "job_logging": "none"}
"""Our defaults in the groups of Hydra's own config."""
ConfigStore.instance().store(
    group="hydra",
    name="config",
    node=HydraConf(
        defaults=[{**each, **{key: CHOICES[key] for key in each if key in CHOICES}} for each in HydraConf().defaults],
        callbacks={"check_settings": {"_target_": "hydra_plugins.hidden_subnet.hydra_settings.CheckSettings"}},
    ),
    provider="hidden_subnet",
)


def check_hydra(config: DictConfig) -> None:
    """Exit with a line if the composed config holds a secret, or sets something of Hydra that has no effect."""
    try:
        refuse_secrets_in(config)
        for line in problems(config):
            raise ConfigError(line)
    except ConfigError as error:  # Hydra only warns of an exception
        sys.exit(f"error: {error}")


def problems(config: DictConfig) -> Iterator[str]:
    """Yield a line for each setting of Hydra that has no effect."""
    hydra, preset = config.hydra, bool(config.grids)
    plain = _plain(hydra)  # unresolved: what is typed may hold ${...}
    typed = plain["overrides"]["hydra"]
    for line in typed:
        if re.match(FILLED_IN, line):
            yield problem(line, "Hydra fills this in itself", *without(config, line))
        if re.match(r"\W*hydra[./]help\b", line):
            rule = "has no effect on --help, whose text is not made by Hydra"
            yield problem(line, rule, *without(config, line))
    if hydra.mode is RunMode.RUN:
        yield from _only_for_sweeps(hydra, typed)
    elif (size := rank_in_environment()[1]) > 1:  # torchrun's processes are the ranks of one run
        rule = "a sweep is one process, and starts those of its runs itself"
        yield problem(f"WORLD_SIZE={size}", rule, *without(config, "train.devices="), f"train.devices={size}")
    values = flat(plain)
    for name, (value, rule, instead) in FIXED.items():
        if values[name] != value:
            words = [instead.format(value=values[name])] if instead else without(config, f"hydra.{name}=")
            yield problem(f"hydra.{name}={values[name]}", rule, *words)
    name = JobRuntime.instance().get("name")
    if hydra.job.name != name:
        rule = "a run is named after its settings, and has words in tracker.tags (a job of Slurm: hydra.launcher.name)"
        yield problem(f"hydra.job.name={hydra.job.name}", rule, f"tracker.tags=[{hydra.job.name}]")
    if hydra.verbose and not any(_has_handlers(hydra[key]) for key in ("hydra_logging", "job_logging")):
        typed = next(
            (line for line in typed if re.match(r"\W*hydra\.verbose=", line)), f"hydra.verbose={hydra.verbose}"
        )
        rule = "shows nothing, as no logging of libraries is chosen"
        yield problem(typed, rule, typed, "hydra/job_logging=stdout")
    if preset and hydra.mode is RunMode.RUN:
        rule = "sweep=<name> is a sweep of several runs"
        yield problem("hydra.mode=RUN", rule, *without(config))
    if preset and not hydra.sweeper._target_.endswith(".GridSweeper"):
        typed = f"hydra/sweeper={hydra.runtime.choices['hydra/sweeper']}"
        yield problem(
            typed, "the combinations of a preset (sweep=<name>) are for another sweeper", "hydra/sweeper=grid"
        )


def without(config: DictConfig, *starts: str) -> list[str]:
    """Return the words of the whole command without those that begin with one of `starts`."""
    overrides = _plain(config.hydra)["overrides"]
    given = [*overrides["hydra"], *overrides["task"]]
    words = [word for word in given if not word.startswith((*starts, "hydra.mode="))]  # Hydra adds the mode
    is_sweep = config.hydra.mode is RunMode.MULTIRUN and not config.grids
    return [*LAUNCH.split(), *(["-m"] if is_sweep else []), *words]


def _only_for_sweeps(hydra: DictConfig, typed: Sequence[str]) -> Iterator[str]:
    for part, default in (("launcher", "local"), ("sweeper", "grid")):
        if (choice := hydra.runtime.choices[f"hydra/{part}"]) != default:
            word = f"hydra/{part}={choice}"
            yield problem(word, f"{SINGLE}; add -m, or choose hydra/{part}={default}", "-m", word)
    for line in typed:
        if re.match(r"\W*hydra\.(launcher|sweeper)\b", line):
            yield problem(line, f"{SINGLE}; add -m", "-m", line)
    if hydra.sweeper.get("params"):
        yield problem("hydra.sweeper.params, in a config file", f"{SINGLE}; add -m", *LAUNCH.split(), "-m")


def refuse_per_job(hydra: DictConfig, callbacks: Sequence[Any]) -> None:
    """Raise ConfigError for what Hydra does inside each job, where jobs run in processes without Hydra."""
    choices = hydra.runtime.choices
    by = f"in a sweep by hydra/launcher={choices['hydra/launcher']}, which starts runs without Hydra"
    basic = "hydra/launcher=basic"
    if _has_handlers(hydra.job_logging):
        raise ConfigError(problem(f"hydra/job_logging={choices['hydra/job_logging']}", f"has no effect {by}", basic))
    for each in callbacks:
        for name in ("on_job_start", "on_job_end"):
            if name in {key for kind in type(each).__mro__ if kind is not Callback for key in vars(kind)}:
                raise ConfigError(problem("hydra.callbacks", f"{type(each).__name__}.{name} is not called {by}", basic))


def refuse_changed_in_job(sweep: DictConfig, job: DictConfig, overrides: Sequence[str]) -> None:
    """Raise ConfigError if the composed config of a job differs from its sweep's in what holds for the whole sweep.

    overrides: those of the job. An experiment file that is one of several values of the sweep may choose a launcher,
    which Hydra would ignore.
    """
    for name, choice in job.hydra.runtime.choices.items():
        if name.startswith("hydra/") and choice != sweep.hydra.runtime.choices.get(name):
            raise ConfigError(_for_all(f"{name}={choice}", overrides))
    ours, its = flat(_plain(sweep.hydra)), flat(_plain(job.hydra))
    for name, value in its.items():
        if name.startswith(PER_SWEEP) and ours.get(name) != value:
            raise ConfigError(_for_all(f"hydra.{name}={value}", overrides))


def require_sbatch(launcher: str) -> None:
    """Raise ConfigError if this machine cannot submit to Slurm, as hydra/launcher=`launcher` does."""
    if shutil.which("sbatch") is None:
        raise ConfigError(
            f"hydra/launcher={launcher}: there is no sbatch on this machine; give the command on the login node of the "
            "cluster, or to run here, type: hydra/launcher=local"
        )


def _for_all(line: str, overrides: Sequence[str]) -> str:
    groups = [each for each in overrides if each.startswith("+") and "." not in each.partition("=")[0]]
    chosen = " ".join(groups) or "one value of the sweep"
    return problem(
        f"{line}, set by {chosen}", "holds for a whole sweep, not for some of its runs; with a command for each", line
    )


def _has_handlers(logging: Any) -> bool:
    """Return whether a logging config prints or writes anything."""
    root = None if logging is None else logging.get("root")
    return root is not None and bool(root.get("handlers"))


def _plain(node: DictConfig) -> dict[str, Any]:
    found = OmegaConf.to_container(node, resolve=False)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}
