"""The launcher of a sweep on this machine: several runs at a time, each in a process of its own."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hidden_subnet.check import ConfigError
from hidden_subnet.identity import folder_name
from hidden_subnet.settings import Config, OnError
from hydra_plugins.hidden_subnet.compose import Composer
from hydra_plugins.hidden_subnet.objective import objective
from hydra_plugins.hidden_subnet.secrets import refuse_secrets_in

if TYPE_CHECKING:
    from hidden_subnet.sweep.job import Job


@dataclass
class LocalLauncherConfig:
    _target_: str = "hydra_plugins.hidden_subnet.local_launcher.LocalLauncher"
    workers: int | None = None
    """Runs at a time; by default one a GPU (or `jobs_per_gpu`), or one a CPU core."""
    jobs_per_gpu: Any = 1
    """Runs that share a GPU; auto: as many as a short measurement finds worth it."""


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalLauncherConfig, provider="hidden_subnet")


class LocalLauncher(Launcher):  # type: ignore[misc]
    label = "jobs"
    """Of the sweep's name, where another sweeper than ours launches; that sweeper may set it."""
    report = True
    """Whether what it executes ends in a table and a figure; the same sweeper may have one for all its batches."""

    def __init__(self, workers: int | None = None, jobs_per_gpu: Any = 1) -> None:
        self.workers, self.asked = workers, jobs_per_gpu

    @property
    def jobs_per_gpu(self) -> int | None:
        """None: auto."""
        return None if self.asked == "auto" else self.asked

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        # Not in __init__: Hydra wraps what is raised there in its own words.
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"hydra.launcher.workers={self.workers}: must be 1 or more; leave it away for one a core")
        if self.asked != "auto" and (type(self.asked) is not int or self.asked < 1):
            raise ConfigError(f"hydra.launcher.jobs_per_gpu={self.asked}: must be 1 or more, or auto")
        refuse_secrets_in(config)
        self.composer = Composer(hydra_context, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """For other sweepers, which know overrides only and want a value of each job: see `objective`.

        A run that failed is a failed job, and the sweeper may go on; with on_error=stop, and after Ctrl-C, this exits.
        """
        configs = [self.composer.compose(overrides) for overrides in job_overrides]
        if any(config.plan for config in configs):
            from hidden_subnet.report.plan import print_plan

            print_plan(configs)
            return [JobReturn(overrides=list(each), status=JobStatus.COMPLETED) for each in job_overrides]
        # A sweeper may try the same values twice.
        distinct = {folder_name(config): config for config in configs}
        jobs, code = self.run(list(distinct.values()), self.label)
        if code == 130 or (code and any(config.on_error is OnError.stop for config in configs)):
            sys.exit(code)
        ended = {folder_name(job.config): job for job in jobs}
        returns = []
        for config, overrides in zip(configs, job_overrides, strict=True):
            job = ended[folder_name(config)]
            said = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED, working_dir=str(job.folder))
            if job.state in ("done", "skipped"):
                said.return_value = objective(config)
            else:
                said.status = JobStatus.FAILED
                said.return_value = ValueError(f"{job.folder.name}: {job.state}: {job.message}")
            returns.append(said)
        return returns

    def execute(self, configs: list[Config], job_overrides: Sequence[Sequence[str]], label: str) -> list[JobReturn]:
        """Run all; exits with 1 (130 after Ctrl-C) when some are not done, after table and figure are written."""
        jobs, code = self.run(configs, label)
        if code:
            sys.exit(code)
        return [
            JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED, working_dir=str(job.folder))
            for job, overrides in zip(jobs, job_overrides, strict=True)
        ]

    def run(self, configs: list[Config], label: str) -> "tuple[list[Job], int]":
        """Have the runs executed; the jobs and the exit code."""
        from hidden_subnet.sweep.sweep import run_sweep

        return run_sweep(configs, label, self.workers, self.jobs_per_gpu, report=self.report)
