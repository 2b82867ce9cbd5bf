"""The commands of `python -m hidden_subnet`, on run folders that were made by real runs."""

import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from helpers.run_folders import job
from helpers.unanswered import unanswered

from hidden_subnet.cli.main import main
from hidden_subnet.cli.report import question_of
from hidden_subnet.config.settings import Config
from hidden_subnet.store import claims, files, folders, liveness, sweeps
from hidden_subnet.store.find import find_run, find_sweep
from hidden_subnet.store.liveness import LivenessProbe
from hidden_subnet.sweep.execute import LaunchInfo, RunObserver, execute
from hidden_subnet.sweep.progress import Now, Progress, counts
from hidden_subnet.sweep.status import status_reader, sweep_status

SILENT = RunObserver(lambda row: None, lambda epoch, batch, batches: None, lambda text: None)
TINY = ("data=synthetic", "model=fc", "model.width=0.1", "train.epochs=1", "tracker=none")
COMMAND = {"command": "launch.py -m something", "directory": "/", "git": None}
Compose = Callable[..., Config]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """call("status", "x"): exit code, output and errors of the command, in a folder that has `runs`."""
    monkeypatch.chdir(tmp_path)

    def called(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code, said = 0, ""
        try:
            main(arguments)
        except SystemExit as exit:
            # As the interpreter does it: a text is printed, and the code is 1.
            code, said = (1, f"{exit.code}\n") if isinstance(exit.code, str) else (int(exit.code or 0), "")
        out, err = capfd.readouterr()
        return code, out, err + said

    return called


@pytest.fixture(scope="session")
def made(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep: a run done, one collapsed, one failed, one interrupted, one not begun."""
    out = tmp_path_factory.mktemp("made") / "runs"
    parts = [
        ("method=random",),
        ("prune_rate=0.999",),
        ("method=dense", "train.lr=1e30"),
        ("prune_rate=0.4",),
        ("prune_rate=0.5",),
    ]
    configs = [compose(*TINY, *part, f"out={out}") for part in parts]
    sweep = sweeps.write(sweeps.plan(configs, "five"), COMMAND)
    for config in configs[:3]:
        execute(config, SILENT, LaunchInfo(sweep.name, launch=str(sweep.launch)), stopped=lambda: False)
    asked = itertools.count(1)  # before each of the three evaluations before the first step too
    execute(configs[3], SILENT, LaunchInfo(sweep.name, launch=str(sweep.launch)), stopped=lambda: next(asked) >= 4)
    return out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "runs", copy_function=shutil.copy2)
    return tmp_path / "runs"


def run_of(out: Path, word: str) -> Path:
    [found] = [path for path in out.iterdir() if word in path.name]
    return found


@pytest.fixture
def executed(out: Path) -> Iterator[Path]:
    """The run pr0.4, which a process is executing: this one."""
    folder = run_of(out, "pr0.4")
    with claims.acquire(folder, liveness.this_process("test", 90), LivenessProbe(out)):
        yield folder


def test_without_a_command_each_is_listed(call: Call) -> None:
    code, said, _ = call()
    assert code == 0
    lines = [line.split() for line in said.splitlines()]
    for name in ("status", "logs", "stop", "worker", "results", "report", "rm", "export"):
        assert any(line[:1] == [name] and len(line) > 3 for line in lines), name


@pytest.mark.parametrize("name", ["{whole}", "five", "fiv", "runs/.sweeps/{whole}", "runs/.sweeps/{whole}/"])
def test_names_of_a_sweep(name: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(out.parent)
    [folder] = sweeps.find(out)
    assert find_sweep(Path("runs"), name.format(whole=folder.name)) == folder.absolute()


@pytest.mark.parametrize("name", ["{whole}", "{digits}", "synthetic-fc-w0.1-random", "runs/{whole}"])
def test_names_of_a_run(name: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(out.parent)
    folder = run_of(out, "random")
    assert find_run(Path("runs"), name.format(whole=folder.name, digits=folder.name[-12:])) == folder


@pytest.mark.parametrize("command", ["status", "stop", "worker", "results --sweep", "report", "rm --yes"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fife", "; did you mean: five-"),
        ("zzz", "; as in: five-"),
        ("", "; as in: five-"),
        ("../../x", "; as in: five-"),
    ],
)
def test_an_unknown_sweep_is_one_line(command: str, name: str, said: str, out: Path, call: Call) -> None:
    code, _, error = call(*command.split(), name)
    assert code == 1
    assert error.startswith("error: no ")
    assert said in error
    assert error.count("\n") == 1


def test_report_writes_a_page(out: Path, call: Call) -> None:
    code, said, _ = call("report", "five")
    [page] = (out / "figures").glob("five-*.html")
    assert (code, said) == (0, f"wrote {page.absolute()} (4 runs)\n")
    assert "launch.py -m something" in page.read_text()
    assert "5 runs: 2 done, 1 failed, 1 interrupted, 1 queued, 1 collapsed" in page.read_text()
    assert call("report", "--to", "here/x.html")[:2] == (
        0,
        f"wrote {(out.parent / 'here/x.html').absolute()} (4 runs)\n",
    )


def test_report_of_nothing_is_one_line(tmp_path: Path, call: Call) -> None:
    (tmp_path / "runs").mkdir()
    code, _, error = call("report")
    assert (code, error.count("\n")) == (1, 1)
    assert error.startswith("error: there are no runs in ")


@pytest.mark.parametrize(
    ("command", "question"),
    [
        (
            "launch.py sweep=prune_rates seed=1",
            "how does accuracy depend on the prune rate? edge_popup, random masks, the dense network",
        ),
        ("launch.py sweep=no_such", ""),
        ("launch.py -m seed=1,2", ""),
        ("launch.py 'sweep=", ""),
    ],
)
def test_question_of_a_preset(command: str, question: str) -> None:
    assert question_of(command) == question


def test_an_unknown_run_is_one_line(out: Path, call: Call) -> None:
    code, _, error = call("logs", "synthetic-fc")
    assert (code, error.count("\n")) == (1, 1)
    assert "4 runs begin with 'synthetic-fc'" in error
    code, _, error = call("logs", "123456789abc")
    assert (code, error.count("\n")) == (1, 1)
    assert "no run in" in error


def test_a_beginning_of_two_sweeps(out: Path, call: Call) -> None:
    [folder] = sweeps.find(out)
    shutil.copytree(folder, folder.with_name("five-00000000"))
    code, _, error = call("status", "five")
    assert code == 1
    assert "2 sweeps begin with 'five'" in error
    assert call("status", folder.name)[0] == 0


@pytest.mark.parametrize("command", ["status", "logs x", "stop x", "worker x", "results", "rm x"])
def test_no_such_folder(command: str, call: Call) -> None:
    code, _, error = call(*command.split(), "--out", "nowhere")
    assert (code, error.count("\n")) == (1, 1)
    assert "nowhere is not a folder; name that of the runs, as in: --out runs" in error


def test_a_damaged_manifest_is_one_line(out: Path, call: Call) -> None:
    [folder] = sweeps.find(out)
    (folder / sweeps.MANIFEST).write_text('{"runs": [')
    for command in ("status", "worker", "results --sweep"):
        code, _, error = call(*command.split(), "five")
        assert (code, error.count("\n")) == (1, 1)
        assert "is damaged" in error
    code, said, _ = call("status")  # of all: the others are told of
    assert code == 0
    assert "is damaged" in said


@pytest.mark.parametrize("option", ["--workers=0", "--workers=-1", "--jobs-per-gpu=0", "--tasks=0", "--requeues=-1"])
def test_wrong_numbers_of_workers(option: str, out: Path, call: Call) -> None:
    code, _, error = call("worker", "five", option)
    assert (code, error.count("\n")) == (1, 1)
    assert error.startswith(f"error: {option.replace('=', ' ')}: must be at least")


# status
def test_status_of_a_folder(out: Path, call: Call) -> None:
    code, said, _ = call("status")
    assert code == 0
    [line] = said.splitlines()
    assert line.startswith("five-")
    assert "2 done (1 collapsed), 0 running, 1 failed, 2 to go" in line


def test_status_of_a_sweep(out: Path, call: Call) -> None:
    code, said, _ = call("status", "five")
    assert code == 0
    assert "launch.py -m something" in said
    assert "workers: none" in said
    assert f"failed: {run_of(out, 'dense').name}: FloatingPointError: the training diverged" in said
    assert "2 done (1 collapsed), 0 running, 1 failed, 2 to go" in said


def test_status_shows_what_is_executed(out: Path, executed: Path, call: Call) -> None:
    said = call("status", "five")[1]
    assert "2 done (1 collapsed), 1 running, 1 failed, 1 to go" in said
    lines = [line.split() for line in said.splitlines()]
    at = next(i for i, line in enumerate(lines) if line[:1] == ["worker"])
    header, row = lines[at : at + 2]
    assert header == ["worker", "method", "rate", "epoch", "loss", "accuracy", "left"]
    assert row[:4] == [str(os.getpid()), "edge_popup", "0.4", "0/1"]


def test_status_shows_a_single_run(out: Path, compose: Compose, call: Call) -> None:
    config = compose(*TINY, "seed=5", f"out={out}")
    folder = files.open_folder(config)
    with claims.acquire(folder, liveness.this_process("", 90), LivenessProbe(out)):
        assert f"{folder.name}: running" in call("status")[1]
    assert f"{folder.name}: running" in call("status")[1]  # its process lives


def test_status_of_a_stopped_sweep(out: Path, call: Call) -> None:
    [folder] = sweeps.find(out)
    sweeps.stop(folder, "enough")
    assert "stopped (enough): the command that launched it continues it" in call("status", "five")[1]


def test_workers_that_live_and_that_died(out: Path, call: Call) -> None:
    [folder] = sweeps.find(out)
    (folder / sweeps.WORKERS).mkdir()
    me = liveness.this_process("me", 90)
    for name, owner in (("me", me), ("dead", replace(me, started="0"))):
        (folder / sweeps.WORKERS / f"{name}.json").write_text(json.dumps({**asdict(owner), "slots": 3}))
    (folder / sweeps.WORKERS / "torn.json").write_text("{")
    [worker] = sweep_status(folder, status_reader(out)).workers
    assert (worker.holder, worker.slots) == (me, 3)
    assert f"workers: {me} (3 slots)" in call("status", "five")[1]


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in [folder, *folder.rglob("*")]}


@pytest.mark.parametrize("command", ["status", "status five", "logs {run}"])
def test_looking_writes_nothing(command: str, out: Path, call: Call) -> None:
    before = everything(out)
    assert call(*command.format(run=run_of(out, "dense").name).split())[0] == 0
    assert everything(out) == before


def test_a_read_only_folder(out: Path) -> None:
    for path in [out, *out.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    # root may write everywhere, unless it gives that up
    give_up = ["setpriv", "--bounding-set=-dac_override"] if os.getuid() == 0 else []
    for command in (["status"], ["status", "five"], ["logs", run_of(out, "random").name]):
        done = subprocess.run(
            [*give_up, sys.executable, "-m", "hidden_subnet", *command], cwd=out.parent, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout
    for path in [out, *out.rglob("*")]:
        path.chmod(0o755)


@pytest.mark.slow
def test_status_of_a_thousand_runs(compose: Compose, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "runs"
    configs = [compose(*TINY, f"out={out}") for _ in range(1000)]
    for seed, config in enumerate(configs):
        config.seed = seed
    sweep = sweeps.write(sweeps.plan(configs, "thousand"), COMMAND)
    execute(configs[0], SILENT, LaunchInfo(), stopped=lambda: False)
    done = sweep.runs[0]
    for folder in sweep.runs[1:900]:
        shutil.copytree(done, folder)
    said = call("status", "thousand")[1]
    assert "900 done, 0 running, 0 failed, 100 to go" in said


# logs
def test_logs(out: Path, call: Call) -> None:
    assert "epoch=0" in call("logs", run_of(out, "random").name)[1]
    code, said, _ = call("logs", run_of(out, "dense").name[-12:])
    assert code == 0
    assert said.startswith("Traceback (most recent call last):")
    assert said.rstrip().splitlines()[-1].startswith("FloatingPointError: the training diverged")
    code, said, error = call("logs", run_of(out, "pr0.4").name)
    assert "stopped and saved in epoch 1" in said
    assert error.startswith("interrupted: ")


def test_logs_of_a_run_that_is_done_can_be_followed(out: Path, call: Call) -> None:
    assert "epoch=0" in call("logs", "-f", run_of(out, "random").name)[1]


# stop
def test_stop_where_nothing_runs_is_found_by_a_worker_that_is_just_starting(out: Path, call: Call) -> None:
    code, said, _ = call("stop", "five")
    assert (code, "nothing was running" in said) == (0, True)
    code, said, _ = call("worker", "five")
    assert (code, "the sweep was stopped (requested" in said) == (130, True)


def test_a_damaged_result_is_named(out: Path, call: Call) -> None:
    (run_of(out, "random") / files.RESULT).write_text("{")
    said = call("status", "five")[1]
    assert f"damaged: {run_of(out, 'random') / files.RESULT}" in said


def test_history_that_is_none_hinders_nobody(out: Path) -> None:
    folder = run_of(out, "random")
    (folder / files.PROVENANCE).write_text('{"attempts": [{"state": "done"}, 3]}')
    assert claims.history(folder) == []


# rm
def test_rm_asks_and_refuses_without_a_terminal(out: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(out)
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        code, said, error = call("rm", run_of(out, "random").name)
    assert code == 1
    assert "1 run (1 done), 0 sweeps: " in said
    assert "type: python -m hidden_subnet rm --out" in error
    assert everything(out) == before


def test_rm_of_runs_and_of_what_failed(out: Path, call: Call) -> None:
    random, failed = run_of(out, "random"), run_of(out, "dense")
    assert call("rm", "--yes", random.name)[0] == 0
    assert (random.exists(), failed.exists()) == (False, True)
    assert call("rm", "--yes", "--failed")[0] == 0
    assert not failed.exists()
    assert len(list(out.glob("synthetic-*"))) == 2
    assert call("rm", "--yes", "--failed")[1] == "nothing to delete\n"
    assert call("rm", "--yes")[0] == 1


def test_rm_of_a_sweep_keeps_runs_of_others(out: Path, compose: Compose, call: Call) -> None:
    [five] = sweeps.find(out)
    other = sweeps.write(sweeps.plan([compose(*TINY, "method=random", f"out={out}")], "other"), COMMAND)
    assert call("rm", "--yes", "--runs", "five")[0] == 0
    assert not five.exists()
    assert other.folder.exists()
    assert [path.name for path in out.glob("synthetic-*")] == [run_of(out, "random").name]
    code, said, _ = call("rm", "--yes", "other")
    assert code == 0
    assert f"python -m hidden_subnet rm --runs {other.folder}" in said
    assert run_of(out, "random").exists()


def test_rm_with_a_damaged_manifest_keeps_the_runs_that_it_names(out: Path, compose: Compose, call: Call) -> None:
    other = sweeps.write(sweeps.plan([compose(*TINY, "method=random", f"out={out}")], "other"), COMMAND)
    manifest = other.folder / sweeps.MANIFEST
    manifest.write_text(manifest.read_text()[:-20])
    code, _, error = call("rm", "--yes", "--runs", "other")  # whose runs cannot be known
    assert code == 1
    assert "manifest.json is damaged" in error
    planted = out / sweeps.SWEEPS / "planted"
    planted.mkdir()
    (planted / sweeps.MANIFEST).symlink_to(out.parent / "elsewhere")
    code, said, _ = call("rm", "--yes", "--runs", "five")
    assert code == 0
    assert f"{manifest} is damaged; the runs whose names can be read in it are kept" in said
    assert [path.name for path in out.glob("synthetic-*")] == [run_of(out, "random").name]


@pytest.mark.parametrize("what", [["{run}"], ["--runs", "five"]])
def test_rm_refuses_what_is_being_executed(what: list[str], out: Path, executed: Path, call: Call) -> None:
    before = everything(out)
    code, _, error = call("rm", "--yes", *(word.format(run=executed.name) for word in what))
    assert code == 1
    assert f"{executed.name} is being executed" in error
    assert everything(out) == before


def test_rm_deletes_nothing_while_a_file_server_does_not_answer(out: Path, call: Call) -> None:
    for name, selected in ((files.ATTEMPTS, ["--failed"]), (claims.CLAIM, [run_of(out, "dense").name])):
        with unanswered(errno.ESTALE, name):
            code, said, error = call("rm", "--yes", *selected)
        assert (code, said) == (1, "")
        assert "Stale file handle" in error
    assert run_of(out, "dense").exists()


def test_rm_completes_what_a_killed_one_left(out: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    left = out / ".rm-0123456789abcdef-run-0123456789ab"
    (left / "checkpoints").mkdir(parents=True)
    kept = out / ".rm-mine"
    kept.mkdir()
    call("rm", "--failed", "--yes", "--out", str(out))
    assert left.exists()  # another `rm` may be at work
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + 2 * folders.STALE_SECONDS)
    call("rm", "--failed", "--yes", "--out", str(out))
    assert not left.exists()
    assert kept.exists()


def test_rm_follows_no_link(out: Path, tmp_path: Path, call: Call) -> None:
    kept = tmp_path / "elsewhere"
    run_of(out, "random").rename(kept)
    (out / "linked").symlink_to(kept)
    code, _, error = call("rm", "--yes", "linked")
    assert (code, "is a symbolic link" in error) == (1, True)
    code, _, error = call("rm", "--yes", str(kept))
    assert (code, "is outside of" in error) == (1, True)
    inside = run_of(out, "dense")
    (inside / "link").symlink_to(kept)
    assert call("rm", "--yes", inside.name)[0] == 0
    assert not inside.exists()
    assert (kept / files.RESULT).exists()


# results
def test_results_of_a_folder_and_of_a_sweep(out: Path, call: Call) -> None:
    [folder] = sweeps.find(out)
    for arguments, name in (((), "all"), (("runs",), "all"), (("--sweep", "five"), folder.name)):
        shutil.rmtree(out / "figures", ignore_errors=True)
        code, said, _ = call("results", *arguments)
        assert code == 0
        assert "1 collapsed" in said
        assert (out / "results.csv").read_text().count("\n") == 1 + 4
        for kind in ("png", "svg"):
            assert (out / "figures" / f"{name}.{kind}").stat().st_size > 1000


def test_time_left_is_shared_by_the_slots(out: Path, compose: Compose) -> None:
    config = compose(*TINY, "train.epochs=10")
    running, waiting = job(config, out / "a", "running"), [job(config, out / "b", claimable=True) for _ in range(4)]
    # An epoch takes 2 s, so a run 20 s; the running one has 4 s left. Slots end after 4 + 20 + 20 and 20 + 20.
    at = Now(("", ""), epoch=8, left=4.0)
    assert Progress().seconds_left([running, *waiting], [at], slots=2) == 44
    assert Progress().seconds_left([running, *waiting], [at], slots=5) == 20
    assert Progress().seconds_left(waiting, [], slots=2) is None
    assert counts([running, *waiting])["to go"] == 4
