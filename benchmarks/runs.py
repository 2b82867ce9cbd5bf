"""Whole runs and sweeps: packing, starting, what files and trackers cost, `--help`, the accuracy of bf16."""

import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time, thread_time
from typing import Any
from unittest.mock import patch

from benchmarks.timing import Row
from hidden_subnet.config.registries import METHODS, load_parts
from hidden_subnet.config.settings import Config, Data, Init, Model, Precision, Pruning, Tracker, TrackerMode, Train
from hidden_subnet.report.estimate import seconds
from hidden_subnet.store import checkpoints, files
from hidden_subnet.sweep.execute import OpenTrackers, RunObserver, execute, no_trackers
from hidden_subnet.trackers import open_trackers
from hidden_subnet.training.speed import look

load_parts()

ROOT = Path(__file__).parents[1]
QUIET = RunObserver(on_row=lambda row: None, on_step=lambda epoch, batch, batches: None, say=lambda text: None)


def config_of(out: Path, width: float, epochs: int, seed: int = 0) -> Config:
    """conv2 on digits as `python launch.py` has it, on one core and without a tracker."""
    return Config(
        model=Model(name="conv2", width=width),
        init=Init(name="signed_constant"),
        data=Data(name="digits"),
        pruning=Pruning(name="layerwise"),
        method=METHODS["edge_popup"].settings(),
        train=Train(epochs=epochs, threads=1),
        tracker=Tracker(),
        seed=seed,
        out=str(out),
    )


def done(config: Config, open_trackers: OpenTrackers = no_trackers) -> dict[str, Any]:
    outcome = execute(config, QUIET, open_trackers=open_trackers)
    assert outcome.state == "done", outcome.message
    assert outcome.result is not None
    return outcome.result


def launch(*arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "launch.py"), *arguments]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def help_rows(rounds: int) -> list[Row]:
    walls, processor = [], []
    for _ in range(rounds + 1):
        before, start = _children(), perf_counter()
        launch("--help")
        walls.append(perf_counter() - start)
        processor.append(_children() - before)
    return [
        Row(topic="python launch.py --help", name="wall clock", unit="s", samples=walls[1:], goal=1.0),
        Row(topic="python launch.py --help", name="processor", unit="s", samples=processor[1:]),
    ]


def packing_rows(width: float, epochs: int, runs: int, alone: int) -> list[Row]:
    """`runs` seeds in one sweep on two cores, against `alone` runs by themselves in a process that has loaded all."""
    with tempfile.TemporaryDirectory() as folder:
        done(config_of(Path(folder) / "first", width, epochs=1))
        singles = []
        for seed in range(alone):
            start = perf_counter()
            done(config_of(Path(folder) / "alone", width, epochs, seed))
            singles.append(perf_counter() - start)
        start = perf_counter()
        launch(
            "-m",
            f"seed=range({runs})",
            f"model.width={width}",
            f"train.epochs={epochs}",
            "train.threads=1",
            "tracker=none",
            "hydra.launcher.workers=2",
            f"out={folder}/sweep",
        )
        sweep = perf_counter() - start
    one = statistics.median(singles)
    topic = f"{runs} runs of conv2 on digits on 2 cores, wall clock"
    return [
        Row(topic=topic, name="one run alone", unit="s", samples=singles),
        Row(topic=topic, name="the sweep, from the command to its table", unit="s", samples=[sweep]),
        Row(topic=topic, name=f"sweep / ({runs} x alone / 2)", unit="x", samples=[sweep / (runs * one / 2)], goal=1.1),
    ]


def estimate_rows(epochs_of: dict[str, int], width: float) -> list[Row]:
    """Time that plan=true gives, and that of the run."""
    rows = []
    for model, epochs in epochs_of.items():
        with tempfile.TemporaryDirectory() as folder:
            config = config_of(Path(folder), width, epochs)
            config = replace(config, model=replace(config.model, name=model))
            estimated = seconds(config, look(config, "cpu"))
            assert estimated is not None
            took = done(config)["seconds"]
        topic = f"plan=true, {epochs} epochs of {model} on digits"
        rows += [
            Row(topic=topic, name="estimated", unit="s", samples=[estimated]),
            Row(topic=topic, name="the run", unit="s", samples=[took]),
            Row(topic=topic, name="the larger / the smaller", unit="x", samples=[_factor(estimated, took)], goal=1.5),
        ]
    return rows


def _factor(one: float, other: float) -> float:
    return max(one, other) / min(one, other)


def start_rows(runs: int) -> list[Row]:
    """How long after the end of a run the next one begins, in a sweep that executes one at a time."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "sweep"
        settings = ("model=fc", "train.epochs=1", "train.threads=1", "tracker=none", "hydra.launcher.workers=1")
        launch("-m", f"seed=range({runs + 2})", *settings, f"out={out}")
        ends = sorted((_time(path), path.parent) for path in out.glob(f"*/{files.RESULT}"))
        claims = [_time(run / files.CONFIG) for _, run in ends]
        steps = [_time(run / "checkpoints" / files.FIRST) for _, run in ends]
    # The first run of a sweep waits for the processes that execute runs.
    to_claim, to_step = (
        [begin - end for (end, _), begin in zip(ends[1:], begins[2:], strict=False)] for begins in (claims, steps)
    )
    topic = "start of a run after another in a sweep, wall clock"
    return [
        Row(topic=topic, name="claimed, settings written", unit="s", samples=to_claim, goal=0.1),
        Row(topic=topic, name="at its first step, untrained measured", unit="s", samples=to_step),
    ]


def accuracy_rows(width: float, epochs: int, seeds: int) -> list[Row]:
    """bf16 with channels_last against fp32: test accuracy of conv2 on digits."""
    reached: dict[str, list[float]] = {"fp32": [], "bf16 + channels_last": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            for name, samples in reached.items():
                config = config_of(Path(folder), width, epochs, seed)
                if name != "fp32":
                    config.train.precision, config.train.channels_last = Precision.bf16, True
                samples.append(100 * done(config)["last"]["test"]["top1"])
    topic = f"accuracy of bf16, conv2 on digits, {epochs} epochs"
    apart, limit = standard_errors_apart(*reached.values())
    return [
        *(Row(topic=topic, name=name, unit="% right", samples=samples) for name, samples in reached.items()),
        Row(topic=topic, name="difference of means / its standard error", unit="x", samples=[apart], goal=limit),
    ]


def standard_errors_apart(one: list[float], other: list[float]) -> tuple[float, float]:
    """The size of the difference of two means in its standard errors, and what noise alone exceeds once in 20."""
    from scipy.stats import t

    error = math.sqrt(sum(statistics.variance(each) / len(each) for each in (one, other)))
    difference = abs(statistics.mean(one) - statistics.mean(other))
    limit = float(t.ppf(0.975, len(one) + len(other) - 2))
    return (difference / error if error else math.inf * difference if difference else 0.0), limit


def cost_rows(width: float, epochs: int) -> list[Row]:
    """Part of a run that goes to checkpoints, rows and trackers: in their calls, and in what they leave to others.

    The calls in wall clock, of the run's; the others in processor time, of that of the training's thread, as if no
    core were free for them.
    """
    spent = 0.0

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*arguments: Any, **named: Any) -> Any:
            nonlocal spent
            start = perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                spent += perf_counter() - start

        return inner

    class Timed:
        def __init__(self, tracker: Any) -> None:
            self.log, self.finish = timed(tracker.log), timed(tracker.finish)

    opened = timed(open_trackers)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as patches:
        config = config_of(Path(folder), width, epochs)
        config.tracker = Tracker(to={"wandb": True, "tensorboard": True}, mode=TrackerMode.offline)
        first = replace(config, train=replace(config.train, epochs=1), seed=1)
        done(first, open_trackers)  # what is loaded late, in a sweep once for all of its runs
        for module, name in ((checkpoints, "save"), (files, "append_row")):
            patches.enter_context(patch.object(module, name, timed(vars(module)[name])))
        before = (perf_counter(), thread_time(), process_time(), _children())
        done(config, lambda *given: [Timed(each) for each in opened(*given)])
        after = (perf_counter(), thread_time(), process_time(), _children())
    wall, training, process, children = (now - then for now, then in zip(after, before, strict=True))
    calls, others = spent / wall, (process - training + children) / training
    topic = f"checkpoints, TensorBoard, W&B: part of {training:.0f} s, {epochs} epochs"
    return [
        Row(topic=topic, name="within their calls", unit="%", samples=[100 * calls]),
        Row(topic=topic, name="with other threads and processes", unit="%", samples=[100 * (calls + others)], goal=2.0),
    ]


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _time(path: Path) -> float:
    return path.stat().st_mtime_ns / 1e9
