"""Ranks that Slurm started, a task each: one run as a job of several tasks of submitit, on one node or on several.

hydra/launcher=submitit_slurm hydra.launcher.tasks_per_node=4 train.devices=4 gives each task one rank. The first task
claims the run, and tells the others in which folder it lies, or that there is nothing to do.
"""

import os
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from hidden_subnet.check import ConfigError

FOLDER, HEARD = "folder", "heard"
PATIENCE = timedelta(minutes=30)
"""Tasks of one job may start minutes apart, and the first downloads data."""


@dataclass
class Meeting:
    """Where the tasks of a run meet."""

    rank: int
    size: int
    local_rank: int
    store: Any = field(repr=False)
    told: bool = False

    def tell(self, folder: Path | None) -> None:
        """Rank 0: the others execute the run of `folder` now, or nothing."""
        if not self.told:
            self.store.set(FOLDER, "" if folder is None else str(folder))
            self.told = True

    def hear(self) -> Path | None:
        """Another rank: waits for rank 0."""
        folder = self.store.get(FOLDER).decode()
        self.store.add(HEARD, 1)
        return Path(folder) if folder else None

    def close(self) -> None:
        """Rank 0, at the end: what nobody was told is that there is nothing to do. The store ends with its process."""
        self.tell(None)
        # Each other counts itself; one that died does not, and is not waited for longer than this.
        until = time.monotonic() + PATIENCE.total_seconds()
        while self.store.add(HEARD, 0) < self.size - 1 and time.monotonic() < until:
            time.sleep(0.1)


def tasks_of_one_run() -> bool:
    """Whether this process is one of several tasks of a job of submitit."""
    return "SUBMITIT_EXECUTOR" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1


def meeting(devices: int) -> Meeting | None:
    """None where this process is alone. Raises ConfigError unless there are as many tasks as devices."""
    if not tasks_of_one_run():
        return None
    from submitit.helpers import TorchDistributedEnvironment
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    place = TorchDistributedEnvironment()
    if place.world_size != devices:
        raise ConfigError(
            f"train.devices={devices}: this job has {place.world_size} tasks, one for each device of a run; give "
            f"train.devices={place.world_size}, or another hydra.launcher.tasks_per_node"
        )
    # The name of a node need not lead anywhere on the node itself.
    host = "127.0.0.1" if place.local_world_size == place.world_size else place.master_addr
    port, leads = place.master_port, place.rank == 0
    store = TCPStore(host, port, place.world_size, is_master=leads, timeout=PATIENCE, wait_for_workers=False)
    return Meeting(place.rank, place.world_size, place.local_rank, store)
