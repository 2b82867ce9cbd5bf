"""The rendezvous of ranks that something else starts, on one node or several: tasks of a submitit job, or torchrun.

hydra/launcher=submitit_slurm hydra.launcher.tasks_per_node=4 train.devices=4 gives each task one rank; torchrun,
`accelerate launch` and Kubernetes' PyTorchJob set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT for each. Rank 0 claims
the run and publishes its folder to the others, or that there is nothing to do.
"""

import os
import sys
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from hidden_subnet.config.program import rank_in_environment
from hidden_subnet.errors import ConfigError

FOLDER, RECEIVED = "folder", "received"
PATIENCE = timedelta(minutes=30)
"""Time limit of every wait: tasks of one job may start minutes apart, and the first may download data."""


@dataclass
class Rendezvous:
    """The ranks of one run, connected by a store that rank 0 holds."""

    rank: int
    size: int
    local_rank: int
    store: Any = field(repr=False)
    published: bool = False

    def publish_folder(self, folder: Path | None) -> None:
        """Rank 0: let the others execute the run of `folder`, or nothing (None)."""
        if not self.published:
            self.store.set(FOLDER, "" if folder is None else str(folder))
            self.published = True

    def wait_for_folder(self) -> Path | None:
        """Another rank: wait for rank 0, and return the folder of the run; None: there is nothing to do."""
        folder = self.store.get(FOLDER).decode()
        self.store.add(RECEIVED, 1)
        return Path(folder) if folder else None

    def close(self) -> None:
        """Rank 0, at the end: publish "nothing to do" where nothing was published, since the store ends with it."""
        self.publish_folder(None)
        # Each other rank adds 1; one that died does not, and then the wait ends at the time limit.
        until = time.monotonic() + PATIENCE.total_seconds()
        while self.store.add(RECEIVED, 0) < self.size - 1 and time.monotonic() < until:
            time.sleep(0.1)


def is_task_of_slurm() -> bool:
    """Return whether this process is one of several tasks of a submitit job."""
    return "SUBMITIT_EXECUTOR" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1


def is_one_of_several() -> bool:
    """Return whether Slurm, torchrun or its like has started the ranks of a run, of which this process is one."""
    return is_task_of_slurm() or rank_in_environment()[1] > 1


def rendezvous(devices: int) -> Rendezvous | None:
    """Connect the ranks that were started together; None where this process is the only one.

    Raises ConfigError unless there is one for each of train.devices, `devices` in number.
    """
    if is_task_of_slurm():
        return _of_slurm(devices)
    return _of_environment(devices) if is_one_of_several() else None


def _of_slurm(devices: int) -> Rendezvous:
    from submitit.helpers import TorchDistributedEnvironment
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    place = TorchDistributedEnvironment()
    if place.world_size != devices:
        raise ConfigError(
            f"train.devices={devices}: this job has {place.world_size} tasks, but needs one for each device of the "
            f"run; choose another hydra.launcher.tasks_per_node, or type: train.devices={place.world_size}"
        )
    # The name of a node may not resolve on the node itself.
    host = "127.0.0.1" if place.local_world_size == place.world_size else place.master_addr
    port, is_main = place.master_port, place.rank == 0
    store = TCPStore(host, port, place.world_size, is_master=is_main, timeout=PATIENCE, wait_for_workers=False)
    return Rendezvous(place.rank, place.world_size, place.local_rank, store)


def _of_environment(devices: int) -> Rendezvous:
    from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]

    rank, size = rank_in_environment()
    if size != devices:
        raise ConfigError(
            f"train.devices={devices}: {size} processes were started (WORLD_SIZE={size}), and a run needs one for each "
            f"of its devices; type: train.devices={size}"
        )
    local_rank = int(os.environ.get("LOCAL_RANK", rank))
    if sys.platform == "linux" and os.environ.get("LOCAL_WORLD_SIZE") == str(size):  # the host's name may not resolve
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        store, *_ = next(iter(rendezvous("env://", timeout=PATIENCE)))
    except ValueError as error:  # a variable that is missing
        raise ConfigError(f"WORLD_SIZE={size} belongs with RANK, MASTER_ADDR and MASTER_PORT: {error}") from error
    # torchrun keeps keys of its own in the store.
    return Rendezvous(rank, size, local_rank, PrefixStore("hidden_subnet", store))
