"""hydra/launcher=slurm: the workers of a sweep are the tasks of one Slurm array, submitted by submitit."""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf, SlurmQueueConf  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf

from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.sweep.console import count
from hydra_plugins.hidden_subnet.hydra_settings import require_sbatch, without
from hydra_plugins.hidden_subnet.local_launcher import LocalLauncher

if TYPE_CHECKING:
    from hidden_subnet.sweep.jobs import Job

MAX_WORKERS = 1000  # Slurm's MaxArraySize is 1001 unless a site changes it


@dataclass
class SlurmLauncherConfig(SlurmQueueConf):  # type: ignore[misc]
    """The queue settings of hydra-submitit-launcher, and our own."""

    _target_: str = "hydra_plugins.hidden_subnet.slurm_launcher.SlurmLauncher"
    name: str | None = None
    """Name of the Slurm job; by default the sweep's."""
    workers: int | None = None
    """Number of tasks in the array; by default one per run that is not done, at most 8."""
    detach: bool = False
    """Submit and return at once."""
    jobs_per_gpu: Any = 1
    requeues: int = 10
    """How often a worker is queued again after preemption or at its time limit."""
    submitit_folder: str | None = None
    """Where the workers' code, logs and submitit's files lie if others may write to the folder of the runs; by default
    in ~/.hidden_subnet."""


OURS = ("workers", "detach", "jobs_per_gpu", "requeues")
# Settings of submitit that are not used, why, and the one to use instead.
REFUSED = {
    "nodes": ("a worker is one task on one node", "workers"),
    "tasks_per_node": ("a worker is one task on one node", "workers"),
    "array_parallelism": ("all tasks of the array may run at the same time", "workers"),
    "max_num_timeout": ("how often a worker is queued again is another setting", "requeues"),
}
# Settings that hydra-submitit-launcher has since 1.4, as they must stay, and why.
FIXED = {
    "python": (None, "the workers are executed by the Python that submits them"),
    "use_srun": (True, "Slurm announces the walltime to what srun starts, and the runs save then"),
}
# additional_parameters that would contradict what the launcher itself passes to sbatch.
RESERVED = {"array", "ntasks", "nodes", "output", "error", "open-mode", "signal", "requeue", "no-requeue", "chdir"}

ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=SlurmLauncherConfig, provider="hidden_subnet")


class SlurmLauncher(LocalLauncher):
    """Executes the jobs of a sweep by workers in Slurm."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(settings["workers"], settings["jobs_per_gpu"])
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        for line in _problems(self.settings, config):
            raise ConfigError(f"hydra.launcher.{line}")

    def at_a_time(self, configs: list[Config]) -> int:
        """Return the number of workers, each of which executes one run at a time on a CPU."""
        from hidden_subnet.sweep.slurm_array import DEFAULT_WORKERS

        return int(self.settings["workers"] or DEFAULT_WORKERS)

    def described(self, tasks: int) -> str:
        """Return the line of a plan on the tasks that would be submitted; "" where there is nothing to run."""
        if not tasks:
            return ""
        where = self.settings["partition"]
        partition = f"partition {where}" if where else "Slurm's default partition (hydra.launcher.partition)"
        asked = {name: self.settings[name] for name in ("cpus_per_task", "gpus_per_node", "mem_gb")}
        each = [f"at most {self.settings['timeout_min']} minutes"]
        each += [f"{name}={value}" for name, value in asked.items() if value is not None]
        return f"Slurm: {count(tasks, 'task')} of one array in {partition}; each: {', '.join(each)}"

    def run(self, configs: list[Config], label: str) -> "tuple[list[Job], int]":
        """Submit the workers and show their progress; returns the jobs and the exit code. With detach, exits."""
        require_sbatch("slurm")
        from hidden_subnet.cli.sweep import finish
        from hidden_subnet.store import sweeps
        from hidden_subnet.sweep.console import make_console
        from hidden_subnet.sweep.launch import launch, only_failures
        from hidden_subnet.sweep.slurm_array import Array, Left, await_stopping

        ours = {name: self.settings[name] for name in OURS} | {"jobs_per_gpu": self.jobs_per_gpu}
        exports = [f"export {name}={shlex.quote(value)}" for name, value in self.environment.items()]
        setup = [*(self.settings["setup"] or []), *exports]
        private = self.settings["submitit_folder"]
        array = Array(
            parameters=_parameters({**self.settings, "setup": setup}),
            private=Path(private).expanduser() if private else None,
            **ours,
        )
        await_stopping(sweeps.plan(configs, label).folder, make_console())
        try:
            jobs, code = launch(configs, label, array.execute, finish if self.report else only_failures)
        except Left as left:
            sys.exit(left.code)
        return jobs, 1 if array.deserted else code


def _problems(settings: dict[str, Any], config: DictConfig) -> Iterator[str]:
    """Yield a line, without the start `hydra.launcher.`, for each setting that is wrong."""
    unresolved = OmegaConf.to_container(config.hydra.launcher, resolve=False)
    assert isinstance(unresolved, dict)
    defaults = {each.name: each.default for each in fields(SlurmQueueConf)}
    for name, (why, instead) in REFUSED.items():
        if (value := unresolved[name]) != defaults[name]:
            yield problem(f"{name}={value}", why, f"hydra.launcher.{instead}={value}", lead="did you mean")
    for name, (fixed, why) in FIXED.items():
        if (value := unresolved.get(name, fixed)) != fixed:
            yield problem(f"{name}={value}", why, *without(config, f"hydra.launcher.{name}="))
    if (workers := settings["workers"] or 0) > MAX_WORKERS:
        rule = f"an array has at most {MAX_WORKERS} tasks, each of which executes many runs"
        yield problem(f"workers={workers}", rule, f"hydra.launcher.workers={MAX_WORKERS}", lead="as in")
    if (requeues := settings["requeues"]) < 0:
        yield problem(f"requeues={requeues}", "must be 0 or more", "hydra.launcher.requeues=0", lead="as in")
    minutes, delay = settings["timeout_min"], settings["signal_delay_s"]
    if minutes * 60 <= delay:
        rule = (
            f"must be more than hydra.launcher.signal_delay_s={delay}, the time before the limit at which a worker is "
            "asked to save"
        )
        enough = f"hydra.launcher.timeout_min={delay // 60 + 1}"
        yield problem(f"timeout_min={minutes}", rule, enough, lead="as in")
    for key in settings["additional_parameters"] or {}:
        if str(key).replace("_", "-") in RESERVED:
            name = "additional_parameters"
            words = without(config, f"+hydra.launcher.{name}", f"hydra.launcher.{name}", f"++hydra.launcher.{name}")
            yield problem(f"{name}.{key}", "this one is the launcher's own", *words)


def _parameters(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of submitit's AutoExecutor; all but the general ones have the prefix slurm_."""
    general = {each.name for each in fields(BaseQueueConf)}
    excluded = {*OURS, *REFUSED, *FIXED, "submitit_folder", "additional_parameters"}
    given = {
        name if name in general else f"slurm_{name}": value for name, value in settings.items() if name not in excluded
    }
    # Explicit, since a site may have JobRequeue=0.
    given["slurm_additional_parameters"] = {"requeue": True, **(settings["additional_parameters"] or {})}
    return given
