"""Places on GPUs and cores: locks, where there are none, the queue, and the one place on a Mac's GPU."""

import errno
import fcntl
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.hostile_environments import as_user

from hidden_subnet.config.settings import Config
from hidden_subnet.sweep.places import hold_in_turn, hold_one, holders
from hidden_subnet.sweep.processes import plan_slots


def test_a_gpu_is_used_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    first = hold_one(["a"], 1, tmp_path)
    assert first is not None
    assert hold_one(["a"], 1, tmp_path) is None  # taken
    monkeypatch.setattr(fcntl, "flock", no_locks)
    found = hold_one(["a"], 1, tmp_path)
    assert found is not None
    assert found[0] == "a"


@pytest.mark.parametrize(
    ("mps", "device", "workers", "count", "threads"),
    [
        (True, "auto", None, 1, 8),
        (True, "mps", None, 1, 8),
        (True, "auto", 2, 2, 4),  # as asked
        (True, "cpu", None, 6, 1),
        (False, "auto", None, 6, 1),
    ],
)
def test_a_mac_executes_one_run_at_a_time(
    mps: bool, device: str, workers: int | None, count: int, threads: int,
    monkeypatch: pytest.MonkeyPatch, compose: Callable[..., Config],
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    configs = [compose("data=digits", f"train.device={device}", f"seed={seed}") for seed in range(6)]
    slots = plan_slots(configs, workers)
    assert (slots.count, slots.threads, slots.gpus) == (count, threads, [])


CORES = ["core0", "core1", "core2", "core3"]


@pytest.mark.parametrize(
    ("words", "workers", "needed"),
    [
        ([], None, (CORES, 1, 1)),
        ([], 2, (CORES, 2, 1)),  # two threads each
        (["train.threads=4"], None, (CORES, 4, 1)),
        (["train.threads=3"], None, (CORES, 3, 1)),
        ([], 8, (CORES, 1, 2)),  # two runs a core, as asked
        (["train.threads=8"], None, (CORES, 4, 2)),
        (["train.devices=2"], 2, (CORES, 2, 1)),
    ],
)
def test_a_run_needs_a_core_for_each_thread(
    words: list[str], workers: int | None, needed: tuple[list[str], int, int],
    monkeypatch: pytest.MonkeyPatch, compose: Callable[..., Config],
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    configs = [compose("data=digits", "train.device=cpu", f"seed={seed}", *words) for seed in range(8)]
    assert plan_slots(configs, workers).places_of(configs[0]) == needed


def test_slurm_shares_out_cores_itself(monkeypatch: pytest.MonkeyPatch, compose: Callable[..., Config]) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "1")
    assert plan_slots([compose("data=digits", "train.device=cpu")], None).cores == []


def never() -> bool:
    return False


def test_who_waits_first_gets_the_next_places(tmp_path: Path) -> None:
    first = hold_one(["core0"], 1, tmp_path)
    assert first is not None
    found: list[list[str] | None] = []
    looked = threading.Event()

    def has_looked() -> bool:
        looked.set()
        return False

    def early() -> None:
        found.append(hold_in_turn(["core0", "core1"], 2, 1, seconds=60, stopped=has_looked, folder=tmp_path))

    def late() -> list[str] | None:
        return hold_in_turn(["core0", "core1"], 1, 1, seconds=0, stopped=never, folder=tmp_path)

    waiting = threading.Thread(target=early)
    waiting.start()
    while not stands_in_queue(tmp_path):
        time.sleep(0.01)
    assert late() is None  # though core1 is free
    looked.clear()
    looked.wait()  # freed amid a look, core0 would be found after core1
    os.close(first[1])
    waiting.join()
    assert found == [["core0", "core1"]]
    assert not stands_in_queue(tmp_path)


def stands_in_queue(locks: Path) -> bool:
    queues = [path.stem for path in locks.iterdir() if path.name.startswith("queue-")]
    held = hold_one(queues, 1, locks)
    if held is not None:
        os.close(held[1])
    return queues != [] and held is None


def test_a_wait_for_a_place_ends_where_the_run_is_to_stop(tmp_path: Path) -> None:
    assert hold_one(["core0"], 1, tmp_path) is not None
    looks = iter([False, False, True])
    assert hold_in_turn(["core0"], 1, 1, seconds=1000, stopped=lambda: next(looks), folder=tmp_path) is None
    assert not stands_in_queue(tmp_path)


def link_to_a_file(path: Path, outside: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(outside / "file")


def pipe(path: Path, outside: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)


def link_to_a_folder(path: Path, outside: Path) -> None:
    path.parent.symlink_to(outside)


def file_in_place_of_the_folder(path: Path, outside: Path) -> None:
    path.parent.touch()


@pytest.mark.parametrize("plant", [link_to_a_file, pipe, link_to_a_folder, file_in_place_of_the_folder])
def test_what_others_put_in_place_of_a_lock_stops_nobody(
    plant: Callable[[Path, Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "private"
    outside.mkdir(mode=0o700)
    (outside / "file").touch(mode=0o600)
    plant(tmp_path / "locks" / "a.0", outside)
    found = hold_one(["a"], 1, tmp_path / "locks")
    assert found is not None
    assert found[0] == "a"
    assert "a.0 is no lock that can be used" in capsys.readouterr().err
    assert outside.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in outside.iterdir()] == ["file"]


def test_locks_are_open_to_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        assert hold_one(["a"], 1, tmp_path / "locks") is not None
    finally:
        os.umask(before)
    assert (tmp_path / "locks").stat().st_mode & 0o7777 == 0o1777
    assert (tmp_path / "locks" / "a.0").stat().st_mode & 0o777 == 0o644


HOLDS = """
import os, sys
from pathlib import Path
from hidden_subnet.sweep.places import hold_one
os.umask(0o077)
print(hold_one(["a"], 1, Path(sys.argv[1])) is not None, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_the_lock_of_another_user_holds_and_says_whose_it_is() -> None:
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o1777)
        locks = Path(made) / "locks"
        command = [*as_user(12345), sys.executable, "-c", HOLDS, str(locks)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "True\n"
            assert hold_one(["a", "b"], 1, locks) is not None  # b
            assert hold_one(["a"], 1, locks) is None
            assert holders(["a"], 1, locks) == f"GPU a: process {other.pid} of user 12345"
            other.communicate()
        assert hold_one(["a"], 1, locks) is not None


def in_a_folder_of_his_own(locks: Path) -> str:
    return f"mkdir -m 700 {locks}"


def as_a_pipe(locks: Path) -> str:
    return f"mkdir -m 777 {locks} && mkfifo {locks}/a.0"


def as_a_link_to_a_private_folder(locks: Path) -> str:
    return f"ln -s {locks.parent}/private {locks}"


def as_a_closed_file(locks: Path) -> str:
    return f"mkdir -m 777 {locks} && touch {locks}/a.0 && chmod 000 {locks}/a.0"


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
@pytest.mark.parametrize(
    "planted", [in_a_folder_of_his_own, as_a_pipe, as_a_link_to_a_private_folder, as_a_closed_file]
)
def test_what_another_user_plants_in_place_of_the_locks_stops_no_third_one(planted: Callable[[Path], str]) -> None:
    take = "import sys; from pathlib import Path; from hidden_subnet.sweep.places import hold_one; "
    take += "print(hold_one(['a'], 1, Path(sys.argv[1]))[0])"
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o1777)
        (folder / "private").mkdir(mode=0o700)
        locks = folder / "locks"
        subprocess.run([*as_user(12345), "sh", "-c", planted(locks)], check=True)
        third = [*as_user(12346), sys.executable, "-c", take, str(locks)]
        said = subprocess.run(third, capture_output=True, text=True, timeout=120)
        assert said.stdout == "a\n", said.stderr
        assert (folder / "private").stat().st_mode & 0o777 == 0o700
        assert not [*(folder / "private").iterdir()]
