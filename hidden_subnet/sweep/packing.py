"""hydra.launcher.jobs_per_gpu=auto: how many runs share a GPU, by a few seconds of training steps side by side."""

import os
import time
from collections.abc import Callable, Iterator
from itertools import count as counter
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from threading import BrokenBarrierError

import torch
from torch import Tensor

from hidden_subnet.dataset import info_of
from hidden_subnet.experiment import choose_device, deterministic, unmasked
from hidden_subnet.fit import faster_steps
from hidden_subnet.methods.table import METHODS
from hidden_subnet.optimizers import make_optimizer
from hidden_subnet.ranks import cores
from hidden_subnet.settings import Config
from hidden_subnet.subnetwork import put_masks
from hidden_subnet.sweep import pool
from hidden_subnet.sweep.forking import fork_server
from hidden_subnet.sweep.gpus import hold_one
from hidden_subnet.training import Sums, train_epoch

SECONDS = 3.0
"""Of steps that are counted, for each number of runs."""
WARM = 10
"""Steps before that, which allocate, compile and record."""
MOST = 8
GAIN = 1.05
"""A further run on the GPU has to make all of them together so much faster."""
PATIENCE = 300.0
"""Seconds for the slowest of them to get ready."""


def slots_for(
    configs: list[Config], workers: int | None, jobs_per_gpu: int | None, say: Callable[[str], None]
) -> pool.Slots:
    """pool.plan_slots with so many runs a GPU, or for None (auto) as many as a measurement finds, of which `say` tells.

    Where they turn out to be too many for its memory, they become fewer.
    """
    chosen = _measured(configs, say) if jobs_per_gpu is None else jobs_per_gpu
    return pool.plan_slots(configs, workers, chosen, fewer=jobs_per_gpu is None)


def _measured(configs: list[Config], say: Callable[[str], None]) -> int:
    said = "hydra.launcher.jobs_per_gpu=auto"
    gpus = pool.gpus_for(configs)
    trained = [config for config in configs if METHODS[config.method.name].trains != "nothing"]
    if not gpus:
        say(f"{said}: there is no GPU for these runs, so there is nothing to choose")
        return 1
    if not trained or max(config.train.devices for config in configs) > 1:
        why = "a run has its GPUs to itself" if trained else "nothing is trained"
        say(f"{said}: 1, as {why}")
        return 1
    held = hold_one(gpus, 1)
    if held is None:
        say(f"{said}: 1, as other runs are on every GPU, beside which nothing can be measured")
        return 1
    gpu, lock = held
    try:
        chosen, speeds = choose(lambda runs: together(trained[0], gpu, runs), min(MOST, max(1, cores() // len(gpus))))
    finally:
        os.close(lock)
    shown = ", ".join(f"{runs}: {speed:.4g}" for runs, speed in enumerate(speeds, start=1))
    say(f"{said}: {chosen}, by steps a second of so many runs together: {shown or 'it could not be measured'}")
    return chosen


def choose(speed_of: Callable[[int], float | None], most: int) -> tuple[int, list[float]]:
    """The number of runs from which on a further one is not worth it, and what was measured, from one run on.

    `speed_of` gives the steps a second of all together; None where so many do not fit.
    """
    speeds: list[float] = []
    for runs in range(1, most + 1):
        speed = speed_of(runs)
        if speed is None:
            break
        speeds.append(speed)
        if runs > 1 and speed < GAIN * speeds[-2]:
            return runs - 1, speeds
    return max(1, len(speeds)), speeds


def together(config: Config, gpu: str, runs: int, seconds: float = SECONDS) -> float | None:
    """Training steps a second of so many runs of `config` on one GPU; None where one of them fails."""
    context = fork_server()
    start = context.Barrier(runs)
    threads = max(1, cores() // runs)
    pipes, processes = [], []
    for _ in range(runs):
        hear, tell = context.Pipe(duplex=False)
        process = context.Process(target=_run_steps, args=(config, gpu, threads, seconds, start, tell), daemon=True)
        process.start()
        tell.close()
        pipes.append(hear)
        processes.append(process)
    try:
        speeds = [_heard(pipe) for pipe in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()
    return None if None in speeds else sum(speed for speed in speeds if speed is not None)


def _heard(pipe: "Connection[None, float | None]") -> float | None:
    try:
        return pipe.recv() if pipe.poll(2 * PATIENCE) else None
    except EOFError:  # it died
        return None


def _run_steps(
    config: Config, gpu: str, threads: int, seconds: float, start: Barrier, tell: "Connection[float | None, None]"
) -> None:
    """The whole life of a process that steps beside others."""
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    torch.set_num_threads(threads)
    try:
        tell.send(steps_per_second(config, seconds, lambda: start.wait(PATIENCE)))
    except (RuntimeError, MemoryError, ValueError, BrokenBarrierError):  # out of memory, here or in another of them
        start.abort()
        tell.send(None)


def steps_per_second(config: Config, seconds: float, wait: Callable[[], object]) -> float:
    """Of training steps on random images of the data's size; `wait` returns once all others are ready as well."""
    device = choose_device(config.train.device)
    deterministic(device)
    network = unmasked(config, device)
    course = put_masks(network.model, config)
    course.begin_epoch(0)
    info, size = info_of(config.data), config.train.batch_size
    batch = torch.rand(size, *info.shape, device=device), torch.arange(size, device=device) % info.classes
    marks: list[tuple[int, float]] = []

    def now() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for step in counter():
            if step == WARM:
                now()
                wait()
                marks.append((step, now()))
            # Seldom enough that the device does not wait for the question.
            elif step > WARM and step % WARM == 0 and now() - marks[0][1] >= seconds:
                marks.append((step, now()))
                return
            yield batch

    steps = counter()
    train_epoch(
        network.model,
        batches(),
        make_optimizer(network.model, config.train),
        config.train.label_smoothing,
        Sums(device),
        lambda: None,
        before_step=lambda: course.before_step(next(steps)),
        penalty=course.penalty,
        **faster_steps(network.model, config.train),
    )
    (first, began), (last, ended) = marks
    return (last - first) / (ended - began)
