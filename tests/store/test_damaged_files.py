"""One bad file harms one run: whatever somebody writes there, that run alone is damaged, in little memory."""

import json
import os
import re
import stat
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.claiming import claim
from helpers.run_folders import config, finish

from hidden_subnet.cli import logs, status
from hidden_subnet.config.parsing import parse_json, parse_yaml
from hidden_subnet.report.plan import planned
from hidden_subnet.store import claims, files, sweeps
from hidden_subnet.store.liveness import LivenessProbe
from hidden_subnet.store.read import Run, read_runs
from hidden_subnet.sweep.progress import now
from hidden_subnet.sweep.status import sweep_status

MEMORY = 50 << 20


def numbers_are(word: str) -> Callable[[Path], None]:
    return lambda path: void(path.write_text(re.sub(r"\b\d+(\.\d+)?\b", word, path.read_text())))


def void(_: object) -> None:
    pass


def other_kind(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def plant(path: Path) -> None:
        path.unlink()
        make(path)

    return plant


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(9 * ['*' + before])}]\n"
    for before, name in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
DAMAGES: dict[str, Callable[[Path], None]] = {
    "deep": lambda path: void(path.write_text("[" * 100_000)),
    "900 deep": lambda path: void(path.write_text("[" * 900 + "]" * 900)),
    "alias bomb": lambda path: void(path.write_text(BOMB)),
    "a number of 401 digits": numbers_are("1" + "0" * 400),
    "a number of 300 digits": numbers_are("1" + "0" * 299),
    "1e300": numbers_are("1e300"),
    "NaN": numbers_are("NaN"),
    "Infinity": numbers_are("Infinity"),
    "text": numbers_are('"x"'),
    "null": numbers_are("null"),
    "lists": numbers_are("[1]"),
    "100,000 keys": lambda path: void(path.write_text("".join(f"k{number}: 1\n" for number in range(100_000)))),
    "a million lists": lambda path: void(path.write_text(f"[{'[],' * 1_000_000}[]]")),
    "wide characters": lambda path: void(
        path.write_text(json.dumps("\N{DNA DOUBLE HELIX}" + "x" * 3_900_000, ensure_ascii=False))
    ),
    "300,000 lines": lambda path: void(path.write_text('{"state": "failed", "message": "m", "epoch": 1}\n' * 300_000)),
    "a long message": lambda path: void(path.write_text(json.dumps({"state": "failed", "message": "m" * 3_900_000}))),
    "empty": lambda path: void(path.write_text("")),
    "no text": lambda path: void(path.write_bytes(b"\xff\xfe\x00" * 100)),
    "4 GB": lambda path: os.truncate(path, 4 << 30),
    "pipe": other_kind(os.mkfifo),
    "socket": other_kind(lambda path: os.mknod(path, stat.S_IFSOCK | 0o600)),
    "folder": other_kind(lambda path: path.mkdir()),
    "/dev/zero": other_kind(lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))),
}


@pytest.fixture(params=DAMAGES)
def damage(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    if request.param == "/dev/zero" and os.geteuid() != 0:
        pytest.skip("making a device needs root")
    return DAMAGES[request.param]


def in_little_memory(act: Callable[[], object]) -> None:
    tracemalloc.start()
    try:
        act()
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["config.yaml", "result.json", "metrics.jsonl", "provenance.json"])
def test_of_the_finished_runs_one_is_damaged(damage: Callable[[Path], None], name: str, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    good, bad = finish(out, config(), 0.9), finish(out, config(seed=1), 0.8)
    for missing in {"metrics.jsonl", "provenance.json"} - {path.name for path in bad.iterdir()}:
        (bad / missing).write_text('{"epoch": 0, "train/loss": 2.5}\n')
    damage(bad / name)
    found: list[Run] = []
    in_little_memory(lambda: found.extend(read_runs(out)))
    runs = {run.folder: run for run in found}
    assert (runs[good].state, runs[good].test_top1) == ("done", 0.9)
    if runs[bad].state != "done":
        assert name in runs[bad].error
        assert len(runs[bad].error) < 1000
    for run in found:  # numbers that one can calculate with
        assert run.test_top1 is None or run.test_top1**2 >= 0
    in_little_memory(
        lambda: planned([config(out=str(out)), config(out=str(out), seed=1), config(out=str(out), seed=2)])
    )
    with suppress(ValueError, OSError):  # and nothing else
        files.read_result(bad)
        files.load_config(bad / "config.yaml")
        files.read_rows(bad)


@pytest.mark.parametrize("name", ["claim.json", "ended.json", "metrics.jsonl", "log"])
def test_of_the_started_runs_one_is_damaged(
    damage: Callable[[Path], None], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    configs = [config(out=str(out)), config(out=str(out), seed=1)]
    sweep = sweeps.write(sweeps.plan(configs, "seeds"), {})
    finish(out, configs[0], 0.9)
    sweep.runs[1].mkdir()
    attempt = claim(sweep.runs[1])
    for each in ("ended.json", "metrics.jsonl", "log"):
        (attempt.folder / each).write_text(json.dumps({"state": "failed", "message": "m", "epoch": 1}) + "\n")
    (attempt.folder / "metrics.jsonl").write_text('{"epoch": 1, "train/loss": 2.5}\n')
    damage(attempt.folder / name)

    def look() -> None:
        shown = sweep_status(sweep.folder, LivenessProbe(out, eager=True, glance=True))
        assert shown.jobs[0].state == "done"
        now(shown.jobs[1])
        planned(configs)

    in_little_memory(look)
    claims.history(sweep.runs[1])
    if name != "log":
        with suppress(OSError):
            logs.logs(out, sweep.runs[1].name, follow=False)
    capsys.readouterr()


def test_the_last_row_is_read_and_not_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "run-0123456789ab" / "metrics.jsonl"
    path.parent.mkdir()
    with path.open("wb") as file:
        file.truncate(8 << 30)
        file.seek(0, 2)
        file.write(b'\n{"epoch": 7, "train/loss": 1.5}\n{"epoch": 8, "tra')
    in_little_memory(lambda: void(files.last_row(path.parent)))
    assert files.last_row(path.parent) == {"epoch": 7, "train/loss": 1.5}


@pytest.mark.parametrize("text", ["[" * 2000 + "]" * 2000, "1" * 101, "nonsense"])
def test_json_is_plain_or_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"nested|digits|Expecting"):
        parse_json(text)


@pytest.mark.parametrize("text", [BOMB, "a: &a [*a]", "[" * 5000, "a: !!python/object/apply:os.getpid []"])
def test_yaml_is_plain_or_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"aliases|nest|constructor"):
        parse_yaml(text)


def test_stars_that_are_no_aliases_are_text() -> None:
    assert parse_yaml("a: 2 * 3\nb: '*x'") == {"a": "2 * 3", "b": "*x"}


@pytest.mark.parametrize("content", ["x" * 3_900_000, "x\n" * 3_000_000, "\n" * 7_000_000])
@pytest.mark.parametrize("name", ["stop", "failures/{run}.json", "error.txt", "ended.json"])
def test_what_is_shown_of_a_message_is_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    out = tmp_path / "runs"
    sweep = sweeps.write(sweeps.plan([config(out=str(out))], "seeds"), {})
    [run] = sweep.runs
    run.mkdir()
    attempt = claim(run).folder
    claims.end(attempt, "failed", content if name == "ended.json" else "m")
    path = attempt / name if name in ("error.txt", "ended.json") else sweep.folder / name.format(run=run.name)
    if name != "ended.json":
        path.parent.mkdir(exist_ok=True)
        message = json.dumps({"launch": sweep.launch, "message": content})
        path.write_text(message if path.suffix == ".json" else content)
    in_little_memory(lambda: status.status(out, sweep.name, watch=False))
    assert len(capsys.readouterr().out) < 5000


def test_a_claim_has_no_long_texts(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "run-0123456789ab"
    run.mkdir(parents=True)
    file = claim(run).folder / "claim.json"
    file.write_text(file.read_text().replace('"host": "', '"host": "' + "x" * 100_000))
    found = claims.run_status(run, LivenessProbe(run.parent))
    assert (found.state, found.message) == ("lost", f"{file} cannot be read")
