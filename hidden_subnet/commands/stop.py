"""Let the workers of a sweep save and end, wherever they are."""

import time
from pathlib import Path

from hidden_subnet.commands.names import find_sweep
from hidden_subnet.commands.survey import onlooker, running_tasks, waiting_tasks
from hidden_subnet.record import RESULT
from hidden_subnet.sweep import manifest, slurm
from hidden_subnet.sweep.presence import workers

WAIT_SECONDS = 120.0
LOOK_SECONDS = 0.5
GOES_ON = "the command that launched it goes on"


def stop(out: Path, name: str, wait: bool) -> int:
    """Ask them, cancel those that wait in Slurm's queue, and wait (at most two minutes) until none lives.

    The exit code: 1 where some still live then.
    """
    folder = find_sweep(out, name)
    if waiting := waiting_tasks(folder, onlooker(folder.parents[1])):
        slurm.cancel_waiting(waiting)
        print(f"cancelled in Slurm's queue: {', '.join(waiting)}")
    living = _living(folder)
    if not living and all((run / RESULT).exists() for run in manifest.read(folder).runs):
        print(f"nothing was running: every run of {folder.name} is done")
        return 0
    # Also where none is seen: one that loads torch has said nothing yet, and will find this when it has.
    manifest.stop(folder, "asked to by `python -m hidden_subnet stop`")
    if living:
        print(f"asked to save and end: {'; '.join(living)}", flush=True)
    elif not waiting:
        print(f"nothing was running: {folder.name} has no worker; one that is just starting stops; {GOES_ON}")
        return 0
    end = time.monotonic() + WAIT_SECONDS
    while wait and living and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)
        living = _living(folder)
    if wait and living:
        print(f"after {WAIT_SECONDS:.0f} s there still live: {'; '.join(living)}")
        return 1
    print(f"{folder.name} is asked to stop; {GOES_ON}" if living else f"{folder.name} has stopped; {GOES_ON}")
    return 0


def _living(folder: Path) -> list[str]:
    """Its workers, and its tasks in Slurm that have not said yet that they are, or no longer."""
    by = onlooker(folder.parents[1])
    found = workers(folder, by.observer)
    tasks = set(running_tasks(folder, by)) - {worker.owner.slurm for worker in found}
    return [*(str(worker.owner) for worker in found), *(f"Slurm {task}" for task in sorted(tasks))]
