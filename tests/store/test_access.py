"""Folders of another user: named with their owner before anything runs."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hidden_subnet.errors import ConfigError
from hidden_subnet.store import access
from hidden_subnet.store.access import explained, folders_written, may_not_replace, refuse_unwritable, user
from hidden_subnet.store.find import typed


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Let os.access say that a folder may not be written to, as it does for any user but root."""
    found: list[Path] = []
    real = os.access
    monkeypatch.setattr(access.os, "access", lambda path, mode, **_: Path(path) not in found and real(path, mode))
    monkeypatch.setattr(access.os, "supports_effective_ids", {access.os.access})
    return found.append


def test_a_folder_of_another_user_is_refused_with_its_owner(tmp_path: Path, closed: Callable[[Path], None]) -> None:
    inner = tmp_path / "run"
    inner.mkdir()
    refuse_unwritable([tmp_path, inner, tmp_path / "missing"], tmp_path)
    closed(inner)
    with pytest.raises(ConfigError) as refused:
        refuse_unwritable([tmp_path, inner], tmp_path, "delete only your own")
    line = str(refused.value)
    assert line.startswith(f"{inner} belongs to {user(os.geteuid())}, and {user(os.geteuid())} may not write there; ")
    assert f"chmod -R g+rwX {tmp_path}" in line
    assert "umask 002" in line
    assert line.endswith("or delete only your own")
    assert "\n" not in line


def test_folders_that_a_run_writes_to(tmp_path: Path) -> None:
    (tmp_path / "attempts" / "2" / "checkpoints").mkdir(parents=True)
    written = [str(folder.relative_to(tmp_path)) for folder in folders_written(tmp_path)]
    assert written == [".", "checkpoints", "tensorboard", "attempts", "attempts/2", "attempts/2/checkpoints"]
    assert len(list(folders_written(tmp_path / "missing"))) == 4


def test_sticky_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "results.csv"
    assert not may_not_replace(file)
    file.touch()
    for mode, me, refused in [(0o1777, 4321, True), (0o777, 4321, False), (0o1777, os.geteuid(), False)]:
        tmp_path.chmod(mode)
        monkeypatch.setattr(access.os, "geteuid", lambda me=me: me)
        assert may_not_replace(file) == refused


def test_an_error_of_rights_names_the_owner(tmp_path: Path) -> None:
    error = PermissionError(13, "Permission denied", str(tmp_path / "missing" / "file"))
    me = user(os.geteuid())
    assert explained(error).endswith(f"missing/file': {tmp_path} belongs to {me}, and you are {me}")
    assert explained(FileNotFoundError(2, "No such file", "x")) == "[Errno 2] No such file: 'x'"


def test_a_user_without_a_name_has_a_number() -> None:
    assert user(2**31 - 7) == f"user {2**31 - 7}"


@pytest.mark.skipif(os.geteuid() != 0, reason="making another user's link needs root")
def test_link_that_another_user_made_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "run"
    link.symlink_to("elsewhere")
    assert typed(link) == tmp_path / "elsewhere"  # one's own
    os.chown(link, 12345, -1, follow_symlinks=False)
    with pytest.raises(ConfigError, match=rf"{link} is a link that another user made; .* type: {tmp_path}/elsewhere"):
        typed(link)
