"""The limits of a container, as the kernel's files show them."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from hidden_subnet.config.settings import Config
from hidden_subnet.store import machine
from hidden_subnet.store.machine import busy_cores, cpu_quota
from hidden_subnet.sweep.busy_cores import say_if_busy
from hidden_subnet.sweep.places import visible_cores
from hidden_subnet.training import devices

V2 = "0::/pods/one\n"
V1 = "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n2:cpuset:/\n0::/\n"


@pytest.mark.parametrize(
    ("groups", "limits", "quota"),
    [
        (V2, {"pods/one/cpu.max": "150000 100000\n"}, 1.5),
        (V2, {"pods/one/cpu.max": "max 100000\n", "pods/cpu.max": "400000 100000\n"}, 4.0),
        (V2, {"pods/one/cpu.max": "400000 100000\n", "pods/cpu.max": "50000 100000\n"}, 0.5),
        (V2, {"pods/one/cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2.0),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "300000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 3.0),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, None),
        (V1, {"memory/cpu.max": "100000 100000\n"}, None),
        (V2, {"pods/one/cpu.max": "\n"}, None),
        ("", {"cpu.max": "200000 100000\n"}, None),
        ("damaged\n", {"cpu.max": "200000 100000\n"}, None),
    ],
)  # fmt: skip
def test_the_smallest_limit_counts(tmp_path: Path, groups: str, limits: dict[str, str], quota: float | None) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in limits.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cpu_quota(tmp_path) == quota


def test_there_may_be_no_such_files(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


def test_cores_are_whole_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    there = devices.cores()
    for quota, whole in ((1e9, there), (0.5, 1), (1.9, 1)):
        monkeypatch.setattr(machine, "cpu_quota", lambda quota=quota: quota)
        assert devices.cores() == whole


@pytest.mark.skipif(sys.platform != "linux", reason="affinity and control groups are Linux's")
def test_cores_are_named_unless_they_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5, 3, 9})
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    assert machine.usable_cores() == ([3, 5, 9], None)
    assert visible_cores() == ["core3", "core5", "core9"]
    monkeypatch.setattr(machine, "cpu_quota", lambda: 2.5)  # of a container, whose two cores may be any of the three
    numbers, limited_to = machine.usable_cores()
    assert len(numbers) == 2
    assert limited_to is not None
    assert visible_cores() == [f"core-{limited_to}-0", f"core-{limited_to}-1"]


def test_a_busy_core_is_told_on_a_terminal() -> None:
    """This process has one core, beside a program that never rests."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    program = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        used = busy_cores(0.5)
        assert used is not None
        assert 0.6 <= used <= 1.0
        line = r"other programs keep (0\.[6-9]|1\.0) of 1 core busy, so steps take longer; .*\n"
        assert re.fullmatch(line, said([Config()], is_terminal=True))
        assert said([Config()], is_terminal=False) == said([], is_terminal=True) == ""
    finally:
        program.kill()
        program.wait()
        os.sched_setaffinity(0, before)


def said(configs: list[Config], *, is_terminal: bool) -> str:
    written = io.StringIO()
    say_if_busy(configs, Console(file=written, force_terminal=is_terminal, color_system=None, width=160))
    return written.getvalue()
