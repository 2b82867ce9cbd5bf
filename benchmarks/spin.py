"""Threads that wait at a barrier by spinning: how long and how patiently they do it, idle and beside two busy programs.

libgomp reads these variables where it is loaded, so each setting has a process of its own, which waits for its turn.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import IO, Any

from benchmarks.timing import Row, by_turns, ratios

UNSET = "unset"
SETTINGS: dict[str, dict[str, str]] = {
    UNSET: {},
    **{f"GOMP_SPINCOUNT={count}": {"GOMP_SPINCOUNT": str(count)} for count in (1_000, 10_000, 30_000, 100_000)},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
CORES = 2
"""Number of threads, and of processor cores that they and the busy programs share, whatever else the machine has."""
BUSY = 2
_STEPS = "benchmarks.spin"


def rows(steps: dict[str, int], width: float, batch: int, rounds: int) -> list[Row]:
    """`steps` of each network in each of `rounds`; with fewer cores than two there is no second thread to wait for."""
    cores = sorted(os.sched_getaffinity(0))[:CORES] if sys.platform == "linux" else []
    if len(cores) < CORES:
        return [Row(topic="spinning threads", name="a step", unit="ms", samples=[], note="needs Linux and two cores")]
    found = []
    for name, count in steps.items():
        with _stepping(name, width, batch, cores) as rivals:
            calls = {setting: partial(call, count) for setting, call in rivals.items()}
            for where, busy in (("idle", 0), (f"{BUSY} busy programs", BUSY)):
                with _busy_programs(busy, cores):
                    seconds = by_turns(calls, rounds, clock=perf_counter)
                topic = f"step of {name}, batch {batch}, {CORES} threads and cores, {where}, wall clock"
                found += _rows(topic, count, seconds)
    return found


def _rows(topic: str, steps: int, seconds: dict[str, list[float]]) -> Iterator[Row]:
    plain = seconds[UNSET]
    yield Row(topic=topic, name=UNSET, unit="ms", samples=[1e3 * each / steps for each in plain])
    for setting, samples in seconds.items():
        if setting != UNSET:
            yield Row(topic=topic, name=f"{setting} / {UNSET}", unit="x", samples=ratios(samples, plain))


@contextmanager
def _stepping(name: str, width: float, batch: int, cores: list[int]) -> Iterator[dict[str, Callable[[int], None]]]:
    """Give for each setting a function that has its process make so many steps."""
    given = {key: value for key, value in os.environ.items() if not key.startswith(("GOMP_", "OMP_"))}
    command = [sys.executable, "-m", _STEPS, name, str(width), str(batch)]
    with ExitStack() as stack:
        rivals: dict[str, Callable[[int], None]] = {}
        for setting, variables in SETTINGS.items():
            process = stack.enter_context(_process(command, cores, {**given, **variables}))
            rivals[setting] = partial(_ask, process)
        yield rivals


def _ask(process: "subprocess.Popen[str]", steps: int) -> None:
    _stream(process.stdin).write(f"{steps}\n")
    _stream(process.stdin).flush()
    if not _stream(process.stdout).readline():
        raise RuntimeError(f"{process.args!r} ended with code {process.wait()}")


def _stream(of: IO[str] | None) -> IO[str]:
    assert of is not None
    return of


@contextmanager
def _process(command: list[str], cores: list[int], environment: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[1],
    )
    try:
        os.sched_setaffinity(process.pid, cores)
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def _busy_programs(count: int, cores: list[int]) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(_process([sys.executable, "-c", "while True: pass"], cores, dict(os.environ)))
        yield


def _step_when_asked(name: str, width: float, batch: int, asked: Iterator[str], answer: Callable[[Any], None]) -> None:
    import torch

    from benchmarks.network import CIFAR, batch_of, network, ours, stepper
    from hidden_subnet.training.acceleration import freed_memory_kept

    torch.manual_seed(0)
    torch.set_num_threads(CORES)
    shape = (1, 28, 28) if name == "fc" else CIFAR
    with freed_memory_kept():  # as in every run
        step = stepper(network(name, width, ours(), shape=shape), batch_of(batch, shape))
        for line in asked:
            for _ in range(int(line)):
                step()
            answer("")


if __name__ == "__main__":
    _step_when_asked(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.stdin, partial(print, flush=True))
