"""Milliseconds of a whole training step: ours, the same network without masks, and with masks by sorting."""

from benchmarks.network import PRUNE_RATE, by_sorting, of_methods, ours, step_of
from benchmarks.timing import Row, by_turns, ratios

GOALS = {"conv2": 1.06, "conv4": 1.04, "cifar_resnet18": 1.05}
SORTING_GOALS = {"conv2": 1.55}
METHOD_GOAL = 1.1
"""The goal of a step by another method than edge_popup; structured masks have none."""
WITHOUT_GOAL = ("edge_popup", "n_m", "block")


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


def method_rows(width: float, batch: int, rounds: dict[str, int]) -> list[Row]:
    """The step of each method, as a multiple of that of the network without masks."""
    return [row for name, n in rounds.items() for row in _method_rows(name, width, batch, n)]


def _method_rows(name: str, width: float, batch: int, rounds: int) -> list[Row]:
    rules = of_methods()
    rivals = {"without masks": step_of(name, width, batch, None)}
    rivals |= {method: step_of(name, width, batch, rule) for method, rule in rules.items()}
    seconds = by_turns(rivals, rounds)
    return [
        Row(
            topic=f"step of methods, {name}, batch {batch}, {PRUNE_RATE:.0%} removed",
            name=f"{method} / without masks",
            unit="x",
            samples=ratios(seconds[method], seconds["without masks"]),
            goal=None if method in WITHOUT_GOAL else METHOD_GOAL,
        )
        for method in rules
    ]
