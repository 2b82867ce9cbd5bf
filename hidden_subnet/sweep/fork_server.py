"""The fork server, from which a worker starts every run: it loads torch once, for all of them."""

from collections.abc import Iterable
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext

from hidden_subnet.config.settings import Config
from hidden_subnet.signals import signals_held
from hidden_subnet.store.child_processes import cannot_start, our_modules, place_sockets
from hidden_subnet.store.posix import fork_server_context

LOADED = ["hidden_subnet.sweep.quiet_server", "hidden_subnet.sweep.execute", "hidden_subnet.trackers", "torch._dynamo"]
"""Modules that the server loads, so that a run need not. Names, as multiprocessing wants them; and trackers is a layer
above this one, from which a run gets the function that opens its trackers. torch's optimizers load torch._dynamo at
their first step."""
LOADED_FOR_WANDB = ["wandb", "wandb.sdk.launch", "requests"]
"""Loaded too if a run reports to W&B: they are slow to import."""


def load_ahead(configs: Iterable[Config]) -> None:
    """Start the fork server and have it load the modules that the runs of `configs` will need."""
    wandb = any("wandb" in config.tracker.enabled for config in configs)
    forkserver.set_forkserver_preload(LOADED + LOADED_FOR_WANDB * wandb)
    fork_server()


def fork_server() -> ForkServerContext:
    """Start the fork server if it is not running, and return the multiprocessing context that uses it.

    The server inherits blocked signals, since a terminal's Ctrl-C and Slurm's signals reach every process. So do its
    children, which get those signals once they have handlers.
    """
    place_sockets()
    try:
        with our_modules():
            resource_tracker.ensure_running()  # before the signals are blocked, since its start unblocks INT and TERM
            with signals_held():
                forkserver.ensure_running()
    except OSError as error:
        raise cannot_start(error) from error
    return fork_server_context()
