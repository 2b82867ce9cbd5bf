"""`python -m hidden_subnet stop`: ask the workers of a sweep, on any machine, to save and stop."""

import time
from functools import partial
from pathlib import Path

from hidden_subnet.config.program import PROGRAM
from hidden_subnet.store import sweeps
from hidden_subnet.store.files import is_done
from hidden_subnet.store.find import find_sweep
from hidden_subnet.store.liveness import LivenessProbe
from hidden_subnet.store.patience import patiently
from hidden_subnet.store.sweeps import live_workers
from hidden_subnet.sweep import slurm
from hidden_subnet.sweep.status import own_waiting_tasks, running_tasks, status_reader

WAIT_SECONDS = 120.0
POLL_SECONDS = 0.5
CONTINUE = "the command that launched it continues it"


def stop(out: Path, name: str, wait: bool) -> int:
    """Ask the workers to stop, cancel those in Slurm's queue, and `wait` for at most two minutes until all have ended.

    Returns the exit code: 1 if some are still running then.
    """
    folder = find_sweep(out, name)
    probe = status_reader(folder.parents[1])
    if waiting := own_waiting_tasks(folder, probe):
        slurm.cancel_waiting(waiting)
        print(f"cancelled in Slurm's queue: {', '.join(waiting)}")
    probe = probe.again()  # Slurm's answer to the first is old now
    running = _running(folder, probe)
    if not running and all(is_done(run) for run in sweeps.read(folder).runs):
        print(f"nothing was running: every run of {folder.name} is done")
        return 0
    # Also if there is none to be seen: a worker that is importing torch is not registered yet, and reads this later.
    sweeps.stop(folder, f"requested by `{PROGRAM} stop`")
    if running:
        print(f"asked to save and stop: {'; '.join(running)}", flush=True)
    elif not waiting:
        print(f"nothing was running: {folder.name} has no worker; one that is starting now will stop; {CONTINUE}")
        return 0
    end = time.monotonic() + WAIT_SECONDS
    while wait and running and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
        probe = probe.again()
        running = patiently(partial(_running, folder, probe))
    if wait and running:
        print(f"still running after {WAIT_SECONDS:.0f} s: {'; '.join(running)}")
        return 1
    print(f"{folder.name} was asked to stop; {CONTINUE}" if running else f"{folder.name} has stopped; {CONTINUE}")
    return 0


def _running(folder: Path, probe: LivenessProbe) -> list[str]:
    """Return the sweep's live workers, and its Slurm tasks that run without being registered as one."""
    found = live_workers(folder, probe)
    tasks = set(running_tasks(folder, probe)) - {worker.holder.slurm for worker in found}
    return [*(str(worker.holder) for worker in found), *(f"Slurm {task}" for task in sorted(tasks))]
