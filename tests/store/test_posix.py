"""Locks of files, and the line on Windows."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.imports import files_that_import

import hidden_subnet as hs
from hidden_subnet.errors import ConfigError
from hidden_subnet.store.posix import lock, refuse_windows

TAKE = (
    "import sys; from hidden_subnet.store.posix import lock; file = open(sys.argv[1]); lock(file.fileno(), wait=False)"
)


def test_a_lock_is_held_until_the_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", TAKE, str(path)]
    with path.open("w") as file:
        lock(file.fileno(), wait=True)
        assert "BlockingIOError" in subprocess.run(command, capture_output=True, text=True).stderr
    subprocess.run(command, check=True)


def test_one_module_knows_fcntl() -> None:
    assert files_that_import("fcntl") == {"hidden_subnet/store/posix.py"}


def test_windows_is_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_windows()
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ConfigError, match=r"Windows does not have; use WSL \(type: wsl --install\)$"):
        hs.run_sweep("data=synthetic", f"out={tmp_path}", seed=[0, 1])
    with (tmp_path / "lock").open("w") as file, pytest.raises(OSError, match="Windows has no such locks"):
        lock(file.fileno(), wait=True)
