"""train.profile: a trace of a few steps of the training, for one who wants to see where a step's time goes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from hidden_subnet import record
from hidden_subnet.fit import Hooks

SKIPPED, STEPS = 2, 3
"""The first steps allocate, and choose algorithms."""


@contextmanager
def profiled(folder: Path, device: str, in_all: int, hooks: Hooks) -> Iterator[Hooks]:
    """Hooks that trace the third to fifth step of this process, and write record.PROFILE into `folder`.

    Where the training has fewer steps `in_all`, its last three. Changes no number of the training.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it tells on stderr that it starts and stops, and of a missing GPU
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    trace = profile(activities=activities, record_shapes=True)
    first = max(0, min(SKIPPED, in_all - STEPS))
    done, running = 0, False

    def start() -> None:
        nonlocal running
        running = True
        trace.start()

    def write() -> None:
        nonlocal running
        running = False
        trace.stop()
        trace.export_chrome_trace(str(folder / record.PROFILE))
        hooks.say(
            f"steps {first + 1} to {done} are in the run's {record.PROFILE}, for chrome://tracing or ui.perfetto.dev"
        )

    def on_step(epoch: int, batch: int, batches: int) -> None:
        nonlocal done
        done += 1
        if done == first:
            start()
        elif done == min(first + STEPS, in_all):
            write()
        hooks.on_step(epoch, batch, batches)

    if first == 0:
        start()
    try:
        yield replace(hooks, on_step=on_step)
    finally:
        if running:  # stopped or failed in between, or with fewer steps
            write()
