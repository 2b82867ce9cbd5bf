"""A sweep on this machine: slots that execute one run after the other, each run in a child process of its own.

Children come from a fork server that has imported torch once, so a run starts in tens of milliseconds, and what
one run does to its process (a crash, a leak, random state) no other run can see. What a run says reaches the parent
through its folder alone, as it would from another machine.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from hidden_subnet import record
from hidden_subnet.config import Config, Device
from hidden_subnet.execute import EXIT_CODES, Display, execute

# The last ones are slow to import and come in only when a run first needs them; torch's optimizers pull in _dynamo.
PRELOAD = ["hidden_subnet.execute", "sklearn.datasets", "torch._dynamo", "wandb", "wandb.sdk.launch", "requests"]
ENDED = ("done", "failed", "interrupted", "busy")
EXIT_BUSY = 3  # a run's process says more than `python launch.py`, where busy is a failure like any other


@dataclass
class Job:
    config: Config
    folder: Path
    state: str = "queued"
    """queued, running, done, skipped, failed, interrupted, or busy."""
    message: str = ""
    process: BaseProcess | None = None
    slot: int = 0

    def end_process(self, kill: bool = False) -> None:
        """Ask the run to save and stop (or kill it); one that has ended by itself does not mind."""
        if self.process is not None:
            self.process.kill() if kill else self.process.terminate()


@dataclass(frozen=True)
class Slots:
    count: int
    threads: int
    gpus: list[str] = field(default_factory=list)


def plan_slots(configs: list[Config], workers: int | None) -> Slots:
    """A slot a GPU; on a CPU as many as its cores allow with train.threads each, or one a core."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    gpus = _visible_gpus() if all(c.train.device in (Device.auto, Device.cuda) for c in configs) else []
    asked = max((c.train.threads or 0) for c in configs)
    count = workers or len(gpus) or max(1, cores // (asked or 1))
    count = min(count, len(configs))
    return Slots(count=count, threads=asked or max(1, cores // count), gpus=gpus)


def _visible_gpus() -> list[str]:
    count = torch.cuda.device_count()  # asks the driver without starting CUDA in this process
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return [named[k] if len(named) == count and named[k] else str(k) for k in range(count)]


def run_all(jobs: list[Job], slots: Slots, sweep: str, watch: Callable[[list[Job]], None]) -> None:
    """Execute every job; `watch` is called several times a second. Returns when all have ended.

    INT, TERM and HUP let the running children save and stop, and start no further ones.
    """
    context = _fork_server()
    waiting = [job for job in jobs if job.state == "queued"][::-1]
    running: list[Job] = []
    free = list(range(slots.count))
    stopping: list[int] = []

    def stop(number: int, frame: object) -> None:
        if stopping:
            for job in running:
                job.end_process(kill=True)
        else:
            print("\nstopping: every run saves at its next step (once more kills them)", file=sys.stderr)
        stopping.append(number)
        if len(stopping) == 1:
            for job in running:
                job.end_process()

    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        while running or (waiting and not stopping):
            while waiting and free and not stopping:
                job = waiting.pop()
                job.slot = free.pop(0)
                _start(context, job, slots, sweep)
                running.append(job)
                if stopping:  # the signal came while this one was starting
                    job.end_process()
            watch(jobs)
            time.sleep(0.05)
            for job in [job for job in running if job.process is not None and not job.process.is_alive()]:
                _end(job)
                running.remove(job)
                free.append(job.slot)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        watch(jobs)


def _start(context: "multiprocessing.context.ForkServerContext", job: Job, slots: Slots, sweep: str) -> None:
    gpu = slots.gpus[job.slot % len(slots.gpus)] if slots.gpus else None
    job.process = context.Process(target=_child, args=(job.config, job.folder, slots.threads, gpu, sweep))
    job.process.start()
    job.state = "running"


def _end(job: Job) -> None:
    process, job.process = job.process, None  # first: a signal's handler must not meet a closed process
    assert process is not None
    code = process.exitcode
    assert code is not None
    # A sweep of thousands must not hold two file descriptors for each run that has ended.
    process.close()
    # The exit code first: files of an earlier execution may lie in the folder.
    if code == 0:
        job.state = "done"
    elif code == EXIT_BUSY:
        job.state, job.message = "busy", "another process is executing this run"
    elif code == EXIT_CODES["interrupted"]:
        job.state, job.message = "interrupted", "saved; the same command goes on"
    elif code == -signal.SIGTERM:
        job.state, job.message = "interrupted", "stopped before it began; the same command runs it"
    elif code == EXIT_CODES["failed"] and (job.folder / record.ERROR).exists():
        job.state = "failed"
        job.message = (job.folder / record.ERROR).read_text().rstrip().splitlines()[-1]
    else:
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}, see {job.folder / record.LOG}"
        job.state, job.message = "failed", f"the process of the run died ({how}); the same command runs it again"


def _fork_server() -> "multiprocessing.context.ForkServerContext":
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    # It inherits that Ctrl-C is ignored, which would otherwise end it while it still imports. And its children import
    # the package that this process imported, which need not be the installed one.
    before, path = signal.signal(signal.SIGINT, signal.SIG_IGN), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), path]))
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path
    return context


def _stop_with_parent() -> None:
    """Let the run save and stop when the sweep's process is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait_for_it() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_it, daemon=True).start()


def _child(config: Config, folder: Path, threads: int, gpu: str | None, sweep: str) -> None:
    """The whole life of a run's process; its exit code tells the parent what its folder does not."""
    # The terminal sends Ctrl-C to every process; the parent alone decides, and asks the children with TERM.
    os.setsid()
    _stop_with_parent()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    folder.mkdir(parents=True, exist_ok=True)
    log = os.open(folder / record.LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    torch.set_num_threads(threads)
    outcome = execute(config, Display(_ignore, _ignore, _ignore), sweep)
    sys.exit(EXIT_BUSY if outcome.state == "busy" else EXIT_CODES[outcome.state])


def _ignore(*anything: object) -> None:
    pass
