"""Links, pipes and folders where a file of a run belongs: refused by name, and nothing outside is touched."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.claiming import claim, state, work, write_result
from helpers.other_kinds import dangling_link, device, loop, pipe, socket
from helpers.run_folders import config, finish
from helpers.time_limit import within

from hidden_subnet.store import claims, files, folders, liveness, sweeps
from hidden_subnet.store.folders import UnsafeError
from hidden_subnet.store.read import read_run, read_runs

NAME = "run-0123456789ab"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder like a home: files and hidden folders that nobody may touch."""
    home = tmp_path / "home"
    for folder in (home / "checkpoints", home / ".0123456789abcdef", home / ".ssh", home / "1" / "checkpoints"):
        folder.mkdir(parents=True)
        (folder / "best.ckpt").write_text("mine")
    for name in ("log", "metrics.jsonl", "result.json", "key"):
        (home / name).write_text('{"epoch": 0, "private": 1}\n')
    return home


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / NAME
    folder.mkdir(parents=True)
    return folder


def content(folder: Path) -> dict[str, tuple[str, int]]:
    """Each file in a folder with its text and the time of its last change."""
    return {
        str(path): (path.read_text() if path.is_file() else "", os.lstat(path).st_mtime_ns)
        for path in sorted([folder, *folder.rglob("*")])
    }


def done(run: Path) -> None:
    attempt = claim(run)
    work(attempt)
    write_result(attempt)
    assert attempt.commit()


# What somebody plants in a run, and what the run's user then does.
def attempts_to_home(run: Path, outside: Path) -> None:
    done(run)
    (run / "attempts").symlink_to(outside)
    claims.finalize(run)


def an_attempt_to_home(run: Path, outside: Path) -> None:
    (run / "attempts").mkdir()
    (run / "attempts" / "1").symlink_to(outside)
    claim(run)


def hidden_attempt_to_home(run: Path, outside: Path) -> None:
    done(run)
    (run / "attempts").mkdir()
    (run / "attempts" / ".0123456789abcdef").symlink_to(outside)
    claims.finalize(run)
    raise UnsafeError(run, "kept")  # nothing to refuse: the rest of the run is in order


def checkpoints_to_another_run(run: Path, outside: Path) -> None:
    attempt = claim(run)
    work(attempt)
    write_result(attempt)
    (run / "checkpoints").symlink_to(outside / "checkpoints")
    attempt.commit()


def log_to_a_private_file(run: Path, outside: Path) -> None:
    attempt = claim(run)
    (attempt.folder / "log").symlink_to(outside / "key")
    claims.end(attempt.folder, "interrupted", "")
    claim(run)


def metrics_to_a_private_file(run: Path, outside: Path) -> None:
    attempt = claim(run)
    (attempt.folder / "metrics.jsonl").symlink_to(outside / "key")
    files.append_row(attempt.folder, {"epoch": 1})


def metrics_read_from_a_private_file(run: Path, outside: Path) -> None:
    (run / "metrics.jsonl").symlink_to(outside / "key")
    files.read_rows(run)


def result_of_another_run(run: Path, outside: Path) -> None:
    (run / "result.json").symlink_to(outside / "result.json")
    files.read_result(run)


def checkpoint_of_another_run(run: Path, outside: Path) -> None:
    attempt = claim(run)
    (attempt.folder / "checkpoints" / "resume.ckpt").symlink_to(outside / "checkpoints" / "best.ckpt")
    claims.end(attempt.folder, "interrupted", "")
    claim(run)


def settings_elsewhere(run: Path, outside: Path) -> None:
    (run / "config.yaml").symlink_to(outside / "key")
    files.load_config(run / "config.yaml")


def run_to_home(run: Path, outside: Path) -> None:
    run.rmdir()
    run.symlink_to(outside)
    claim(run)


def path_with_dots(run: Path, outside: Path) -> None:
    folders.write_atomically(run.parent / ".." / "home" / "key", b"", root=run.parent)


def heartbeats_elsewhere(run: Path, outside: Path) -> None:
    attempt = claim(run)
    (run / "attempts").rename(run / "aside")
    (run / "attempts").symlink_to(outside)
    liveness.beat(attempt.folder / "claim.json")


def removed_tree_is_a_link(run: Path, outside: Path) -> None:
    (run / "tensorboard").symlink_to(outside)
    folders.remove_tree(run / "tensorboard")


PLANTED: list[Callable[[Path, Path], None]] = [
    attempts_to_home,
    an_attempt_to_home,
    hidden_attempt_to_home,
    checkpoints_to_another_run,
    log_to_a_private_file,
    metrics_to_a_private_file,
    metrics_read_from_a_private_file,
    result_of_another_run,
    checkpoint_of_another_run,
    settings_elsewhere,
    run_to_home,
    path_with_dots,
    heartbeats_elsewhere,
    removed_tree_is_a_link,
]


@pytest.mark.parametrize("plant", PLANTED)
def test_nothing_outside_of_the_run_is_touched(run: Path, outside: Path, plant: Callable[[Path, Path], None]) -> None:
    before = content(outside)
    with pytest.raises(UnsafeError):
        plant(run, outside)
    assert content(outside) == before
    if not run.is_symlink():
        copies = [path for path in run.rglob("*") if path.is_file() and not path.is_symlink()]
        assert not [path for path in copies if "private" in path.read_text()]


def test_links_that_are_replaced_or_removed_keep_their_targets(run: Path, outside: Path) -> None:
    before = content(outside)
    for name in ("result.json", "provenance.json", "wandb_id"):
        (run / name).symlink_to(outside / "key")
    files.write_json(run / "provenance.json", {})
    folders.remove(run / "result.json")
    files.clear(run)
    assert content(outside) == before
    assert (run / "provenance.json").read_text() == "{}\n"
    assert sorted(os.listdir(run)) == ["provenance.json"]


def test_temporary_names_cannot_be_guessed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new, **where: (names.append(old), replace(old, new, **where)))
    for _ in range(3):
        files.write_json(run / "result.json", {})
    assert len(set(names)) == 3


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_anything_but_a_regular_file_is_refused_at_once(run: Path, kind: str) -> None:
    path = run / "attempts" / "1" / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to("/dev/zero")
    for attempted in (folders.read_bytes, folders.append, folders.is_file, folders.touch):
        with pytest.raises(UnsafeError, match=r"metrics\.jsonl is (not a regular file|a symbolic link)"):
            attempted(path)


@pytest.mark.parametrize("make", [pipe, socket, device, dangling_link, loop])
@pytest.mark.parametrize("name", [NAME, f"{NAME}/attempts", f"{NAME}/checkpoints"])
def test_anything_but_a_folder_is_refused_at_once(run: Path, make: Callable[[Path], None], name: str) -> None:
    path = run.parent / name
    if path == run:
        run.rmdir()
    make(path)
    for attempted in (folders.size, folders.remove_tree, folders.read_tree):
        with pytest.raises(UnsafeError, match=r" is (not a folder|a symbolic link)"), within(10):
            attempted(path, run.parent)
    assert os.path.lexists(path)


def test_a_tree_is_removed_with_all_kinds_of_files_in_it(run: Path, outside: Path) -> None:
    before = content(outside)
    for folder in (run / "attempts" / "1", run / "a" / "b" / "c"):
        folder.mkdir(parents=True)
        for make in (pipe, socket, dangling_link, loop):
            make(folder / make.__name__)
        (folder / "home").symlink_to(outside)
        (folder / "key").symlink_to(outside / "key")
        (folder / "file").write_text("12345")
    with within(10):
        size = folders.size(run, run.parent)
        links = [path for path in run.rglob("*") if path.is_symlink()]
        assert size == 2 * 5 + sum(path.lstat().st_size for path in links)
        folders.remove_tree(run, run.parent)
    assert not run.exists()
    assert content(outside) == before


@pytest.mark.parametrize("name", ["config.yaml", "result.json", "attempts"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_run_with_a_planted_file_is_named_and_the_others_are_read(
    tmp_path: Path, outside: Path, name: str, kind: str
) -> None:
    out = tmp_path / "runs"
    good, bad = finish(out, config(), 0.9), finish(out, config(seed=1), 0.8)
    if name == "attempts":
        (bad / "result.json").unlink()
    else:
        (bad / name).unlink()
    (bad / name).symlink_to(outside / "key") if kind == "link" else os.mkfifo(bad / name)
    runs = {each.folder: each for each in read_runs(out)}
    assert runs[good].state == "done"
    if (name, kind) != ("attempts", "pipe"):  # not a folder, so there are none
        assert runs[bad].state == "failed"
        assert f"{bad / name} is" in runs[bad].error
        assert "private" not in runs[bad].error


def test_the_folder_of_the_runs_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "big disk").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "big disk")
    run = tmp_path / "runs" / NAME
    run.mkdir()
    done(run)
    assert state(run) == "done"
    sweep = sweeps.write(sweeps.plan([config(out=str(tmp_path / "runs"))], "seeds"), {})
    assert sweeps.find(tmp_path / "runs") == [sweep.folder]
    finish(tmp_path / "runs", config(), 0.9)
    assert [each.state for each in read_runs(tmp_path / "runs")] == ["done"]


@pytest.mark.parametrize("planted", [".sweeps", ".sweeps/{name}"])
def test_a_sweep_is_not_written_through_a_link(tmp_path: Path, outside: Path, planted: str) -> None:
    out = tmp_path / "runs"
    configs = [config(out=str(out))]
    path = out / planted.format(name=sweeps.plan(configs, "seeds").folder.name)
    path.parent.mkdir(parents=True)
    path.symlink_to(outside)
    before = content(outside)
    with pytest.raises(UnsafeError, match="symbolic link"):
        sweeps.write(sweeps.plan(configs, "seeds"), {})
    assert content(outside) == before


def test_the_stop_file_and_presence_of_workers_are_data(tmp_path: Path, outside: Path) -> None:
    sweep = sweeps.write(sweeps.plan([config(out=str(tmp_path / "runs"))], "seeds"), {}).folder
    before = content(outside)
    (sweep / "stop").symlink_to(outside / "key")
    assert sweeps.stop_reason(sweep) == (
        f"{sweep / 'stop'} is a symbolic link, which is neither read nor written here; remove it"
    )
    sweeps.stop(sweep, "mine")
    sweeps.write(sweeps.plan([config(out=str(tmp_path / "runs"))], "seeds"), {})  # the next launch withdraws it
    assert sweeps.stop_reason(sweep) is None
    (sweep / "failures").symlink_to(outside)
    sweeps.record_failure(sweeps.read(sweep), NAME, "x")
    assert content(outside) == before


def test_a_copy_is_as_private_as_the_file(run: Path) -> None:
    attempt = claim(run)
    work(attempt)
    log = attempt.folder / "log"
    log.unlink()
    private = run.parent / "private"
    private.write_text("x")
    private.chmod(0o600)
    os.link(private, log)  # where the kernel lets anybody make a second name of a file
    claims.end(attempt.folder, "interrupted", "")
    assert (claim(run).folder / "log").stat().st_mode & 0o777 == 0o600


WRITER = """
import os, signal, sys
from pathlib import Path
from hidden_subnet.store import folders
fsync = os.fsync
os.fsync = lambda file: (os.kill(os.getpid(), signal.Signals[sys.argv[2]]), fsync(file))
folders.write_atomically(Path(sys.argv[1]), b"by the child")
"""


def writer_hit_by(name: str, path: Path) -> "subprocess.Popen[bytes]":
    """A process that gets the signal when it has written its temporary file but not renamed it."""
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(path), name])
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status) if name == "SIGSTOP" else os.WTERMSIG(status) == signal.SIGKILL
    return child


def temporaries(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(".tmp")]


def test_what_a_killed_write_left_goes_with_the_next_and_a_living_writers_file_stays(run: Path) -> None:
    writer_hit_by("SIGKILL", run / "result.json")
    assert len(temporaries(run)) == 1
    suspended = writer_hit_by("SIGSTOP", run / "result.json")
    (run / "notes.tmp").write_text("of the user")
    assert len(temporaries(run)) == 3
    files.write_json(run / "provenance.json", {})
    assert len(temporaries(run)) == 2
    os.kill(suspended.pid, signal.SIGCONT)
    _, status = os.waitpid(suspended.pid, os.WUNTRACED)  # at the next fsync, of the folder
    assert os.WIFSTOPPED(status)
    assert (run / "result.json").read_bytes() == b"by the child"
    os.kill(suspended.pid, signal.SIGKILL)
    suspended.wait()
    assert temporaries(run) == ["notes.tmp"]


def test_temporary_files_of_other_machines_and_versions_go_after_an_hour(run: Path) -> None:
    for name, minutes in (("a.0a0b0c0d-1-2-01234567.tmp", 61), ("b.0a0b0c0d-1-2-01234567.tmp", 5)):
        (run / name).touch()
        os.utime(run / name, (time.time() - 60 * minutes,) * 2)
    for name, minutes in (("result.json.4711.tmp", 61), ("config.yaml.4711.tmp", 5), ("mine.tmp", 61)):
        (run / name).touch()
        os.utime(run / name, (time.time() - 60 * minutes,) * 2)
    files.write_json(run / "provenance.json", {})
    assert sorted(temporaries(run)) == ["b.0a0b0c0d-1-2-01234567.tmp", "config.yaml.4711.tmp", "mine.tmp"]


def test_a_writer_whose_temporary_file_was_taken_away_writes_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, hit = os.replace, []

    def replace_later(old: str, new: str, **where: int) -> None:
        if not hit:
            hit.append(old)
            (run / old).unlink()
        replace(old, new, **where)

    monkeypatch.setattr(os, "replace", replace_later)
    files.write_json(run / "result.json", {})
    assert (run / "result.json").read_text() == "{}\n"
    assert hit


def test_what_does_not_exist_is_said_with_its_whole_path(run: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        folders.read_bytes(run / "attempts" / "7" / "claim.json")
    assert caught.value.filename == str(run / "attempts")
    with pytest.raises(FileNotFoundError) as caught:
        folders.read_bytes(run / "claim.json")
    assert caught.value.filename == str(run / "claim.json")


def test_an_unreadable_run_does_not_end_the_reading(run: Path, outside: Path) -> None:
    run.rmdir()
    run.symlink_to(outside)
    assert read_run(run).state == "failed"
    assert f"{run} is a symbolic link" in read_run(run).error
