"""python -m benchmarks [ROW ...] [--quick] [--json PATH]: measures, prints the table, writes the numbers."""

import argparse
import json
import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import augmentation, epoch, exported, gpu, gpu_sweep, levers, mask, memory, runs, scale, spin, step
from benchmarks.timing import Row
from hidden_subnet.training.acceleration import freed_memory_kept

# What is measured, and the same at a size that takes seconds.
TOPICS: dict[str, tuple[Callable[[], list[Row]], Callable[[], list[Row]]]] = {
    "mask": (
        partial(mask.rows, sizes=(2_359_296, 4_194_304), rounds=9),
        partial(mask.rows, sizes=(5_000, 10_000), rounds=2),
    ),
    "step": (
        partial(step.rows, width=1.0, batch=128, rounds={"conv2": 11, "conv4": 11, "cifar_resnet18": 5}),
        partial(step.rows, width=0.05, batch=4, rounds={"conv2": 2, "conv4": 2, "cifar_resnet18": 2}),
    ),
    "methods": (
        partial(step.method_rows, width=1.0, batch=128, rounds={"conv2": 7, "conv4": 7}),
        partial(step.method_rows, width=0.05, batch=4, rounds={"conv2": 1, "conv4": 1}),
    ),
    "exported": (
        partial(exported.rows, width=1.0, batch=128, rounds=15),
        partial(exported.rows, width=0.05, batch=4, rounds=1),
    ),
    "levers": (
        partial(levers.rows, name="conv2", width=1.0, batch=128, rounds=5),
        partial(levers.rows, name="conv2", width=0.05, batch=4, rounds=1),
    ),
    "spin": (
        partial(spin.rows, {"conv2": 5, "conv4": 5, "fc": 50, "cifar_resnet18": 1}, width=1.0, batch=128, rounds=7),
        partial(spin.rows, {"fc": 2}, width=0.1, batch=4, rounds=1),
    ),
    "epoch": (
        partial(epoch.rows, width=1.0, images=60_000, batch=128, rounds=3),
        partial(epoch.rows, width=0.1, images=200, batch=32, rounds=2),
    ),
    "augmentation": (
        partial(augmentation.rows, images=50_000, batch=128, rounds=7),
        partial(augmentation.rows, images=100, batch=32, rounds=2),
    ),
    "memory": (
        partial(memory.rows, names=("conv2", "conv4", "cifar_resnet18"), width=1.0, batch=128),
        partial(memory.rows, names=("conv2",), width=0.05, batch=4),
    ),
    "accuracy": (
        partial(runs.accuracy_rows, width=1.0, epochs=15, seeds=5),
        partial(runs.accuracy_rows, width=0.1, epochs=1, seeds=2),
    ),
    "cost": (partial(runs.cost_rows, width=1.0, epochs=150), partial(runs.cost_rows, width=0.1, epochs=1)),
    "help": (partial(runs.help_rows, rounds=7), partial(runs.help_rows, rounds=1)),
    "start": (partial(runs.start_rows, runs=20), partial(runs.start_rows, runs=1)),
    "estimate": (
        partial(runs.estimate_rows, {"conv2": 4, "conv4": 4, "fc": 60, "cifar_resnet18": 2}, width=1.0),
        partial(runs.estimate_rows, {"fc": 1}, width=0.1),
    ),
    "packing": (
        partial(runs.packing_rows, width=1.0, epochs=15, runs=27, alone=3),
        partial(runs.packing_rows, width=0.1, epochs=1, runs=2, alone=1),
    ),
    "scale": (partial(scale.many_rows, runs=20_000, rounds=1), partial(scale.many_rows, runs=10, rounds=1)),
    "gpu": (
        partial(gpu.rows, "cuda", width=1.0, batch=128, images=50_000, steps=20, rounds=5),
        partial(gpu.rows, "cuda", width=0.1, batch=8, images=64, steps=2, rounds=1),
    ),
    "gpu_sweep": (
        partial(gpu_sweep.rows, "cuda", width=1.0, images=50_000, batch=128, epochs=100, rates=9, seeds=5),
        partial(gpu_sweep.rows, "cuda", width=0.05, images=200, batch=32, epochs=1, rates=2, seeds=1),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed, mostly on one core.")
    parser.add_argument("topics", nargs="*", metavar="ROW", help=f"only these of {', '.join(TOPICS)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, not how fast")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="where the numbers go")
    options = parser.parse_args()
    if unknown := set(options.topics) - TOPICS.keys():
        parser.error(f"{', '.join(sorted(unknown))}: there is no such row; choose among {', '.join(TOPICS)}")
    torch.set_num_threads(1)
    setting = {"quick": options.quick, "threads": 1, **machine()}
    with freed_memory_kept():  # as in every run
        rows = measure(options.topics or TOPICS, options.quick)
    console = Console()
    console.width = max(console.width, 100)  # where the output is no terminal
    console.print(table(rows))
    console.print("\n{cpu}, {gpu}, torch {torch}, numpy {numpy}".format(**setting))
    content = {"setting": setting, "rows": [as_json(row) for row in rows]}
    options.json.write_text(json.dumps(content, indent=1) + "\n")
    console.print(f"written to {options.json.absolute()}", soft_wrap=True)


def measure(topics: Iterable[str], quick: bool) -> list[Row]:
    """The goals are about the full sizes and left out of quick ones."""
    rows = []
    for topic in topics:
        torch.manual_seed(0)
        full, small = TOPICS[topic]
        rows += [replace(row, goal=None) for row in small()] if quick else full()
    return rows


def machine() -> dict[str, str]:
    return {
        "cpu": _cpu(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU",
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def as_json(row: Row) -> dict[str, object]:
    return {**asdict(row), "n": len(row.samples), "median": row.median, "met": row.met}


def table(rows: list[Row]) -> Table:
    shown = Table(box=box.SIMPLE, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("processor time on one core, if nothing else is said", no_wrap=True)
    for heading in ("median", "min-max", "n", "goal"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("", no_wrap=True)
    topic = ""
    for row in rows:
        if row.topic != topic:
            topic = row.topic
            shown.add_row(topic, style="bold")
        shown.add_row(
            f"  {row.name}" + f", {row.unit}" * bool(row.unit),
            row.note if row.median is None else _number(row.median),
            "-".join(dict.fromkeys(_number(bound(row.samples)) for bound in (min, max))) if row.samples else "",
            str(len(row.samples) or ""),
            "" if row.goal is None else f"{'>=' if row.at_least else '<='} {row.goal:.4g}",
            {None: "", True: "met", False: "missed"}[row.met],
        )
    return shown


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
