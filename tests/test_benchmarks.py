"""The benchmark runs whole and writes what it measured; how fast is no matter for a test."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as benchmarks
from benchmarks.sort_mask import SortRule
from benchmarks.timing import Row, by_turns, ratios
from hidden_subnet.masks import Scratch
from hidden_subnet.methods.edge_popup import TopKRule


def test_quick_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path, threads = tmp_path / "numbers.json", torch.get_num_threads()
    monkeypatch.setattr("sys.argv", ["benchmarks", "--quick", "--json", str(path)])
    try:
        benchmarks.main()
    finally:
        torch.set_num_threads(threads)
    written = json.loads(path.read_text())
    assert written["setting"]["torch"] == torch.__version__
    assert written["setting"]["cpu"]
    topics: dict[str, set[str]] = {}
    for row in written["rows"]:
        topics.setdefault(row["topic"], set()).add(row["name"])
        assert row["n"] == len(row["samples"]) == 2
        assert min(row["samples"]) <= row["median"] <= max(row["samples"])
        assert min(row["samples"]) > 0
        assert row["goal"] is row["met"] is None
    masks = {f"mask, {n} weights, {rate} removed" for n in ("5,000", "10,000") for rate in ("10%", "50%", "90%")}
    steps = {f"step of {name}, batch 4, 50% removed" for name in ("conv2", "conv4")}
    augmentation = {"crop 4 and flip, 100 of 3x32x32"}
    assert set(topics) == masks | steps | augmentation
    for topic in masks:
        assert topics[topic] == {"ours", "ours, equal at the cut", "by sorting", "by sorting / ours"}
    for topic in steps:
        assert topics[topic] >= {
            "ours",
            "without masks",
            "by sorting",
            "ours / without masks",
            "by sorting / ours",
        }
    printed = capsys.readouterr().out
    assert all(topic in printed for topic in topics)
    assert str(path) in printed


def test_every_goal_of_the_full_run_is_about_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {
        "mask": {"sizes": (100, 200), "rounds": 1},
        "step": {"width": 0.05, "batch": 2, "rounds": 1},
        "augmentation": {"images": 3, "batch": 2, "rounds": 1},
    }
    for name, smaller in tiny.items():
        module = vars(benchmarks)[name]
        monkeypatch.setattr(module, "rows", lambda rows=module.rows, smaller=smaller, **_: rows(**smaller))
    goals = [(row.name, row.goal) for row in benchmarks.full() if row.goal is not None]
    assert goals == [
        *[("ours", 3.0)] * 6,
        ("ours / without masks", 1.12),
        ("ours / without masks", 1.08),
        ("ours", 15.0),
    ]


def test_a_goal_is_about_the_median() -> None:
    row = Row(topic="", name="", unit="", samples=[5.0, 1.0, 2.0], goal=2.0)
    assert (row.median, row.met) == (2.0, True)
    assert Row(topic="", name="", unit="", samples=[5.0, 1.0, 2.1], goal=2.0).met is False
    assert Row(topic="", name="", unit="", samples=[1.0]).met is None


def test_rivals_take_turns() -> None:
    calls: list[str] = []
    seconds = by_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(samples) for name, samples in seconds.items()} == {"a": 3, "b": 3}
    assert ratios([6.0, 2.0], [3.0, 4.0]) == [2.0, 0.5]


def test_the_rival_by_sorting_is_the_same_method() -> None:
    scores = torch.tensor([0.1, -0.9, 0.5, -0.3])
    weight = torch.tensor([1.0, 2.0, -3.0, 4.0])
    upstream = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    for rule in (SortRule(2), TopKRule(2, Scratch())):
        learned = scores.clone().requires_grad_()
        effective = rule(learned, weight)
        assert effective.tolist() == [0.0, 2.0, -3.0, 0.0]
        assert rule.mask(scores).tolist() == [False, True, True, False]
        effective.backward(upstream)  # type: ignore[no-untyped-call]
        assert learned.grad is not None
        assert learned.grad.tolist() == [1.0, -20.0, -300.0, -4000.0]
