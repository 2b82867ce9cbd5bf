"""jobs_per_gpu=auto: what is chosen from what was measured, and one fewer where the memory does not last."""

from collections.abc import Callable
from pathlib import Path

import pytest
from test_experiment import small

from hidden_subnet import claims, owners, record
from hidden_subnet.owners import Observer
from hidden_subnet.settings import METHODS, Config
from hidden_subnet.sweep import packing, pool, worker
from hidden_subnet.sweep.job import Job, look
from hidden_subnet.sweep.manifest import write
from hidden_subnet.sweep.packing import choose, slots_for, steps_per_second, together
from hidden_subnet.sweep.pool import Child, Slots


@pytest.mark.parametrize(
    ("speeds", "chosen", "asked"),
    [
        ([100.0, 190.0, 240.0, 250.0], 3, 4),  # the fourth brings 4 %
        ([100.0, 90.0], 1, 2),
        ([100.0, 190.0, None], 2, 3),  # three do not fit
        ([None], 1, 1),  # the run itself will say what is wrong
        ([100.0 * n for n in range(1, 9)], 8, 8),
    ],
)
def test_as_many_as_are_worth_it(speeds: list[float | None], chosen: int, asked: int) -> None:
    tried: list[int] = []

    def speed_of(runs: int) -> float | None:
        tried.append(runs)
        return speeds[runs - 1]

    found, measured = choose(speed_of, most=8)
    assert (found, tried) == (chosen, list(range(1, asked + 1)))
    assert measured == [speed for speed in speeds[:asked] if speed is not None]


@pytest.mark.parametrize("method", [name for name in METHODS if name != "random"])
def test_steps_of_every_method_are_measured(method: str, tmp_path: Path) -> None:
    waits: list[int] = []
    assert steps_per_second(small(tmp_path, method, batch_size=8), 0.01, lambda: waits.append(1)) > 0
    assert waits == [1]


@pytest.mark.slow
def test_runs_side_by_side_are_measured(tmp_path: Path) -> None:
    """On the CPU: the processes are real, their GPU is none."""
    config = small(tmp_path, batch_size=8)
    for runs in (1, 2):
        assert (together(config, "", runs, seconds=0.2) or 0) > 0
    config.train.lr = -1.0  # refused by the optimizer of each
    assert together(config, "", 2, seconds=0.2) is None


def told(configs: list[Config], monkeypatch: pytest.MonkeyPatch, gpus: list[str], tmp_path: Path) -> tuple[Slots, str]:
    """With GPUs of made-up names, and what is measured on them."""
    lines: list[str] = []
    monkeypatch.setattr(pool, "visible_gpus", lambda: gpus)
    monkeypatch.setattr(packing, "cores", lambda: 16)
    monkeypatch.setattr(pool, "require_devices", lambda device, wanted: None)
    monkeypatch.setattr(packing, "together", lambda config, gpu, runs: [100.0, 190.0, 191.0][runs - 1])
    monkeypatch.setattr("hidden_subnet.sweep.gpus._folder", lambda: tmp_path / "locks")
    slots = slots_for(configs, None, None, lines.append)
    [line] = lines
    return slots, line


def test_what_was_chosen_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configs = [small(tmp_path) for _ in range(8)]
    slots, line = told(configs, monkeypatch, ["a", "b"], tmp_path)
    assert (slots.count, slots.jobs_per_gpu, slots.fewer) == (4, 2, True)
    assert line == (
        "hydra.launcher.jobs_per_gpu=auto: 2, by steps a second of so many runs together: 1: 100, 2: 190, 3: 191"
    )
    assert "no GPU for these runs" in told(configs, monkeypatch, [], tmp_path)[1]
    assert told([small(tmp_path, "random")], monkeypatch, ["a"], tmp_path)[1].endswith("1, as nothing is trained")
    assert "GPUs to itself" in told([small(tmp_path, devices=2)], monkeypatch, ["a", "b"], tmp_path)[1]
    held = packing.hold_one(["a"], 1)
    assert held is not None
    assert "other runs are on every GPU" in told(configs, monkeypatch, ["a"], tmp_path)[1]
    assert slots_for(configs, 2, 1, lambda line: pytest.fail(line)).fewer is False


FULL = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.mark.parametrize(
    ("message", "slots", "left"),
    [
        (FULL, Slots(6, 1, ["a", "b"], 3, fewer=True), Slots(4, 1, ["a", "b"], 2, fewer=True)),
        (FULL, Slots(1, 1, ["a"], 1, fewer=True), None),
        (FULL, Slots(6, 1, ["a", "b"], 3), None),  # the number was asked for
        ("RuntimeError: no", Slots(6, 1, ["a", "b"], 3, fewer=True), None),
    ],
    ids=["too full", "alone", "as asked", "another error"],
)
def test_a_run_without_memory_goes_on_beside_fewer(
    message: str, slots: Slots, left: Slots | None, compose: Callable[..., Config], tmp_path: Path
) -> None:
    sweep = write([compose("data=synthetic", f"out={tmp_path}")], "seed", {})
    folder = sweep.runs[0]
    folder.mkdir()
    attempt = claims.take(folder, owners.this_process("worker", 90.0, str(sweep.launch)), Observer(tmp_path))
    claims.end(attempt.folder, "failed", message)
    job = Job(sweep.configs[0], folder, "failed", message, final=True)
    child = Child(job, *4 * [None])  # type: ignore[arg-type]
    assert pool.make_room(child, slots) == left
    if left is None:
        assert (job.state, job.final) == ("failed", True)
        return
    assert (job.state, job.final) == ("interrupted", False)
    doing = worker.Work(sweep, [job], left, "worker", wait=True)
    worker._judge(doing, job)
    assert job.claimable
    look(job, sweep, Observer(tmp_path))
    assert (job.state, job.claimable) == ("interrupted", True)
    assert record.attempts(folder) == [1]
    assert "no memory left beside 2 others" in job.message
