"""The launcher of a sweep on this machine: several runs at a time, each in a process of its own."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hidden_subnet.check import ConfigError
from hidden_subnet.config import Config
from hydra_plugins.hidden_subnet.compose import compose_job


@dataclass
class LocalLauncherConfig:
    _target_: str = "hydra_plugins.hidden_subnet.local_launcher.LocalLauncher"
    workers: int | None = None
    """Runs at a time; by default one a GPU, or one a CPU core."""


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalLauncherConfig, provider="hidden_subnet")


class LocalLauncher(Launcher):  # type: ignore[misc]
    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        # Not in __init__: Hydra wraps what is raised there in its own words.
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"hydra.launcher.workers={self.workers}: must be 1 or more; leave it away for one a core")
        self.context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """For other sweepers, which know overrides only."""
        configs = [compose_job(self.context, self.config, overrides) for overrides in job_overrides]
        return self.execute(configs, job_overrides, f"jobs-{initial_job_idx}")

    def execute(self, configs: list[Config], job_overrides: Sequence[Sequence[str]], label: str) -> list[JobReturn]:
        """Run all; exits with 1 (130 after Ctrl-C) when some are not done, after table and figure are written."""
        from hidden_subnet.sweep.sweep import run_sweep  # here is where torch loads

        jobs, code = run_sweep(configs, label, self.workers)
        if code:
            sys.exit(code)
        return [
            JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED, working_dir=str(job.folder))
            for job, overrides in zip(jobs, job_overrides, strict=True)
        ]
