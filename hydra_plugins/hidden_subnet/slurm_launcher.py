"""The launcher of a sweep on a cluster: its workers are the tasks of one Slurm array, submitted through submitit."""

import shutil
import sys
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf, SlurmQueueConf  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf

from hidden_subnet.check import ConfigError
from hidden_subnet.settings import Config
from hydra_plugins.hidden_subnet.local_launcher import LocalLauncher

if TYPE_CHECKING:
    from hidden_subnet.sweep.job import Job

MAX_WORKERS = 1000  # Slurm's MaxArraySize is 1001 unless a site changes it


@dataclass
class SlurmLauncherConfig(SlurmQueueConf):  # type: ignore[misc]
    """hydra-submitit-launcher's settings of the queue, and ours."""

    _target_: str = "hydra_plugins.hidden_subnet.slurm_launcher.SlurmLauncher"
    name: str | None = None
    """Of the job; by default the sweep's."""
    workers: int | None = None
    """Tasks of the array; by default one a run that is not done, 8 at most."""
    detach: bool = False
    """Submit, and return."""
    jobs_per_gpu: Any = 1
    requeues: int = 10
    """How often a worker that was preempted or reached its walltime is queued again."""


OURS = ("workers", "detach", "jobs_per_gpu", "requeues")
# What a worker has no use for, and why.
REFUSED = {
    "submitit_folder": "the sweep's folder holds Slurm's files",
    "nodes": "a worker is one task on one node; workers says how many there are",
    "tasks_per_node": "a worker is one task on one node; workers says how many there are",
    "array_parallelism": "workers says how many run at a time",
    "max_num_timeout": "requeues bounds how often a worker is queued again",
}
# additional_parameters by which sbatch would do other than the launcher believes.
RESERVED = {"array", "ntasks", "nodes", "output", "error", "open-mode", "signal", "requeue", "no-requeue", "chdir"}

ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=SlurmLauncherConfig, provider="hidden_subnet")


class SlurmLauncher(LocalLauncher):
    def __init__(self, **settings: Any) -> None:
        super().__init__(settings["workers"], settings["jobs_per_gpu"])
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        for problem in _problems(self.settings, OmegaConf.to_container(config.hydra.launcher, resolve=False)):
            raise ConfigError(f"hydra.launcher.{problem}")

    def run(self, configs: list[Config], label: str) -> "tuple[list[Job], int]":
        if shutil.which("sbatch") is None:
            raise ConfigError(
                "hydra/launcher=slurm: there is no sbatch on this machine; give the command where the cluster's jobs "
                "are submitted, or take hydra/launcher=local"
            )
        from hidden_subnet.report.console import make_console
        from hidden_subnet.sweep.manifest import folder_of
        from hidden_subnet.sweep.submit import Array, Left, await_stopping
        from hidden_subnet.sweep.sweep import launch

        ours = {name: self.settings[name] for name in OURS} | {"jobs_per_gpu": self.jobs_per_gpu}
        array = Array(parameters=_parameters(self.settings), **ours)
        await_stopping(folder_of(label, configs), make_console())
        try:
            jobs, code = launch(configs, label, array.execute, report=self.report)
        except Left as left:
            sys.exit(left.code)
        return jobs, 1 if array.deserted else code


def _problems(settings: dict[str, Any], unresolved: Any) -> list[str]:
    found = []
    defaults = {each.name: each.default for each in fields(SlurmQueueConf)}
    for name, why in REFUSED.items():
        if unresolved[name] != defaults[name]:
            found.append(f"{name}={unresolved[name]}: leave it away: {why}")
    if (settings["workers"] or 0) > MAX_WORKERS:
        found.append(
            f"workers={settings['workers']}: an array has at most {MAX_WORKERS} tasks; each executes many runs"
        )
    if settings["requeues"] < 0:
        found.append(f"requeues={settings['requeues']}: must be 0 or more")
    if settings["timeout_min"] * 60 <= settings["signal_delay_s"]:
        found.append(
            f"timeout_min={settings['timeout_min']}: must be more than hydra.launcher.signal_delay_s="
            f"{settings['signal_delay_s']}, at which a worker is told to save before its time is up"
        )
    for key in settings["additional_parameters"] or {}:
        if str(key).replace("_", "-") in RESERVED:
            found.append(f"additional_parameters.{key}: this one is the launcher's own; leave it away")
    return found


def _parameters(settings: dict[str, Any]) -> dict[str, Any]:
    """Of submitit's AutoExecutor: all but the general ones have the prefix slurm_."""
    general = {each.name for each in fields(BaseQueueConf)}
    left_out = {*OURS, *REFUSED, "additional_parameters"}
    given = {
        name if name in general else f"slurm_{name}": value for name, value in settings.items() if name not in left_out
    }
    # Said aloud, since a site may have JobRequeue=0.
    given["slurm_additional_parameters"] = {"requeue": True, **(settings["additional_parameters"] or {})}
    return given
