"""Settings that trade rounding or memory for speed: how much each gains in a step on this CPU."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter

import torch

from benchmarks.network import by_sorting, compiled_step_of, ours, step_of
from benchmarks.timing import Row, by_turns, ratios
from hidden_subnet.errors import ConfigError
from hidden_subnet.training.acceleration import freed_memory_kept, refuse_bfloat16, refuse_compilation


def rows(name: str, width: float, batch: int, rounds: int) -> list[Row]:
    return [
        *_formats(name, width, batch, rounds),
        *_threads(name, width, batch, rounds),
        *_malloc(name, width, batch, rounds),
    ]


def _formats(name: str, width: float, batch: int, rounds: int) -> list[Row]:
    topic = f"formats, step of {name}, batch {batch}"
    rivals: dict[str, Callable[[], object]] = {
        "fp32": step_of(name, width, batch, ours()),
        "channels_last": step_of(name, width, batch, ours(), channels_last=True),
    }
    try:
        refuse_bfloat16("cpu")
    except ConfigError:
        note = "no bfloat16 here"
    else:
        note = ""
        rivals["bf16"] = step_of(name, width, batch, ours(), bf16=True)
        rivals["bf16 + channels_last"] = step_of(name, width, batch, ours(), bf16=True, channels_last=True)
        rivals["by sorting, fp32"] = step_of(name, width, batch, by_sorting())
    try:
        refuse_compilation("cpu")
    except ConfigError:
        pass
    else:
        rivals["compile"] = compiled_step_of(name, width, batch, ours())
    seconds = by_turns(rivals, rounds)
    made = [
        Row(topic=topic, name=f"fp32 / {lever}", unit="x", samples=ratios(seconds["fp32"], seconds[lever]))
        for lever in ("channels_last", "bf16", "bf16 + channels_last", "compile")
        if lever in seconds
    ]
    best = "by sorting, fp32 / bf16 + channels_last"
    if note:
        return [*made, Row(topic=topic, name=best, unit="x", samples=[], note=note)]
    samples = ratios(seconds["by sorting, fp32"], seconds["bf16 + channels_last"])
    # The goal is about processors with matrix units; others have the same products in bfloat16 at half the speed.
    goal = 2.3 if has_amx() else None
    return [*made, Row(topic=topic, name=best, unit="x", samples=samples, goal=goal, at_least=True)]


def has_amx() -> bool:
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def _threads(name: str, width: float, batch: int, rounds: int) -> list[Row]:
    step = step_of(name, width, batch, ours())

    def with_threads(count: int) -> Callable[[], None]:
        def run() -> None:
            torch.set_num_threads(count)
            step()
            torch.set_num_threads(1)

        return run

    seconds = by_turns({"1": with_threads(1), "2": with_threads(2)}, rounds, clock=perf_counter)
    topic = f"threads, step of {name}, batch {batch}"
    return [Row(topic=topic, name="1 / 2 threads, wall clock", unit="x", samples=ratios(seconds["1"], seconds["2"]))]


def _malloc(name: str, width: float, batch: int, rounds: int) -> list[Row]:
    """Each in a process of its own, since malloc's settings cannot be taken back."""
    seconds: dict[str, list[float]] = {"kept": [], "given back": []}
    for i in range(rounds):
        for how in sorted(seconds, reverse=bool(i % 2)):
            command = [sys.executable, "-m", "benchmarks.levers", name, str(width), str(batch), how]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
            seconds[how].append(json.loads(done.stdout))
    samples = ratios(seconds["given back"], seconds["kept"])
    topic = f"malloc, step of {name}, batch {batch}"
    return [Row(topic=topic, name="freed memory given back / kept", unit="x", samples=samples)]


def _in_a_process(name: str, width: float, batch: int, how: str) -> float:
    torch.set_num_threads(1)
    with freed_memory_kept() if how == "kept" else nullcontext():
        return min(by_turns({"": step_of(name, width, batch, ours())}, rounds=3)[""])


if __name__ == "__main__":
    print(json.dumps(_in_a_process(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
