"""One run on several devices: the parts of a batch, the same run as on one, and what happens when a rank dies."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs import QUIET, assert_same_run, small
from helpers.slurm_cluster import Cluster, slurm
from helpers.slurm_runs import launch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from hidden_subnet.config.checks import check
from hidden_subnet.config.registries import METHODS
from hidden_subnet.config.settings import Config, Device, Init, Model
from hidden_subnet.data.interfaces import shard_slice
from hidden_subnet.errors import ConfigError
from hidden_subnet.methods.warmup_then_prune import WarmupThenPruneSettings
from hidden_subnet.store import checkpoints, files
from hidden_subnet.sweep.execute import Outcome, RunObserver, execute
from hidden_subnet.sweep.places import hold, hold_one
from hidden_subnet.sweep.processes import plan_slots
from hidden_subnet.training.callbacks import Callbacks
from hidden_subnet.training.devices import cores, require_devices
from hidden_subnet.training.distributed import SINGLE_PROCESS, ProcessGroup, join_tasks, start_ranks
from hidden_subnet.training.experiment import resolve
from hidden_subnet.training.rendezvous import Rendezvous
from hidden_subnet.training.run import _on_device

__all__ = ["slurm"]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("first", "last", "parts"),
    [
        (0, 8, [(0, 4), (4, 8)]),
        (0, 7, [(0, 3), (3, 7)]),
        (5, 12, [(5, 8), (8, 12)]),
        (0, 1, [(0, 0), (0, 1)]),
        (0, 10, [(0, 3), (3, 6), (6, 10)]),
        (0, 2, [(0, 0), (0, 1), (1, 2)]),
        (3, 9, [(3, 9)]),
    ],
)
def test_parts_of_a_batch(first: int, last: int, parts: list[tuple[int, int]]) -> None:
    found = [shard_slice(first, last, (rank, len(parts))) for rank in range(len(parts))]
    assert [(each.start, each.stop) for each in found] == parts


def config_of(out: Path, method: str, devices: int, **train: Any) -> Config:
    # 461 images are trained on, 37 per batch: no batch can be shared evenly by two.
    config = small(out, method, **{"epochs": 2, "batch_size": 37, "device": Device.cpu, "threads": 1, **train})
    config.train.devices = devices
    if isinstance(config.method, WarmupThenPruneSettings):
        config.method.weight_epochs = 1
    return config


def assert_as_alone(alone: Outcome, together: Outcome) -> None:
    assert alone.result is not None, alone.message
    assert together.result is not None, together.message
    assert together.folder.name == alone.folder.name
    assert_equal_runs(alone.folder, alone.result, together.folder, together.result)


def assert_equal_runs(folder: Path, result: dict[str, Any], other: Path, others: dict[str, Any]) -> None:
    one, two = (checkpoints.load(each / "checkpoints" / files.LAST)["trained"] for each in (folder, other))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(files.read_rows(folder), files.read_rows(other), strict=True):
        for key in mine:
            if key.endswith("loss"):
                assert theirs[key] == pytest.approx(mine[key], abs=1e-5), key
            elif key not in ("seconds", "images_per_second"):
                assert theirs[key] == pytest.approx(mine[key], rel=1e-6), key  # counts and densities: the same
    assert [each["kept"] for each in others["layers"]] == [each["kept"] for each in result["layers"]]
    for which in ("last", "best"):
        for images in ("test", "validation"):
            for count in ("top1", "top5"):
                assert others[which][images][count] == result[which][images][count]


@pytest.mark.slow
def test_two_ranks_are_as_one(tmp_path: Path) -> None:
    alone = execute(config_of(tmp_path / "alone", "edge_popup", 1), QUIET)
    together = execute(config_of(tmp_path / "together", "edge_popup", 2), QUIET)
    assert_as_alone(alone, together)
    assert multiprocessing.active_children() == []


METHODS_TRAINED = [name for name, kind in METHODS.items() if kind.is_trained()]
SOONER: dict[str, dict[str, Any]] = {
    "iterand": {"every": 4},
    "synflow": {"rounds": 5},
    "magnitude": {"weight_epochs": 1},
}


def with_each_method(out: Path, group: ProcessGroup) -> dict[str, dict[str, Any] | None]:
    """Execute a run of each method as a rank of `group`, in out/<method>; return the results on rank 0."""
    found = {}
    for name in METHODS_TRAINED:
        config = config_of(out, name, group.size)
        config = replace(config, init=Init(name="kaiming_normal"))  # dnw wants weights that differ in size
        config.method = replace(config.method, **SOONER.get(name, {}))
        if METHODS[name].prunes_in_rounds:  # the first of its runs, which starts from no other
            config.prune_rate = 0.0
        (out / name / "checkpoints").mkdir(parents=True, exist_ok=True)
        found[name] = _on_device(resolve(config), out / name, Callbacks(), group)
    return found


def follow_with_each_method(out: Path, group: ProcessGroup) -> None:
    with_each_method(out, group)


@pytest.mark.slow
def test_two_ranks_are_as_one_with_each_method(tmp_path: Path) -> None:
    alone = with_each_method(tmp_path / "alone", SINGLE_PROCESS)
    with start_ranks(2, "cpu", follow_with_each_method, (tmp_path / "together",)) as group:
        together = with_each_method(tmp_path / "together", group)
    for name in METHODS_TRAINED:
        result, others = alone[name], together[name]
        assert result is not None
        assert others is not None
        assert_equal_runs(tmp_path / "alone" / name, result, tmp_path / "together" / name, others)


@pytest.mark.slow
def test_a_rank_may_have_no_part_of_the_last_batch(tmp_path: Path) -> None:
    outcomes = []
    for devices in (1, 2):
        config = config_of(tmp_path / str(devices), "edge_popup", devices, batch_size=46, epochs=1)  # 461 = 10 * 46 + 1
        outcomes.append(execute(config, QUIET))
    assert_as_alone(*outcomes)


@pytest.mark.slow
def test_a_penalty_counts_once(tmp_path: Path) -> None:
    outcomes = []
    for devices in (1, 2):
        config = config_of(tmp_path / str(devices), "sampled", devices, epochs=1)
        config.method.penalty = 1e-3  # type: ignore[attr-defined]
        outcomes.append(execute(config, QUIET))
    assert_as_alone(*outcomes)


@pytest.mark.slow
def test_resumes_bit_for_bit_and_says_when_the_number_changed(tmp_path: Path) -> None:
    # Of two numbers the sum is the same in any order; of three it is not.
    whole = execute(config_of(tmp_path / "whole", "edge_popup", 3), QUIET)
    config = config_of(tmp_path / "broken", "edge_popup", 3)
    taken: list[int] = []
    observer = RunObserver(QUIET.on_row, lambda epoch, batch, batches: taken.append(batch), QUIET.say)
    assert execute(config, observer, stopped=lambda: len(taken) >= 5).state == "interrupted"
    assert multiprocessing.active_children() == []
    taken.clear()
    evaluated = iter(8 * [False] + [True])  # 8 steps, the validation images
    message = execute(config, observer, stopped=lambda: next(evaluated)).message
    assert message == "stopped and saved in the evaluation after epoch 1"
    again = execute(config, QUIET)
    assert again.state == "done", again.message
    assert_same_run(whole.folder, again.folder)

    changed = config_of(tmp_path / "changed", "edge_popup", 2)
    taken.clear()
    assert execute(changed, observer, stopped=lambda: len(taken) >= 5).state == "interrupted"
    said: list[str] = []
    assert execute(config_of(tmp_path / "changed", "edge_popup", 1), replace(QUIET, say=said.append)).state == "done"
    assert [line for line in said if "started with train.devices=2 and resumes with 1" in line]


@pytest.mark.slow
def test_norms_are_said_and_are_part_of_what_the_run_is(tmp_path: Path) -> None:
    said: list[str] = []
    names = set()
    for devices in (1, 2):
        config = config_of(tmp_path, "edge_popup", devices, epochs=1)
        config.model = Model(name="cifar_resnet18", width=1 / 16)
        outcome = execute(config, replace(QUIET, say=said.append))
        assert outcome.state == "done", outcome.message
        names.add(outcome.folder.name)
    assert len(names) == 2
    assert [line for line in said if "train.devices=2: batch norm takes its statistics over each rank's part" in line]


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_run_with_its_name(tmp_path: Path) -> None:
    config = config_of(tmp_path, "edge_popup", 2, epochs=1000)

    def on_step(epoch: int, batch: int, batches: int) -> None:
        if (epoch, batch) == (1, 3):
            [other] = multiprocessing.active_children()
            other.kill()

    started = time.monotonic()
    outcome = execute(config, RunObserver(QUIET.on_row, on_step, QUIET.say))
    assert time.monotonic() - started < 300
    assert outcome.state == "failed"
    assert "rank 1 of 2 died of SIGKILL" in outcome.message
    assert multiprocessing.active_children() == []


def reads_a_damaged_image(group: ProcessGroup) -> None:
    if group.rank == group.size - 1:
        raise ValueError("a.jpg is no image")
    group.broadcast_decision(0)


def ends(code: int, group: ProcessGroup) -> None:
    if group.rank == group.size - 1:
        os._exit(code) if code > 0 else os.kill(os.getpid(), -code)
    group.broadcast_decision(0)


def decides_twice(group: ProcessGroup) -> None:
    for _ in range(2):
        group.broadcast_decision(0)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_what_another_rank_says_is_told(size: int, capfd: pytest.CaptureFixture[str]) -> None:
    last = size - 1
    with (
        pytest.raises(RuntimeError, match=rf"^rank {last} of {size}: ValueError: a\.jpg is no image$") as caught,
        start_ranks(size, "cpu", reads_a_damaged_image, ()) as group,
    ):
        group.broadcast_decision(0)
    assert "in reads_a_damaged_image" in str(caught.value.__cause__)  # what error.txt holds
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("code", "how"), [(-9, "SIGKILL"), (3, "exit code 3")])
def test_how_another_rank_ended_is_told(code: int, how: str) -> None:
    with (
        pytest.raises(RuntimeError, match=rf"^rank 2 of 3 died of {how}; the other ranks have ended with it"),
        start_ranks(3, "cpu", ends, (code,)) as group,
    ):
        group.broadcast_decision(0)


@pytest.mark.slow
def test_what_rank_0_says_is_its_own() -> None:
    """Name its own error, though the others fail as well, of its connections."""

    def fails() -> None:
        with start_ranks(2, "cpu", decides_twice, ()) as group:
            group.broadcast_decision(0)
            raise RuntimeError("no memory left")

    with pytest.raises(RuntimeError, match=r"^no memory left$"):
        fails()


@pytest.mark.slow
def test_group_that_nobody_joined_leaves_the_next_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hidden_subnet.training.distributed.TIMEOUT", timedelta(seconds=2))
    alone = TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)
    with pytest.raises(RuntimeError, match="timeout"), join_tasks(Rendezvous(0, 2, 0, alone), "cpu"):
        pass
    monkeypatch.undo()
    with start_ranks(2, "cpu", decides_twice, ()) as group:
        assert [group.broadcast_decision(each) for each in (3, 4)] == [3, 4]


def fails_as_a_task(port: int) -> None:
    store = TCPStore("127.0.0.1", port, 2, is_master=False)
    with join_tasks(Rendezvous(1, 2, 1, store), "cpu") as group:
        reads_a_damaged_image(group)


@pytest.mark.slow
def test_what_another_task_says_is_told() -> None:
    store = TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)
    other = multiprocessing.get_context("spawn").Process(target=fails_as_a_task, args=(store.port,))
    other.start()
    with (
        pytest.raises(RuntimeError, match=r"^rank 1 of 2: ValueError: a\.jpg is no image$"),
        join_tasks(Rendezvous(0, 2, 0, store), "cpu") as group,
    ):
        group.broadcast_decision(0)
    other.join(60)
    assert other.exitcode == 1


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Give a run on two ranks that has trained for an epoch, in a process group of its own, and its children's pids."""
    settings = ["model.width=0.125", "train.epochs=1000", "train.device=cpu", "train.devices=2", "train.threads=1"]
    command = [sys.executable, str(ROOT / "launch.py"), *settings, "tracker=none", f"out={tmp_path}"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            break
    children = [int(each) for each in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert children
    yield process, children
    process.kill()
    process.wait()


@pytest.mark.slow
def test_no_rank_outlives_its_run(running: tuple[subprocess.Popen[str], list[int]]) -> None:
    process, children = running
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    await_end(children)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_to_all_ranks_is_one_wish(running: tuple[subprocess.Popen[str], list[int]], number: int) -> None:
    """Signal every process, as Ctrl-C in a terminal and Slurm do."""
    process, children = running
    os.killpg(process.pid, number)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 130, said
    assert "stopped and saved in epoch" in said
    assert "Traceback" not in said
    await_end(children)


def await_end(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(_is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_ranks_in_a_sweep_and_as_tasks_of_submitit(slurm: Cluster, tmp_path: Path) -> None:
    tiny = [
        "model.width=0.125",
        "train.epochs=1",
        "train.threads=1",
        "train.device=cpu",
        "tracker=none",
        "data.fraction=0.2",
    ]
    kinds = {
        "one": ["hydra/launcher=local", "train.devices=1"],
        "slots": ["hydra/launcher=local", "train.devices=2"],
        "tasks": ["hydra/launcher=submitit_slurm", "hydra.launcher.tasks_per_node=2", "train.devices=2"],
    }  # fmt: skip
    results = {}
    for kind, settings in kinds.items():
        here = tmp_path / kind
        here.mkdir()
        done = launch(slurm, here, "prune_rate=0.3", *settings, *tiny)
        assert done.returncode == 0, done.stdout + done.stderr
        [folder] = [path.parent for path in (here / "runs").glob("*/result.json")]
        results[kind] = files.read_result(folder)
    one = results["one"]
    assert one is not None
    for other in (results["slots"], results["tasks"]):
        assert other is not None
        assert other["name"] == one["name"]
        assert other["last"]["test"]["loss"] == pytest.approx(one["last"]["test"]["loss"], abs=1e-5)


# What is refused


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"devices": 0}, "train.devices=0: must be 1 or larger"),
        ({"devices": 38}, r"train.devices=38: .*at most the images of a batch \(train.batch_size=37\)"),
        ({"sync_norm": True}, "train.sync_norm=true: joins the batch norms of several GPUs"),
        ({"sync_norm": True, "devices": 2, "device": Device.cpu}, "train.sync_norm=true.*not on the CPU"),
    ],
)
def test_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    config = config_of(tmp_path, "edge_popup", 1)
    for name, value in settings.items():
        setattr(config.train, name, value)
    with pytest.raises(ConfigError, match=words):
        check(config)


def test_a_part_too_small_for_batch_norm_is_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path, "edge_popup", 4, batch_size=32)
    config.model, config.data.fraction = Model(name="cifar_resnet18", width=1 / 16), 35 / 461
    with pytest.raises(ConfigError, match="smallest batch of an epoch has 3 images, too few for the batch norm"):
        check(config)


def test_more_devices_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"train\.devices=1000: there (is|are) \d+ cores? here; as in: train\.devices="
    ):
        require_devices("cpu", 1000)
    with pytest.raises(ConfigError, match=r"train\.devices=2: there is 1 mps device here; as in: train\.devices=1$"):
        require_devices("mps", 2)
    if torch.cuda.device_count() == 0:
        with pytest.raises(ConfigError, match=r"train\.devices=2: there are 0 cuda devices here"):
            require_devices("cuda", 2)
    require_devices("mps", 1)
    with pytest.raises(ConfigError, match=r"train\.devices=1000"):
        plan_slots([config_of(tmp_path, "edge_popup", 1000, batch_size=1000)], None)


def test_a_run_holds_all_of_its_gpus_or_none(tmp_path: Path) -> None:
    gpus = ["a", "b", "c"]
    assert hold(gpus, 4, folder=tmp_path) is None
    assert hold(gpus, 2, folder=tmp_path) == ["a", "b"]  # which the refusal before has let go
    assert hold(gpus, 2, folder=tmp_path) is None
    found = hold_one(gpus, 1, tmp_path)
    assert found is not None
    assert found[0] == "c"
    os.close(found[1])


def test_slots_are_as_large_as_a_run(tmp_path: Path) -> None:
    if cores() < 2:
        return
    configs = [config_of(tmp_path, "edge_popup", 2, threads=None) for _ in range(8)]
    slots = plan_slots(configs, None)
    assert slots.count == cores() // 2
    assert slots.threads == max(1, cores() // (2 * slots.count))
    with pytest.raises(ConfigError, match=r"jobs_per_gpu=2: a run with train\.devices=2 has its GPUs to itself"):
        plan_slots(configs, None, jobs_per_gpu=2)
