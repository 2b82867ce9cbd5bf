"""Let the workers of a sweep save and end, wherever they are."""

import time
from pathlib import Path

from hidden_subnet.commands.names import find_sweep
from hidden_subnet.commands.survey import onlooker, waiting_tasks
from hidden_subnet.sweep import manifest, slurm
from hidden_subnet.sweep.presence import Worker, workers

WAIT_SECONDS = 120.0
LOOK_SECONDS = 0.5
GOES_ON = "the command that launched it goes on"


def stop(out: Path, name: str, wait: bool) -> int:
    """Ask them, cancel those that wait in Slurm's queue, and wait (at most two minutes) until none lives.

    The exit code: 1 where some still live then.
    """
    folder = find_sweep(out, name)
    by = onlooker(folder.parents[1])
    if waiting := waiting_tasks(folder, by):
        slurm.cancel_waiting(waiting)
        print(f"cancelled in Slurm's queue: {', '.join(waiting)}")
    living = workers(folder, by.observer)
    if not living and not waiting:
        print(f"nothing was running: {folder.name} has no worker")
        return 0
    manifest.stop(folder, "asked to by `python -m hidden_subnet stop`")
    if living:
        print(f"asked to save and end: {_names(living)}", flush=True)
    end = time.monotonic() + WAIT_SECONDS
    while wait and living and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)
        living = workers(folder, onlooker(folder.parents[1]).observer)
    if wait and living:
        print(f"after {WAIT_SECONDS:.0f} s there still live: {_names(living)}")
        return 1
    print(f"{folder.name} is asked to stop; {GOES_ON}" if living else f"{folder.name} has stopped; {GOES_ON}")
    return 0


def _names(living: list[Worker]) -> str:
    return "; ".join(str(worker.owner) for worker in living)
