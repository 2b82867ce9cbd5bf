"""jobs_per_gpu=auto: the number that is chosen from the measured speeds, and one fewer when memory runs out."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.runs import small

from hidden_subnet.config.registries import METHODS
from hidden_subnet.config.settings import Config
from hidden_subnet.store import claims, files, liveness
from hidden_subnet.store.liveness import LivenessProbe
from hidden_subnet.store.sweeps import plan, write
from hidden_subnet.sweep.gpu_sharing import choose, measure_jobs_per_gpu, slots_for, together
from hidden_subnet.sweep.jobs import listed_jobs, look
from hidden_subnet.sweep.places import hold_one
from hidden_subnet.sweep.processes import Child, Slots, make_room, plan_slots
from hidden_subnet.sweep.worker import Work
from hidden_subnet.training.speed import steps_per_second


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


@pytest.mark.parametrize("method", [name for name, kind in METHODS.items() if kind.is_trained()])
def test_steps_of_every_method_are_measured(method: str, tmp_path: Path) -> None:
    waits: list[int] = []
    assert steps_per_second(small(tmp_path, method, batch_size=8), 0.01, lambda: waits.append(1)) > 0
    assert waits == [1]


@pytest.mark.slow
def test_runs_side_by_side_are_measured(tmp_path: Path) -> None:
    """On the CPU: the processes are real, the GPU is not."""
    config = small(tmp_path, batch_size=8)
    for runs in (1, 2):
        assert (together(config, "", runs, seconds=0.2) or 0) > 0
    config.train.lr = -1.0  # refused by the optimizer of each
    assert together(config, "", 2, seconds=0.2) is None


def measured(configs: list[Config], gpus: list[str], locks: Path) -> tuple[int, str]:
    """The number that is chosen, and the line about it, with made-up GPUs and speeds."""
    lines: list[str] = []
    speeds = [100.0, 190.0, 191.0]
    chosen = measure_jobs_per_gpu(
        configs, gpus, lines.append, speed_of=lambda config, gpu, runs: speeds[runs - 1], most=8, locks=locks
    )
    [line] = lines
    return chosen, line


def test_a_line_tells_what_was_chosen_and_why(tmp_path: Path) -> None:
    configs, locks = [small(tmp_path) for _ in range(8)], tmp_path / "locks"
    chosen, line = measured(configs, ["a", "b"], locks)
    assert chosen == 2
    assert line == "hydra.launcher.jobs_per_gpu=auto: 2; steps per second by number of runs: 1: 100, 2: 190, 3: 191"
    slots = plan_slots(configs, None, chosen, fewer=True, gpus=["a", "b"])
    assert (slots.count, slots.gpus, slots.jobs_per_gpu, slots.fewer) == (4, ["a", "b"], 2, True)
    chosen, line = measured(configs, [], locks)
    assert (chosen, "no GPU for these runs" in line) == (1, True)
    chosen, line = measured([small(tmp_path, "random")], ["a"], locks)
    assert (chosen, line.endswith("1, as nothing is trained")) == (1, True)
    chosen, line = measured([small(tmp_path, devices=2)], ["a", "b"], locks)
    assert (chosen, "GPUs to itself" in line) == (1, True)
    assert hold_one(["a"], 1, locks) is not None
    chosen, line = measured(configs, ["a"], locks)
    assert (chosen, "every GPU is in use by other runs" in line) == (1, True)


def test_a_number_that_is_given_is_not_measured(tmp_path: Path) -> None:
    assert slots_for([small(tmp_path)], 2, 1, lambda line: pytest.fail(line)).fewer is False


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
def test_a_run_without_memory_is_resumed_beside_fewer(
    message: str, slots: Slots, left: Slots | None, compose: Callable[..., Config], tmp_path: Path
) -> None:
    sweep = write(plan([compose("data=synthetic", f"out={tmp_path}")], "seed"), {})
    folder = sweep.runs[0]
    folder.mkdir()
    attempt = claims.acquire(folder, liveness.this_process("worker", 90.0, str(sweep.launch)), LivenessProbe(tmp_path))
    claims.end(attempt.folder, "failed", message)
    [job] = listed_jobs(sweep)
    job.state, job.message, job.final = "failed", message, True
    child = Child(job, *4 * [None])  # type: ignore[arg-type]
    assert make_room(child, slots) == left
    if left is None:
        assert (job.state, job.final) == ("failed", True)
        return
    assert (job.state, job.final) == ("interrupted", False)
    Work(sweep, [job], left, "worker", wait=True).judge(job)
    assert job.claimable
    look(job, sweep, LivenessProbe(tmp_path))
    assert (job.state, job.claimable) == ("interrupted", True)
    assert files.attempts(folder) == [1]
    assert "no memory left beside 2 others" in job.message
