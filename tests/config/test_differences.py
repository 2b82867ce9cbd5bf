"""Texts in which runs and values differ where the runs do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hidden_subnet.config.differences import described, shown


@dataclass(frozen=True)
class Run:
    folder: Path
    projection: dict[str, Any]


def run(name: str, lr: float, **more: Any) -> Run:
    return Run(Path("runs") / name, {"train": {"lr": lr, **more}, "seeds": {"data": 0}})


def test_runs_whose_names_differ_in_the_id_only_get_what_differs() -> None:
    runs = [run("fc-s0-aa", 0.1), run("fc-s0-bb", 0.2), run("fc-s1-cc", 0.1), run("dense-s0-dd", 0.3)]
    assert described(runs) == {
        "fc-s0-aa": "fc-s0-aa (lr 0.1)",
        "fc-s0-bb": "fc-s0-bb (lr 0.2)",
        "fc-s1-cc": "fc-s1-cc",
        "dense-s0-dd": "dense-s0-dd",
    }


def test_several_settings_that_differ() -> None:
    runs = [run("a-1", 0.1, epochs=3), run("a-2", 0.1, epochs=4), run("a-3", 0.2, epochs=4)]
    assert [*described(runs).values()] == ["a-1 (epochs 3, lr 0.1)", "a-2 (epochs 4, lr 0.1)", "a-3 (epochs 4, lr 0.2)"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5"), (1.0, "1"), (0.99999999999, "0.99999999999"), (0.1234567, "0.1234567"), (None, "-"), (True, "true")],
)
def test_values_are_shown_with_all_their_digits(value: Any, text: str) -> None:
    assert shown(value) == text
