"""Commands on folders in which another user has planted links, pipes and folders: none waits, none follows."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from helpers.other_kinds import dangling_link, pipe
from helpers.real_commands import FULL, TIMEOUT, figure, surroundings
from helpers.run_folders import attempt, config, dead, fail, finish, me, queue
from helpers.time_limit import within

from hidden_subnet.cli.main import main
from hidden_subnet.config.settings import Model, Train
from hidden_subnet.store import files, folders, sweeps

pytestmark = pytest.mark.slow
STRANGER = 12345
PRIVATE = '{"epoch": 0, "private": 1}\n'


def link(path: Path) -> None:
    """To a private file where a file belongs, else to a private folder."""
    home = path.parents[len(path.parts) - path.parts.index("runs") - 1] / "home"
    path.symlink_to(home / "key" if "." in path.name[1:] or path.name in ("log", "stop") else home)


def folder_in_its_place(path: Path) -> None:
    path.mkdir()
    (path / "more").touch()


KINDS: list[Callable[[Path], None]] = [link, dangling_link, pipe, folder_in_its_place]
COMMANDS = {
    "status": ["status"],
    "status of a sweep": ["status", "SWEEP"],
    "logs": ["logs", "DONE"],
    "logs of a failed run": ["logs", "FAILED"],
    "logs of a queued run": ["logs", "QUEUED"],
    "stop": ["stop", "SWEEP"],
    "results": ["results"],
    "report": ["report"],
    "report of a sweep": ["report", "SWEEP"],
    "rm": ["rm", "--yes", "DONE"],
    "rm --failed": ["rm", "--yes", "--failed"],
    "rm --runs": ["rm", "--yes", "--runs", "SWEEP"],
    "sync": ["sync"],
}
DRAWING = ("results", "report", "report of a sweep")
OF_A_RUN = (
    "config.yaml", "result.json", "metrics.jsonl", "log", "provenance.json", "checkpoints", "checkpoints/last.ckpt",
    "attempts", "wandb", "wandb_id", "wandb_sent.json", "controls.json", "",
)  # fmt: skip
OF_AN_ATTEMPT = (
    "claim.json", "claim.beats", "ended.json", "error.txt", "log", "metrics.jsonl", "provenance.json", "checkpoints",
    "checkpoints/resume.ckpt", "",
)  # fmt: skip
OF_A_SWEEP = (
    "manifest.json", "stop", "workers", "workers/w.json", "workers/w.beats", "failures", "failures/QUEUED.json",
    "slurm", "slurm/jobs-1.json", "code-1", "",
)  # fmt: skip
PLACES = [
    *(f"DONE/{name}" for name in OF_A_RUN),
    *(f"FAILED/attempts/1/{name}" for name in OF_AN_ATTEMPT),
    *(f"INTERRUPTED/{name}" for name in ("config.yaml", "log", "attempts", "")),
    "INTERRUPTED/attempts/2", "INTERRUPTED/attempts/.0123456789abcdef",
    *(f".sweeps/SWEEP/{name}" for name in OF_A_SWEEP),
    "QUEUED/attempts", "QUEUED", ".sweeps", ".sweeps/other", "results.csv", "figures", ".rm-0123456789abcdef-x",
]  # fmt: skip


def make_home(home: Path) -> None:
    """As a home that looks like a run and a sweep: what may not be touched if somebody follows a link into it."""
    for folder in ("1/checkpoints", "checkpoints", "wandb/offline-run-1", ".0123456789abcdef", "workers", "figures"):
        (home / folder).mkdir(parents=True)
    for name in ("key", "log", "metrics.jsonl", "result.json", "claim.json", "ended.json", "w.json", "1/log", "stop"):
        (home / name).write_text(PRIVATE)
    for name in ("checkpoints/last.ckpt", "wandb/offline-run-1/a.wandb", ".0123456789abcdef/id", "workers/w.json"):
        (home / name).write_text(PRIVATE)


def make_runs(out: Path) -> dict[str, str]:
    """A sweep of four runs, one in each state; returns their names."""
    model, train = Model(name="conv2", width=0.125), Train(lr=0.1, epochs=1, threads=1)
    configs = [config(seed=seed, out=str(out), model=model, train=train) for seed in range(4)]
    sweep = sweeps.write(sweeps.plan(configs, "seeds"), {})
    done, failed = finish(out, configs[0], 0.9), fail(out, configs[2], "ValueError: x")
    interrupted = queue(out, configs[1])
    holder = replace(me(), launch=sweep.launch or "")
    attempt(interrupted, holder, "interrupted", "TERM")
    for folder in (done, interrupted / "attempts" / "1", failed / "attempts" / "1"):
        (folder / "checkpoints").mkdir()
        for name in ("metrics.jsonl", "log", "checkpoints/last.ckpt", "checkpoints/resume.ckpt"):
            (folder / name).write_text('{"epoch": 0}\n')
    for folder in (sweeps.WORKERS, sweeps.FAILURES, sweeps.SLURM):
        (sweep.folder / folder).mkdir()
    files.write_json(sweep.folder / "workers" / "w.json", {**asdict(dead()), "slots": 1})
    files.write_json(sweep.folder / "slurm" / "jobs-1.json", {"tasks": []})
    names = [run.name for run in sweep.runs]
    return dict(zip(("DONE", "INTERRUPTED", "FAILED", "QUEUED"), names, strict=True), SWEEP=sweep.name)


def plant(path: Path, make: Callable[[Path], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        folders.remove_tree(path, path.parent)
    path.unlink(missing_ok=True)
    make(path)
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with `runs` and `home`, and the names of runs and sweep."""
    folder = tmp_path_factory.mktemp("made")
    make_home(folder / "home")
    return folder, make_runs(folder / "runs")


def content(folder: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_text() if path.is_file() else "")
        for path in [folder, *sorted(folder.rglob("*"))]
    }


@pytest.mark.parametrize("make", KINDS, ids=[make.__name__ for make in KINDS])
@pytest.mark.parametrize("command", COMMANDS)
def test_what_another_user_plants(
    tmp_path: Path,
    made: tuple[Path, dict[str, str]],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    make: Callable[[Path], None],
) -> None:
    if os.geteuid() != 0:
        pytest.skip("a file of another user needs root")
    for variable in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))  # so that sync sends nothing: it looks, and asks for a key
    folder, names = made
    here = tmp_path / "here"
    # To draw takes a second, so these have each place once, with one of the four.
    places = PLACES if FULL or command not in DRAWING else PLACES[KINDS.index(make) :: len(KINDS)]
    for place in places:
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(folder, here)
        for word, name in names.items():
            place = place.replace(word, name)
        plant(here / "runs" / place, make)
        before = content(here / "home")
        words = [names.get(word, word) for word in COMMANDS[command]]
        with within(20), pytest.raises(SystemExit) as ended:
            main([*words, "--out", str(here / "runs")] if words != ["results"] else ["results", str(here / "runs")])
        said = capfd.readouterr()
        assert isinstance(ended.value.code, int) or "\n" not in str(ended.value.code), place
        assert "private" not in f"{said}{ended.value.code}", place
        assert content(here / "home") == before, place
        for path in (here / "runs").rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert b"private" not in path.read_bytes(), place
    figure(f"F37 {command}, {make.__name__}: ends, and touches nothing outside, {len(places)}/{len(places)}")


@pytest.mark.parametrize("make", KINDS, ids=[make.__name__ for make in KINDS])
def test_a_worker_where_another_user_plants(tmp_path: Path, make: Callable[[Path], None]) -> None:
    if os.geteuid() != 0:
        pytest.skip("a file of another user needs root")
    make_home(tmp_path / "home")
    names = make_runs(tmp_path / "runs")
    for place in ("QUEUED/attempts", "INTERRUPTED/attempts/1/log", "FAILED/attempts/1", *OF_A_SWEEP[2:3], "failures"):
        where = f".sweeps/SWEEP/{place}" if place in OF_A_SWEEP else place
        for word, name in names.items():
            where = where.replace(word, name)
        plant(tmp_path / "runs" / where, make)
    before = content(tmp_path / "home")
    command = [sys.executable, "-m", "hidden_subnet", "worker", names["SWEEP"], "--workers", "1"]
    said = subprocess.run(command, cwd=tmp_path, env=surroundings(), capture_output=True, text=True, timeout=TIMEOUT)
    assert said.returncode in (0, 1), said.stdout + said.stderr
    assert "Traceback" not in said.stdout + said.stderr
    assert "private" not in said.stdout + said.stderr
    assert content(tmp_path / "home") == before
    figure(f"F37 worker, {make.__name__}: ends, and touches nothing outside, 1/1")
