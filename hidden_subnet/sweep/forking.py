"""The fork server from which every run of a worker starts: it loads torch once, while the worker itself does."""

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext
from pathlib import Path

from hidden_subnet.settings import Config, TrackerName
from hidden_subnet.signals import signals_held

LOADED = ["hidden_subnet.execute", "torch._dynamo"]
"""torch's optimizers pull in the last one, at their first step."""
LOADED_FOR_WANDB = ["wandb", "wandb.sdk.launch", "requests"]
"""Slow to import, and loaded at the start of a run that reports there."""


def load_ahead(configs: Iterable[Config]) -> None:
    """Start it, with what the runs of `configs` will need."""
    wandb = any(config.tracker.name in (TrackerName.wandb, TrackerName.both) for config in configs)
    forkserver.set_forkserver_preload(LOADED + LOADED_FOR_WANDB * wandb)
    fork_server()


def fork_server() -> ForkServerContext:
    """It inherits that signals are blocked: Ctrl-C reaches it from the terminal, and Slurm signals every process of a
    step. So do its children, for whom they wait until there is a handler.
    """
    resource_tracker.ensure_running()  # here, since in starting it unblocks INT and TERM
    with signals_held(), _our_package():
        forkserver.ensure_running()
    return multiprocessing.get_context("forkserver")


@contextmanager
def _our_package() -> Iterator[None]:
    """New processes import the package that this one imported, which need not be the installed one."""
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), path]))
    try:
        yield
    finally:
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path
