"""Sockets where the temporary folder takes none, and processes that import our modules and Python's own."""

import os
import subprocess
import sys
import tempfile
from multiprocessing import process, util
from pathlib import Path

import pytest

from hidden_subnet.store import child_processes
from hidden_subnet.store.child_processes import our_modules, place_sockets


@pytest.fixture(autouse=True)
def _as_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let multiprocessing make its folder again."""
    monkeypatch.setitem(process.current_process()._config, "tempdir", None)
    place_sockets.cache_clear()


def test_sockets_are_in_the_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    place_sockets()
    assert Path(util.get_temp_dir()).parent == Path(tempfile.gettempdir())


def test_sockets_are_elsewhere_if_its_path_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    place_sockets()
    assert str(Path(util.get_temp_dir()).parent) in child_processes.SOCKET_FOLDERS
    assert os.stat(util.get_temp_dir()).st_mode & 0o777 == 0o700
    assert tempfile.gettempdir() == str(long)  # only for sockets


def test_no_folder_takes_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(OSError, match=r"TMPDIR=.*missing: no socket can be made there, nor in .*neither; set TMPDIR"):
        place_sockets((str(tmp_path / "neither"),))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="PYTHONSAFEPATH is new in Python 3.11")
def test_modules_of_the_working_directory_are_not_imported(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('of the working directory')")
    before = dict(os.environ)
    command = [sys.executable, "-c", "import random, hidden_subnet; print(hidden_subnet.__file__)"]
    with our_modules():
        said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert Path(said.stdout.strip()).parents[1] == Path(__file__).parents[2], said.stderr
    assert dict(os.environ) == before
