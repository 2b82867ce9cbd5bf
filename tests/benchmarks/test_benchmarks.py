"""The benchmark runs whole and writes what it measured; how fast is no matter for a test."""

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import __main__ as benchmarks
from benchmarks import augmentation, epoch, gpu, gpu_sweep, mask, memory, runs, spin, step
from benchmarks.epoch import TopKMaskRule
from benchmarks.sort_mask import SortRule
from benchmarks.timing import Row, by_turns, ratios
from hidden_subnet.masks.selection import TopKSelection
from hidden_subnet.methods.edge_popup import EdgePopupRule
from hidden_subnet.store import checkpoints

SLOW = {"cost", "levers", "spin", "start", "packing"}
"""They start processes that import torch, or sweeps."""


def run(topics: list[str], path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    """The rows that were written, by topic."""
    threads = torch.get_num_threads()
    monkeypatch.setattr("sys.argv", ["benchmarks", "--quick", "--json", str(path), *topics])
    try:
        benchmarks.main()
    finally:
        torch.set_num_threads(threads)
    written = json.loads(path.read_text())
    assert written["setting"]["torch"] == torch.__version__
    assert written["setting"]["cpu"]
    found: dict[str, list[dict[str, Any]]] = {}
    for row in written["rows"]:
        found.setdefault(row["topic"], []).append(row)
        assert row["n"] == len(row["samples"])
        assert bool(row["samples"]) != bool(row["note"])
        if row["samples"]:
            assert min(row["samples"]) <= row["median"] <= max(row["samples"])
        assert row["goal"] is row["met"] is None
    return found


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [row["name"] for row in rows]


@pytest.mark.slow
def test_quick_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "numbers.json"
    topics = run([each for each in benchmarks.TOPICS if each not in SLOW], path, monkeypatch)
    for n in ("5,000", "10,000"):
        for rate in ("10%", "50%", "90%"):
            rows = topics.pop(f"mask, {n} weights, {rate} removed")
            assert names(rows) == [
                "ours", "ours, first step", "ours, equal at the cut", "by sorting", "by sorting / ours",
            ]  # fmt: skip
            assert min(min(row["samples"]) for row in rows) > 0
    for name in ("conv2", "conv4", "cifar_resnet18"):
        rows = topics.pop(f"step of {name}, batch 4, 50% removed")
        assert names(rows)[:4] == ["ours", "without masks", "by sorting", "ours / without masks"]
    for name in ("conv2", "conv4"):
        rows = topics.pop(f"step of methods, {name}, batch 4, 50% removed")
        assert {f"{method} / without masks" for method in ("signed", "biprop", "iterand", "multicoat", "n_m")} < {
            *names(rows)
        }
    for what, rivals in (
        ("conv2, 50% removed", [f"{each}, dense kernels" for each in ("edge_popup", "n_m", "block")]),
        ("fc", [f"{rate}% removed, CSR" for rate in (50, 90, 99)]),
    ):
        rows = topics.pop(f"forward pass of an exported {what}, batch 4")
        assert names(rows) == [f"{each} / without masks" for each in rivals]
    estimated, took, factor = topics.pop("plan=true, 1 epochs of fc on digits")
    assert factor["median"] == pytest.approx(
        max(estimated["median"], took["median"]) / min(estimated["median"], took["median"])
    )
    for other in (
        "epoch of fc, 200 of 1x28x28, batch 32",
        "crop 4 and flip, 100 of 3x32x32",
        "accuracy of bf16, conv2 on digits, 1 epochs",
        "python launch.py --help",
        "a folder of 10 finished runs, wall clock",
        "H100",
        gpu_sweep.TOPIC,
    ):
        assert topics.pop(other)
    [mine, floor, _] = topics.pop("memory of a step of conv2, batch 4")
    assert mine["median"] > floor["median"] > 0
    assert topics == {}
    printed = capsys.readouterr().out
    assert str(path) in printed
    assert max(map(len, printed.splitlines()[:-1])) <= 100


@pytest.mark.slow
def test_quick_run_of_what_takes_seconds_at_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topics = run(sorted(SLOW), tmp_path / "numbers.json", monkeypatch)
    [packing] = [rows for topic, rows in topics.items() if topic.startswith("2 runs of conv2 on digits")]
    assert names(packing)[-1] == "sweep / (2 x alone / 2)"
    assert "fp32 / channels_last" in names(topics["formats, step of conv2, batch 4"])
    assert topics["threads, step of conv2, batch 4"]
    assert topics["malloc, step of conv2, batch 4"]
    for where in ("idle", "2 busy programs"):
        spinning = topics[f"step of fc, batch 4, 2 threads and cores, {where}, wall clock"]
        assert names(spinning) == ["unset", *(f"{each} / unset" for each in spin.SETTINGS if each != "unset")]
    [start] = [rows for topic, rows in topics.items() if topic.startswith("start of a run")]
    claimed, first_step = start
    assert 0 < claimed["median"] < first_step["median"]
    [cost] = [rows for topic, rows in topics.items() if topic.startswith("checkpoints")]
    within, everything = cost
    assert 0 < within["median"] < everything["median"]


def test_a_row_that_is_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "--quick", "masks"])
    with pytest.raises(SystemExit):
        benchmarks.main()
    assert "masks: there is no such row; choose among mask, step" in capsys.readouterr().err


@pytest.mark.slow
def test_the_sweep_on_a_gpu_works_on_a_cpu() -> None:
    rows = gpu_sweep.rows("cpu", width=0.05, images=200, batch=32, epochs=1, rates=2, seeds=1)
    sweep, script, ratio = (row.samples[0] for row in rows)
    assert sweep > 0
    assert ratio == pytest.approx(script / sweep)
    assert [row.goal for row in rows] == [20.0, None, 2.5]


def test_the_rows_of_a_gpu_work_on_a_cpu() -> None:
    rows = gpu.rows("cpu", width=0.05, batch=2, images=4, steps=1, rounds=1)
    assert [len(row.samples) for row in rows] == [1] * len(gpu.WANTED)
    assert all(sample > 0 for row in rows[:-1] for sample in row.samples)
    absent = gpu.rows("cuda", width=0.05, batch=2, images=4, steps=1, rounds=1) if not torch.cuda.is_available() else []
    assert {(row.note, row.met) for row in absent} <= {("no GPU", None)}
    assert [(row.goal, row.at_least) for row in rows] == [
        (300.0, False),
        (1.05, False),
        (1.05, False),
        (120_000.0, True),
        (45.0, False),
        (0.0, False),
    ]


def test_the_goals() -> None:
    rows = [
        *mask.rows(sizes=(100,), rounds=1),
        *step.rows(width=0.05, batch=2, rounds=dict.fromkeys(step.GOALS, 1)),
        *augmentation.rows(images=3, batch=2, rounds=1),
        *epoch.rows(width=0.05, images=4, batch=2, rounds=1),
        *memory.rows(("conv2",), width=0.05, batch=2),
        *runs.help_rows(rounds=1),
    ]
    assert [(row.name, row.at_least, row.goal) for row in rows if row.goal is not None] == [
        *[("ours", False, 2.2), ("ours, first step", False, 2.2)] * 3,
        ("ours / without masks", False, 1.06),
        ("by sorting / ours", True, 1.55),
        ("ours / without masks", False, 1.04),
        ("ours / without masks", False, 1.05),
        ("ours", False, 8.0),
        ("DataLoader, PIL, sort / ours", True, 12.0),
        ("in memory, topk / ours", True, 1.5),
        ("ours / without masks", False, 1.10),
        ("wall clock", False, 1.0),
    ]


@pytest.mark.slow
def test_a_checkpoint_that_takes_long_is_seen_in_the_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    before = runs.cost_rows(width=0.05, epochs=1)
    save = checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda *given, **named: (time.sleep(1), save(*given, **named))[1])
    after = runs.cost_rows(width=0.05, epochs=1)
    assert after[0].samples[0] > max(50, before[0].samples[0])


def test_standard_errors_apart() -> None:
    apart, limit = runs.standard_errors_apart([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    assert apart == pytest.approx(3 / (2 / 3) ** 0.5)
    assert limit == pytest.approx(2.776, abs=1e-3)  # t with 4 degrees of freedom
    assert runs.standard_errors_apart([1.0, 1.0], [1.0, 1.0])[0] == 0
    assert runs.standard_errors_apart([1.0, 1.0], [2.0, 2.0])[0] == math.inf


def test_a_goal_is_about_the_median() -> None:
    row = Row(topic="", name="", unit="", samples=[5.0, 1.0, 2.0], goal=2.0)
    assert (row.median, row.met) == (2.0, True)
    assert Row(topic="", name="", unit="", samples=[5.0, 1.0, 2.1], goal=2.0).met is False
    assert Row(topic="", name="", unit="", samples=[1.0]).met is None
    assert Row(topic="", name="", unit="", samples=[1.0], goal=1.5, at_least=True).met is False
    assert Row(topic="", name="", unit="", samples=[2.0], goal=1.5, at_least=True).met is True
    assert Row(topic="", name="", unit="", samples=[], goal=1.5, note="no GPU").met is None


def test_rivals_take_turns() -> None:
    calls: list[str] = []
    seconds = by_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(samples) for name, samples in seconds.items()} == {"a": 3, "b": 3}
    assert ratios([6.0, 2.0], [3.0, 4.0]) == [2.0, 0.5]


def test_the_rivals_are_the_same_method() -> None:
    scores = torch.tensor([0.1, -0.9, 0.5, -0.3])
    weight = torch.tensor([1.0, 2.0, -3.0, 4.0])
    upstream = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    for rule in (SortRule(2), TopKMaskRule(4), EdgePopupRule(TopKSelection(2))):
        learned = scores.clone().requires_grad_()
        effective = rule(learned, weight)
        assert effective.tolist() == [0.0, 2.0, -3.0, 0.0]
        assert rule.mask(scores).tolist() == [False, True, True, False]
        effective.backward(upstream)  # type: ignore[no-untyped-call]
        assert learned.grad is not None
        assert learned.grad.tolist() == [1.0, -20.0, -300.0, -4000.0]
