"""The lines that people type first, from the documentation of other programs: each answer ends in what to type.

first_lines.txt holds what is typed after `python launch.py`, and the line that comes back.
"""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.first_lines import refused
from helpers.forked_launch import Launch

from hidden_subnet.cli.main import main
from hidden_subnet.config.settings import Config
from hydra_plugins.hidden_subnet.errors import one_line

TEXT = (Path(__file__).parent / "first_lines.txt").read_text()
LINES = re.findall(r"^\$ (.*)\n(.*)$", TEXT, flags=re.MULTILINE)
TO_TYPE = r"(?:type|did you mean|as in): (.+)$"


def test_there_are_enough() -> None:
    assert len(LINES) > 100
    assert len({typed for typed, _ in LINES}) == len(LINES)


@pytest.mark.parametrize(("typed", "line"), LINES, ids=[typed for typed, _ in LINES])
def test_line_that_comes_back(compose: Callable[..., Config], typed: str, line: str) -> None:
    words = shlex.split(typed)
    if (said := refused(words)) is not None:
        assert said == line
    else:  # a value that only the checks refuse
        with pytest.raises(ValueError, match=r"\S") as caught:
            compose(*words)
        assert one_line(caught.value, words) == line


def test_what_to_type_is_right() -> None:
    """It is one for a shell, and launch.py takes it."""
    commands = [found[1] for _, line in LINES if (found := re.search(TO_TYPE, line))]
    assert len(commands) == len(LINES)
    for command in dict.fromkeys(commands):
        words = shlex.split(command)
        if "python" in words:
            program = words[words.index("python") + 1 :]
            assert program[0] in ("launch.py", "-m")
            words = program[1:] if program[0] == "launch.py" else []
        if not {"--help", "--version", "--hydra-help"} & set(words):
            assert refused(words) is None, command
    split = subprocess.run(
        ["bash", "-c", "\n".join(f"printf '%s\\0' {command}; echo" for command in commands)],
        capture_output=True, text=True, check=True, cwd="/",
    )  # fmt: skip
    assert [line.split("\0")[:-1] for line in split.stdout.splitlines()] == [shlex.split(each) for each in commands]


@pytest.mark.slow
def test_the_program_gives_the_same_lines(launch: Launch, tmp_path: Path) -> None:
    for typed, line in LINES[::7]:
        done = launch(tmp_path, *shlex.split(typed))
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {line}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("statu", "there is no such command ("
                  "launch, status, logs, stop, worker, results, report, sync, wandb-sweep, dashboard, rm, "
                  "controls, show, compare, mask, export); "
                  "did you mean: python -m hidden_subnet status"),
        ("ls five", "there is no such command ("
                  "launch, status, logs, stop, worker, results, report, sync, wandb-sweep, dashboard, rm, "
                  "controls, show, compare, mask, export); "
                    "did you mean: python -m hidden_subnet status five"),
        ("xyz", "there is no such command ("
                  "launch, status, logs, stop, worker, results, report, sync, wandb-sweep, dashboard, rm, "
                  "controls, show, compare, mask, export); "
                "type: python -m hidden_subnet --help"),
        ("train prune_rate=0.3", "runs are started by launch.py; type: python launch.py prune_rate=0.3"),
        ("prune_rate=0.3 seed=1", "runs are started by launch.py; type: python launch.py prune_rate=0.3 seed=1"),
        ("-m 'seed=range(3)'", "runs are started by launch.py; type: python launch.py -m 'seed=range(3)'"),
        ("sweep prune_rates", "runs are started by launch.py; type: python launch.py sweep=prune_rates"),
        ("evaluate runs/x", "runs are started by launch.py; type: python launch.py evaluate=runs/x"),
        ("eval x", "runs are started by launch.py; type: python launch.py evaluate=x"),
        ("resume x", "the command that began it finds its checkpoint and continues; type: python launch.py"),
        ("--out x status", "the command comes first; type: python -m hidden_subnet status --out x"),
        ("status --wach", "is nothing that python -m hidden_subnet status takes; did you mean: --watch"),
        ("logs a b", "is nothing that python -m hidden_subnet logs takes; for what it takes, type: "
                     "python -m hidden_subnet logs --help"),
        ("logs", "the following arguments are required: run; for what it takes, type: "
                 "python -m hidden_subnet logs --help"),
        ("worker x --workers two", "argument --workers: invalid int value: 'two'; for what it takes, type: "
                                   "python -m hidden_subnet worker --help"),
    ],
)  # fmt: skip
def test_commands_for_runs_answer_likewise(typed: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(shlex.split(typed))
    said = end.value.code if isinstance(end.value.code, str) else capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert said.endswith(line)
    assert "\n" not in said
