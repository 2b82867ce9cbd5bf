"""Files that others can write into a sweep are data: no job is cancelled and no code is run because of them."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.run_folders import config

from hidden_subnet.config.convert import as_dict
from hidden_subnet.errors import ConfigError
from hidden_subnet.store import sweeps
from hidden_subnet.store.access import why_exchangeable
from hidden_subnet.store.liveness import LivenessProbe
from hidden_subnet.store.slurm_queue import QueuedJob
from hidden_subnet.sweep import slurm_array, status
from hidden_subnet.sweep.console import make_console
from hidden_subnet.sweep.slurm_array import known_tasks, mark_of, own_tasks, private_folder, snapshot, submitit_folder

ME, OTHER = str(os.getuid()), str(os.getuid() + 1)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return sweeps.write(sweeps.plan([config(out=str(tmp_path / "runs"))], "seeds"), {}).folder


def record(sweep: Path, *tasks: object) -> None:
    (sweep / "slurm").mkdir(exist_ok=True)
    (sweep / "slurm" / "jobs-1.json").write_text(json.dumps({"tasks": tasks}))


def test_only_the_users_own_jobs_with_the_sweeps_mark_are_cancelled(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = mark_of(sweep)
    same_name_elsewhere = mark_of(tmp_path / "copy" / sweep.name)
    known = {
        "1_0": QueuedJob("PENDING", "Priority", ME, mark),
        "1_1": QueuedJob("RUNNING", "None", ME, f"my comment {mark}"),
        "2_0": QueuedJob("PENDING", "Priority", OTHER, mark),
        "3": QueuedJob("PENDING", "Priority", ME, "(null)"),
        "4": QueuedJob("PENDING", "Priority", ME, same_name_elsewhere),
        "5": QueuedJob("PENDING", "Priority", ME, f"{mark}0"),
    }
    record(sweep, "1_0", "1_1", "2_0", "3", "4", "5", "6")
    assert list(own_tasks(sweep, known)) == ["1_0", "1_1", "2_0"]
    programs = tmp_path / "programs"  # in the place of Slurm's, since its queue has no jobs of another user here
    programs.mkdir()
    lines = "".join(f"{task}|{'|'.join(job)}\n" for task, job in known.items())
    for name, does in (("squeue", f"cat <<END\n{lines}END"), ("scancel", f"echo $* >> {tmp_path}/cancelled")):
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    probe = LivenessProbe(sweep.parents[1])
    assert status.waiting_tasks(sweep, probe) == ["1_0", "2_0"]
    assert status.own_waiting_tasks(sweep, probe) == ["1_0"]
    slurm_array.cancel_idle(known, list(own_tasks(sweep, known)), make_console())
    assert (tmp_path / "cancelled").read_text().split() == ["--state=PENDING", f"--user={ME}", "1_0"]


@pytest.mark.parametrize("task", ["--user=root", "1;2", "../x", 7, None])
def test_tasks_that_are_no_ids_are_refused(sweep: Path, task: object) -> None:
    record(sweep, task)
    with pytest.raises(ValueError, match=r"jobs-1\.json is damaged"):
        known_tasks(sweep)


def test_copy_of_the_code_is_verified_before_it_is_used(sweep: Path) -> None:
    first = snapshot(sweep)
    assert snapshot(sweep) == first
    (first / "torch.py").write_text("import os")  # would be imported instead of torch
    second = snapshot(sweep)
    assert second != first
    assert not (second / "torch.py").exists()
    (second / "hidden_subnet" / "errors.py").write_text("")
    third = snapshot(sweep)
    assert third not in (first, second)
    third.chmod(0o777)
    fourth = snapshot(sweep)
    assert fourth not in (first, second, third)
    (fourth / "hidden_subnet" / "errors.py").unlink()
    (fourth / "hidden_subnet" / "errors.py").symlink_to(third / "hidden_subnet" / "errors.py")
    assert snapshot(sweep) not in (first, second, third, fourth)


def test_what_workers_execute_is_where_nobody_else_may_write(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    assert private_folder(sweep, None) == sweep
    (tmp_path / "runs").chmod(0o2775)  # shared: whoever may write there may rename what is in it
    elsewhere = private_folder(sweep, None)
    assert elsewhere.parent == tmp_path / "home" / ".hidden_subnet"
    assert elsewhere.parent.stat().st_mode & 0o777 == elsewhere.stat().st_mode & 0o777 == 0o700
    assert private_folder(sweep, tmp_path / "mine").parent == tmp_path / "mine"
    (tmp_path / "home").chmod(0o777)
    with pytest.raises(ConfigError, match=r"others may write to .*home; name a folder .*submitit_folder="):
        private_folder(sweep, None)


def test_the_pickles_of_hydras_submitit_launchers_are_where_nobody_else_may_write(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    before, out = os.umask(0o002), tmp_path / "runs"
    try:
        here = Path(submitit_folder(f"{out}/.submitit/%j/x", out, sweep))
        assert here.parent.parent.parent == out / ".submitit"
        assert (here.parent.name, here.name) == ("%j", "x")
        assert here.parent.parent.stat().st_mode & 0o777 == 0o700
        (out / ".submitit").chmod(0o775)
        elsewhere = Path(submitit_folder(f"{out}/.submitit/%j", out, sweep)).parent
        assert elsewhere.parent == tmp_path / "home" / ".hidden_subnet"
        (out / ".submitit").rename(out / "aside")
        out.chmod(0o2775)
        (out / ".submitit").symlink_to(tmp_path / "home")
        assert Path(submitit_folder(f"{out}/.submitit/%j", out, sweep)).parent == elsewhere
        (tmp_path / "open").mkdir(mode=0o775)
        with pytest.raises(ConfigError, match=r"but others may write to .*open; name a folder .*submitit_folder="):
            submitit_folder(f"{tmp_path}/open/%j", out, sweep)
    finally:
        os.umask(before)
    assert elsewhere.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in (tmp_path / "home").iterdir()] == [".hidden_subnet"]
    assert not [*(tmp_path / "open").iterdir()]


def test_who_may_exchange_a_folder(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert why_exchangeable(inner) == ""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open" / "link").symlink_to(inner)
    (tmp_path / "link").symlink_to(Path("open") / "link")
    assert why_exchangeable(tmp_path / "link") == f"others may write to {tmp_path}/open"
    (tmp_path / "open").chmod(0o1777)  # as /tmp
    assert why_exchangeable(tmp_path / "link") == ""
    assert why_exchangeable(tmp_path / "open") == f"others may write to {tmp_path}/open"
    if os.geteuid() == 0:
        os.chown(tmp_path / "open" / "link", 12345, -1, follow_symlinks=False)
        assert why_exchangeable(tmp_path / "link") == f"{tmp_path}/open/link belongs to user 12345"


def test_settings_in_a_manifest_pass_all_checks(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    bad = config(out=str(out))
    bad = replace(bad, claim=replace(bad.claim, silent_seconds=1e9))
    sweep = sweeps.read(sweeps.write(sweeps.plan([bad], "seeds"), {}).folder)
    assert sweep.settings[0]["claim"] == as_dict(bad)["claim"]
    with pytest.raises(ValueError, match=r"claim\.silent_seconds=1000000000: must be 1 to 86400"):
        _ = sweep.configs
