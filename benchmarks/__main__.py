"""python -m benchmarks [--quick] [--json PATH]: measures, prints the table, writes the numbers."""

import argparse
import json
import platform
from dataclasses import asdict, replace
from pathlib import Path

import numpy
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import augmentation, mask, step
from benchmarks.timing import Row
from hidden_subnet.memory import keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed on one core.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, not how fast")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="where the numbers go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as every run does
    torch.manual_seed(0)
    setting = {"quick": options.quick, "threads": 1, **machine()}
    rows = quick() if options.quick else full()
    console = Console()
    console.print(table(rows))
    console.print("\n{cpu}, torch {torch}, numpy {numpy}".format(**setting))
    content = {"setting": setting, "rows": [as_json(row) for row in rows]}
    options.json.write_text(json.dumps(content, indent=1) + "\n")
    console.print(f"written to {options.json.absolute()}", soft_wrap=True)


def full() -> list[Row]:
    return [
        *mask.rows(sizes=(2_359_296, 4_194_304), rounds=9),
        *step.rows(width=1.0, batch=128, rounds=11),
        *augmentation.rows(images=50_000, batch=128, rounds=7),
    ]


def quick() -> list[Row]:
    """Every row at a size that takes seconds; the goals are about the full sizes and left out."""
    rows = [
        *mask.rows(sizes=(5_000, 10_000), rounds=2),
        *step.rows(width=0.05, batch=4, rounds=2),
        *augmentation.rows(images=100, batch=32, rounds=2),
    ]
    return [replace(row, goal=None) for row in rows]


def machine() -> dict[str, str]:
    return {
        "cpu": _cpu(),
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
    shown.add_column("one core", no_wrap=True)
    for heading in ("median", "min-max", "n", "goal"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("", no_wrap=True)
    topic = ""
    for row in rows:
        if row.topic != topic:
            topic = row.topic
            shown.add_row(topic, style="bold")
        low, high = (_number(bound(row.samples)) for bound in (min, max))
        shown.add_row(
            f"  {row.name}, {row.unit}",
            _number(row.median),
            f"{low}-{high}",
            str(len(row.samples)),
            "" if row.goal is None else f"<= {row.goal:g}",
            {None: "", True: "met", False: "missed"}[row.met],
        )
    return shown


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
