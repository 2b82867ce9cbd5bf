"""finalize moves a finished run's files to their place, also after a kill at any point, and without hard links."""

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
from helpers.claiming import claim, foreign, in_child, state, stop_heartbeat, work, write_result

from hidden_subnet.store import claims, files
from hidden_subnet.store.claims import finalize


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
def test_finalize_completes_what_a_kill_interrupted(run: Path) -> None:
    earlier = claim(run)
    work(earlier)
    claims.end(earlier.folder, "failed", "it did")
    last = claim(run)
    work(last, epochs=2)
    write_result(last)
    (run / files.ATTEMPTS / ".0123456789abcdef").mkdir()  # a claim whose process died while preparing it
    os.link(last.folder / files.RESULT, run / files.RESULT)
    base = run.parent / "base"
    shutil.copytree(run, base, copy_function=os.link)
    finalize(run)
    settled = contents(run)
    assert set(settled) == {
        files.RESULT, files.METRICS, files.LOG, files.PROVENANCE,
        "checkpoints/first.ckpt", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
    }  # fmt: skip
    assert not (run / files.ATTEMPTS).exists()
    finalize(run)
    assert contents(run) == settled
    changes = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "open"}
    kills = 0
    while True:
        shutil.rmtree(run)
        shutil.copytree(base, run, copy_function=os.link)
        if in_child(lambda at=kills + 1: finalize_and_die(run, changes, at)) == 0:
            break
        kills += 1
        assert state(run) == "done"
        assert files.count_rows(files.working(run)) == 3  # a reader finds all rows at this moment
        finalize(run)
        assert contents(run) == settled, kills
        assert not (run / files.ATTEMPTS).exists(), kills
    assert kills > 20


def finalize_and_die(run: Path, events: set[str], at: int) -> None:
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in events:
            seen += 1
            if seen == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    finalize(run)


def forbid_links() -> None:
    """Make the kernel refuse link and linkat to this process, as on a file system without hard links."""
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
        assert (second.folder / "checkpoints" / files.RESUME).read_text() == f"{files.RESUME} of 1"
        work(second)
        write_result(second)
        stop_heartbeat(second)
        third = claim(run)
        work(third)
        write_result(third)
        assert second.commit()
        assert not third.commit()
        third.release()

    assert in_child(forbidden) == 0
    assert json.loads((run / files.RESULT).read_text())["by"] == 2
    assert (run / files.LOG).read_text() == "log of 2\n"
    assert not (run / files.ATTEMPTS).exists()


def test_finalize_completes_a_commit_without_hard_links(run: Path) -> None:
    attempt = claim(run)
    work(attempt)
    write_result(attempt)
    shutil.copyfile(attempt.folder / files.RESULT, run / files.RESULT)  # committed, then killed
    assert files.working(run) == attempt.folder
    finalize(run)
    assert (run / files.METRICS).exists()
    assert not (run / files.ATTEMPTS).exists()
