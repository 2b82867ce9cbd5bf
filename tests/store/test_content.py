"""Digests are remembered while files are unchanged, and without a cache folder they are only computed more often."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hidden_subnet.store import content
from hidden_subnet.store.content import remembered, sha256_of

NOW = time.time


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty cache folder of a user, in a process that remembers nothing, where files need not be old."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(time, "time", lambda: NOW() + 2 * content.SETTLED)
    content._here.clear()
    return tmp_path / "cache" / "hidden_subnet"


class Reader:
    """Reads files, and counts how often it is asked to."""

    def __init__(self, *paths: Path) -> None:
        self.paths, self.calls = paths, 0

    def __call__(self, *, new_process: bool = True) -> str:
        if new_process:
            content._here.clear()
        return remembered("test", [str(path) for path in self.paths], self._read)

    def _read(self, sizes: list[int]) -> str:
        self.calls += 1
        assert sizes == [path.stat().st_size for path in self.paths]
        return " ".join(path.read_text() for path in self.paths)


def rewritten_in_place(path: Path) -> None:
    """Change the content, and neither size nor time of modification, as `rsync -t` of a repaired file may."""
    before = path.stat()
    path.write_text("X")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    before = path.stat()
    new = path.with_name("new")
    new.write_text("X")
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.replace(path)


@pytest.mark.parametrize("change", [lambda path: path.write_text("longer"), rewritten_in_place, replaced])
def test_files_are_read_again_when_one_has_changed(tmp_path: Path, cache: Path, change: Callable[[Path], Any]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("a")
    two.write_text("b")
    read = Reader(one, two)
    assert [read(), read(), read(new_process=False)] == ["a b"] * 3
    assert read.calls == 1
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    time.sleep(0.02)  # a file system's clock may tick every 10 ms
    change(two)
    assert read() == f"a {two.read_text()}" != "a b"
    assert read.calls == 2


def test_nothing_is_remembered_of_files_that_may_still_change(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", NOW)
    (tmp_path / "young").write_text("a")
    read = Reader(tmp_path / "young")
    assert [read(), read(new_process=False)] == ["a", "a"]
    assert read.calls == 2


def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as without HOME and an entry in passwd


def shared_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache" / "hidden_subnet").mkdir(parents=True)
    (tmp_path / "cache" / "hidden_subnet").chmod(0o777)


UNUSABLE: list[Callable[[Path, pytest.MonkeyPatch], Any]] = [
    no_home,
    shared_folder,
    lambda tmp_path, monkeypatch: (tmp_path / "cache").write_text("a file"),
    lambda tmp_path, monkeypatch: monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere"),
]


@pytest.mark.parametrize("spoil", UNUSABLE, ids=["no home", "others may write", "a file", "cannot be made"])
def test_an_unusable_cache_folder_is_no_error(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path, pytest.MonkeyPatch], Any]
) -> None:
    (tmp_path / "one").write_text("a")
    read = Reader(tmp_path / "one")
    spoil(tmp_path, monkeypatch)
    assert [read(), read(), read(new_process=False)] == ["a"] * 3
    assert read.calls == 2


@pytest.mark.parametrize("damage", [b"", b"\xff", b"[]", b'{"stamp": 1}'])
def test_a_damaged_cache_file_is_written_again(tmp_path: Path, cache: Path, damage: bytes) -> None:
    (tmp_path / "one").write_text("a")
    read = Reader(tmp_path / "one")
    read()
    [entry] = cache.iterdir()
    entry.write_bytes(damage)
    assert [read(), read()] == ["a", "a"]
    assert read.calls == 2
    assert list(cache.iterdir()) == [entry]


def test_a_pipe_is_never_read(tmp_path: Path, cache: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"not a regular file.*pipe"):
        sha256_of(tmp_path / "pipe")


def test_sha256_of_a_file(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "abc").write_text("abc")
    for _ in range(2):
        assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
