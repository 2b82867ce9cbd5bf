"""What a run leaves is settled in its folder, wherever that was killed and without hard links."""

import ctypes
import errno
import json
import os
import platform
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from claiming import claim, fall_silent, foreign, in_child, result, state, work

from hidden_subnet import claims, record
from hidden_subnet.claims import settle


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "run-0123456789ab"
    folder.mkdir(parents=True)
    return folder


def contents(run: Path) -> dict[str, str]:
    return {
        str(path.relative_to(run)): path.read_text()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.suffix != ".tmp"
    }


@pytest.mark.slow
def test_settle_goes_on_wherever_it_was_killed(run: Path) -> None:
    earlier = claim(run)
    work(earlier)
    claims.end(earlier.folder, "failed", "it did")
    last = claim(run)
    work(last, epochs=2)
    result(last)
    (run / record.ATTEMPTS / ".deadbeef").mkdir()  # a claim whose owner died while it prepared it
    os.link(last.folder / record.RESULT, run / record.RESULT)
    base = run.parent / "base"
    shutil.copytree(run, base, copy_function=os.link)
    settle(run)
    settled = contents(run)
    assert set(settled) == {
        record.RESULT, record.METRICS, record.LOG, record.PROVENANCE,
        "checkpoints/first.ckpt", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
    }  # fmt: skip
    assert not (run / record.ATTEMPTS).exists()
    settle(run)
    assert contents(run) == settled
    changes = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "open"}
    kills = 0
    while True:
        shutil.rmtree(run)
        shutil.copytree(base, run, copy_function=os.link)
        if in_child(lambda at=kills + 1: settle_and_die(run, changes, at)) == 0:
            break
        kills += 1
        assert state(run) == "done"
        assert record.count_rows(record.working(run)) == 3  # whoever reads now finds all
        settle(run)
        assert contents(run) == settled, kills
        assert not (run / record.ATTEMPTS).exists(), kills
    assert kills > 20


def settle_and_die(run: Path, events: set[str], at: int) -> None:
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in events:
            seen += 1
            if seen == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    settle(run)


def forbid_links() -> None:
    """Have the kernel refuse link and linkat to this process, as it does on a file system without hard links."""
    numbers = {"x86_64": (86, 265), "aarch64": (37, 37)}[platform.machine()]
    load, equal, give = 0x20, 0x15, 0x06
    program = [
        (load, 0, 0, 0),
        (equal, 1, 0, numbers[0]),
        (equal, 0, 1, numbers[1]),
        (give, 0, 0, 0x00050000 | errno.EPERM),
        (give, 0, 0, 0x7FFF0000),
    ]

    class Filter(ctypes.Structure):
        _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filters", ctypes.POINTER(Filter))]

    filters = (Filter * len(program))(*program)
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, seccomp, filter_mode = 38, 22, 2
    assert libc.prctl(no_new_privileges, 1, 0, 0, 0) == 0
    assert libc.prctl(seccomp, filter_mode, ctypes.byref(Program(len(program), filters)), 0, 0) == 0


def test_file_system_without_hard_links(run: Path) -> None:
    def forbidden() -> None:
        forbid_links()
        with pytest.raises(PermissionError):
            os.link(run, run.with_name("link"))
        first = claim(run)
        work(first)
        claims.end(first.folder, "interrupted", "saved")
        second = foreign(run)
        assert (second.folder / "checkpoints" / record.RESUME).read_text() == f"{record.RESUME} of 1"
        work(second)
        result(second)
        fall_silent(second)
        third = claim(run)
        work(third)
        result(third)
        assert second.commit()
        assert not third.commit()
        third.drop()

    assert in_child(forbidden) == 0
    assert json.loads((run / record.RESULT).read_text())["by"] == 2
    assert (run / record.LOG).read_text() == "log of 2\n"
    assert not (run / record.ATTEMPTS).exists()


def test_without_hard_links_settle_goes_on_too(run: Path) -> None:
    attempt = claim(run)
    work(attempt)
    result(attempt)
    shutil.copyfile(attempt.folder / record.RESULT, run / record.RESULT)  # committed, and killed there
    assert record.working(run) == attempt.folder
    settle(run)
    assert (run / record.METRICS).exists()
    assert not (run / record.ATTEMPTS).exists()
