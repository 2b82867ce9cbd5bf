"""The default launcher: runs the sweep on this machine, several runs at the same time, each in its own process."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hidden_subnet.config.identity import folder_name
from hidden_subnet.config.settings import Config, OnError
from hidden_subnet.errors import ConfigError, problem
from hydra_plugins.hidden_subnet.compose import Composer
from hydra_plugins.hidden_subnet.hydra_settings import refuse_per_job
from hydra_plugins.hidden_subnet.objective import objective

if TYPE_CHECKING:
    from hidden_subnet.sweep.jobs import Job


@dataclass
class LocalLauncherConfig:
    _target_: str = "hydra_plugins.hidden_subnet.local_launcher.LocalLauncher"
    workers: int | None = None
    """Number of runs at the same time; by default one per GPU (times `jobs_per_gpu`), or one per CPU core."""
    jobs_per_gpu: Any = 1
    """Number of runs that share a GPU; auto: the fastest number, by a short measurement."""


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalLauncherConfig, provider="hidden_subnet")


class LocalLauncher(Launcher):  # type: ignore[misc]
    """Executes jobs in worker slots: `execute` for our sweeper, `launch` for others."""

    label = "jobs"
    """Start of the sweep's name if another sweeper launches it; that sweeper may set it."""
    report = True
    """Whether a table and a figure follow; a sweeper with several batches may make one for all instead."""

    def __init__(self, workers: int | None = None, jobs_per_gpu: Any = 1) -> None:
        self.workers, self.asked = workers, jobs_per_gpu

    @property
    def jobs_per_gpu(self) -> int | None:
        """Number of runs that share a GPU; None means auto."""
        return None if self.asked == "auto" else self.asked

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        # Not checked in __init__, since Hydra wraps exceptions raised there in a message of its own.
        if self.workers is not None and self.workers < 1:
            rule = "must be 1 or more (null: one per core)"
            raise ConfigError(
                problem(f"hydra.launcher.workers={self.workers}", rule, "hydra.launcher.workers=1", lead="as in")
            )
        if self.asked != "auto" and (type(self.asked) is not int or self.asked < 1):
            words = "hydra.launcher.jobs_per_gpu=1"
            raise ConfigError(problem(f"{words[:-1]}{self.asked}", "must be 1 or more, or auto", words, lead="as in"))
        refuse_per_job(config.hydra, hydra_context.callbacks.callbacks)
        self.environment = {str(key): str(value) for key, value in config.hydra.job.env_set.items()}
        self.composer = Composer(hydra_context, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs of other sweepers, which pass overrides and need a value from each job: see `objective`.

        A failed run becomes a failed job, and the sweeper may continue; with on_error=stop, and after Ctrl-C, this
        exits.
        """
        configs = [self.composer.compose(overrides) for overrides in job_overrides]
        if any(config.plan for config in configs):
            from hidden_subnet.report.plan import print_plan

            print_plan(configs, self.at_a_time(configs), self.described)
            return _completed(job_overrides)
        # Another sweeper may choose the same values twice.
        distinct = {folder_name(config): config for config in configs}
        jobs, code = self.run(list(distinct.values()), self.label)
        if code == 130 or (code and any(config.on_error is OnError.stop for config in configs)):
            sys.exit(code)
        ended = {folder_name(job.config): job for job in jobs}
        returns = []
        for config, overrides in zip(configs, job_overrides, strict=True):
            job = ended[folder_name(config)]
            returned = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED, working_dir=str(job.folder))
            if job.is_settled:
                returned.return_value = objective(config)
            else:
                returned.status = JobStatus.FAILED
                returned.return_value = ValueError(f"{job.folder.name}: {job.state}: {job.message}")
            returns.append(returned)
        return returns

    def execute(self, configs: list[Config], job_overrides: Sequence[Sequence[str]], label: str) -> list[JobReturn]:
        """Run all jobs. Exits with 1 (130 after Ctrl-C) if some are not done, after table and figure are written."""
        _, code = self.run(configs, label)
        if code:
            sys.exit(code)
        return _completed(job_overrides)

    def described(self, tasks: int) -> str:
        """Return the line of a plan on what executes the runs; nothing of the processes of this machine."""
        return ""

    def at_a_time(self, configs: list[Config]) -> int:
        """Return the number of runs that would be executed at a time; 1 if they cannot be executed here."""
        from hidden_subnet.sweep.processes import plan_slots

        try:
            return plan_slots(configs, self.workers, self.jobs_per_gpu or 1).count
        except ConfigError:  # fewer devices than a run asks for: a plan may be made on another machine
            return 1

    def run(self, configs: list[Config], label: str) -> "tuple[list[Job], int]":
        """Execute the runs as one sweep; returns its jobs and the exit code."""
        from hidden_subnet.cli.sweep import run_sweep

        os.environ.update(self.environment)  # the fork server starts later, and all runs inherit its environment
        return run_sweep(configs, label, self.workers, self.jobs_per_gpu, report=self.report)


def _completed(job_overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
    return [JobReturn(overrides=list(each), status=JobStatus.COMPLETED) for each in job_overrides]
