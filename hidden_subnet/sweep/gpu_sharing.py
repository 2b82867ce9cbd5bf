"""hydra.launcher.jobs_per_gpu=auto: measure for a few seconds how many runs should share a GPU."""

import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError

import torch

from hidden_subnet.config.registries import method_traits
from hidden_subnet.config.settings import Config
from hidden_subnet.sweep import processes
from hidden_subnet.sweep.fork_server import fork_server
from hidden_subnet.sweep.places import hold_one
from hidden_subnet.training.devices import cores
from hidden_subnet.training.speed import steps_per_second

SECONDS = 3.0
"""Seconds of training steps that are counted, for each number of runs."""
MOST = 8
"""Largest number of runs on a GPU that is tried."""
GAIN = 1.05
"""Factor by which one more run on the GPU must increase the steps per second of all runs together."""
PATIENCE = 300.0
"""Seconds until the slowest run must be ready to be measured."""


def slots_for(
    configs: list[Config], workers: int | None, jobs_per_gpu: int | None, say: Callable[[str], None]
) -> processes.Slots:
    """Plan the slots of a worker (processes.plan_slots); with jobs_per_gpu=None (auto) measure how many share a GPU.

    `say` gets a line about the measurement. If a run later finds no memory, fewer runs share a GPU from then on.
    """
    if jobs_per_gpu is not None:
        return processes.plan_slots(configs, workers, jobs_per_gpu)
    gpus = processes.gpus_for(configs)
    chosen = measure_jobs_per_gpu(configs, gpus, say)
    return processes.plan_slots(configs, workers, chosen, fewer=True, gpus=gpus)


def measure_jobs_per_gpu(
    configs: list[Config],
    gpus: list[str],
    say: Callable[[str], None],
    *,
    speed_of: Callable[[Config, str, int], float | None] | None = None,
    most: int | None = None,
    locks: Path | None = None,
) -> int:
    """Measure on one of `gpus` how many of the runs should share it; 1 if that cannot be measured.

    `say` gets one line with the result or the reason. `speed_of(config, gpu, runs)` measures the steps per second,
    by default `together`. `most`: largest number of runs to try, by default one per core that a GPU has, at most
    MOST. `locks`: folder of the locks on the GPUs (places.hold_one).
    """
    setting = "hydra.launcher.jobs_per_gpu=auto"
    trained = [config for config in configs if method_traits(config).is_trained()]
    if not gpus:
        say(f"{setting}: there is no GPU for these runs, so there is nothing to choose")
        return 1
    if not trained or max(config.train.devices for config in configs) > 1:
        why = "a run with train.devices above 1 has its GPUs to itself" if trained else "nothing is trained"
        say(f"{setting}: 1, as {why}")
        return 1
    held = hold_one(gpus, 1, locks)
    if held is None:
        say(f"{setting}: 1, as every GPU is in use by other runs, which would disturb the measurement")
        return 1
    gpu, lock = held
    measure = speed_of or together
    most = most or min(MOST, max(1, cores() // len(gpus)))
    try:
        chosen, speeds = choose(lambda runs: measure(trained[0], gpu, runs), most)
    finally:
        os.close(lock)
    shown = ", ".join(f"{runs}: {speed:.4g}" for runs, speed in enumerate(speeds, start=1))
    say(f"{setting}: {chosen}; steps per second by number of runs: {shown or 'could not be measured'}")
    return chosen


def choose(speed_of: Callable[[int], float | None], most: int) -> tuple[int, list[float]]:
    """Choose the number of runs beyond which one more gains too little; also returns the measured speeds.

    `speed_of(n)`: steps per second of n runs together, or None if n do not fit. Tries 1, 2, ... up to `most`.
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
    """Training steps per second of `runs` copies of the run together on one GPU; None if one of them fails."""
    context = fork_server()
    start = context.Barrier(runs)
    threads = max(1, cores() // runs)
    pipes, processes = [], []
    for _ in range(runs):
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=_run_steps, args=(config, gpu, threads, seconds, start, send), daemon=True)
        process.start()
        send.close()
        pipes.append(receive)
        processes.append(process)
    try:
        speeds = [_received(pipe) for pipe in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()
    return None if None in speeds else sum(speed for speed in speeds if speed is not None)


def _received(pipe: "Connection[None, float | None]") -> float | None:
    try:
        return pipe.recv() if pipe.poll(2 * PATIENCE) else None
    except EOFError:  # the process died
        return None


def _run_steps(
    config: Config, gpu: str, threads: int, seconds: float, start: Barrier, send: "Connection[float | None, None]"
) -> None:
    """Measure the steps of this process beside those of others, and send the result."""
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    torch.set_num_threads(threads)
    try:
        send.send(steps_per_second(config, seconds, lambda: start.wait(PATIENCE)))
    except (RuntimeError, MemoryError, ValueError, BrokenBarrierError):  # out of memory, here or in another of them
        start.abort()
        send.send(None)
