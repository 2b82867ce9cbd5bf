"""Milliseconds of a whole training step: ours, the same network without masks, and with masks by sorting."""

from benchmarks.network import PRUNE_RATE, by_sorting, ours, step_of
from benchmarks.timing import Row, by_turns, ratios

GOALS = {"conv2": 1.06, "conv4": 1.04, "cifar_resnet18": 1.05}
SORTING_GOALS = {"conv2": 1.55}


def rows(width: float, batch: int, rounds: dict[str, int]) -> list[Row]:
    """`rounds` of each model."""
    return [row for name, n in rounds.items() for row in _rows(name, width, batch, n)]


def _rows(name: str, width: float, batch: int, rounds: int) -> list[Row]:
    seconds = by_turns(
        {
            "ours": step_of(name, width, batch, ours()),
            "without masks": step_of(name, width, batch, None),
            "by sorting": step_of(name, width, batch, by_sorting()),
        },
        rounds,
    )

    def row(what: str, unit: str, samples: list[float], goal: float | None = None, at_least: bool = False) -> Row:
        topic = f"step of {name}, batch {batch}, {PRUNE_RATE:.0%} removed"
        return Row(topic=topic, name=what, unit=unit, samples=samples, goal=goal, at_least=at_least)

    mine, floor, sorting = seconds.values()
    return [
        *(row(what, "ms", [1e3 * s for s in samples]) for what, samples in seconds.items()),
        row("ours / without masks", "x", ratios(mine, floor), GOALS[name]),
        row("by sorting / without masks", "x", ratios(sorting, floor)),
        row("by sorting / ours", "x", ratios(sorting, mine), SORTING_GOALS.get(name), at_least=True),
    ]
