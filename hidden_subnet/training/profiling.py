"""train.profile: a trace of a few training steps, which shows where the time of a step goes."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch.profiler import ProfilerActivity, profile, schedule

from hidden_subnet.store import files, folders
from hidden_subnet.training.callbacks import Callbacks

SKIPPED, STEPS = 2, 3
"""Steps that are skipped, since the first ones allocate and choose algorithms, and steps that are traced."""


@contextmanager
def profiled(folder: Path, device: str, in_all: int, callbacks: Callbacks) -> Iterator[Callbacks]:
    """Give callbacks that trace the third to fifth step of this process, and write profile.json into `folder`.

    Where the training has fewer than five steps (`in_all`), they trace its last three. Results do not change.
    """
    # Otherwise the profiler writes to stderr when it starts and stops, and where there is no GPU.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    skipped, done = max(0, min(SKIPPED, in_all - STEPS)), 0
    warmup = min(1, skipped)

    def write(trace: profile) -> None:
        if done == skipped:  # the run stopped before a step was traced
            return
        with TemporaryDirectory() as private:  # torch itself would follow a link in the run's folder
            trace.export_chrome_trace(f"{private}/{files.PROFILE}")
            folders.write_atomically(folder / files.PROFILE, Path(private, files.PROFILE).read_bytes())
        callbacks.say(
            f"steps {skipped + 1} to {done} are in the run's {files.PROFILE}, for chrome://tracing or ui.perfetto.dev"
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a trace without warm-up, where the training has three steps at most
        when = schedule(wait=skipped - warmup, warmup=warmup, active=STEPS, repeat=1)
    with profile(activities=activities, schedule=when, on_trace_ready=write, record_shapes=True) as trace:

        def on_step(epoch: int, batch: int, batches: int) -> None:
            nonlocal done
            done += 1
            trace.step()
            callbacks.on_step(epoch, batch, batches)

        yield replace(callbacks, on_step=on_step)
