"""Closed streams, terminals of few characters, packages that do not load: before a command does anything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hidden_subnet.cli.launch import main
from hidden_subnet.cli.terminal import cannot_load
from hidden_subnet.config.program import rank_in_environment
from hidden_subnet.store.printable import CONTROL

ROOT = Path(__file__).parents[2]
PRINTS = "from hidden_subnet.cli.terminal import prepare_terminal; prepare_terminal(); "


def python(code: str, redirect: str = "", **env: str) -> "subprocess.CompletedProcess[bytes]":
    line = f"exec {sys.executable} -c '{code}' {redirect}"
    return subprocess.run(["sh", "-c", line], cwd=ROOT, env={**os.environ, **env}, capture_output=True)


def test_what_a_terminal_cannot_print_is_replaced() -> None:
    said = python(PRINTS + 'print("a ± b")', PYTHONIOENCODING="ascii")
    assert (said.returncode, said.stdout) == (0, b"a ? b\n")


def test_a_file_does_not_take_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    path = tmp_path / "file"
    code = f'file = open("{path}", "w"); print(1); import sys; print(2, file=sys.stderr); sys.stdin.read(); '
    said = python(PRINTS + code + "sys.exit(file.fileno())", "<&- >&- 2>&-")
    assert said.returncode > 2
    assert path.read_text() == ""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "not enough memory"),
        (MemoryError(), "not enough memory; raise the limit"),
        (ImportError("No module named 'torch'"), "a package cannot be imported: No module named 'torch'"),
    ],
)
def test_packages_that_do_not_load(error: ImportError | MemoryError, words: str) -> None:
    assert words in cannot_load(error)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["-m", "seed=1,2", "train.devices=2"],
            "error: WORLD_SIZE=4: a sweep is one process, and starts those of its runs itself; "
            "type: python launch.py -m seed=1,2 train.devices=4",
        ),
        (
            ["seed=1", "train.devices=2", "tracker=none"],
            "error: train.devices=2: 4 processes were started (WORLD_SIZE=4), and a run needs one for each of its "
            "devices; type: train.devices=4",
        ),
        (
            ["seed=1", "train.devices=4", "tracker=none"],
            "error: WORLD_SIZE=4 belongs with RANK, MASTER_ADDR and MASTER_PORT: Error initializing torch.distributed "
            "using env:// rendezvous: environment variable MASTER_ADDR expected, but not set",
        ),
    ],
)
def test_started_by_torchrun_in_vain(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], line: str
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setattr(sys, "argv", ["launch.py", *arguments, f"out={tmp_path}"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # which the command sets, and which is set back after the test
    with pytest.raises(SystemExit) as ended:
        main()
    assert str(ended.value.code).replace(f" out={tmp_path}", "") == line


@pytest.mark.parametrize(
    ("env", "found"),
    [
        ({}, (0, 1)),
        ({"RANK": "0"}, (0, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, (1, 2)),
        ({"RANK": "x", "WORLD_SIZE": "2"}, (0, 1)),
    ],
)
def test_rank_in_environment(monkeypatch: pytest.MonkeyPatch, env: dict[str, str], found: tuple[int, int]) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert rank_in_environment() == found


@pytest.mark.slow
@pytest.mark.parametrize(("value", "lines"), [("0", 1), ("", 1), ("1", 20)])
def test_only_1_asks_for_a_traceback(value: str, lines: int) -> None:
    command = [sys.executable, "launch.py", "prune_rate=abc"]
    env = {**os.environ, "HYDRA_FULL_ERROR": value}
    said = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    found = len((said.stdout + said.stderr).splitlines())
    assert found == 1 if lines == 1 else found > lines


def test_argparse_of_python_3_14_can_read_the_help_of_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks every help for a %, which an object without __contains__ does not answer."""
    import argparse

    from hydra._internal.utils import get_args_parser

    from hydra_plugins.hidden_subnet.argparse_help import let_argparse_read_help

    add = argparse._ActionsContainer.add_argument

    def checked(parser: argparse.ArgumentParser, *names: str, **settings: object) -> argparse.Action:
        action = add(parser, *names, **settings)  # type: ignore[arg-type]
        if action.help:
            assert "%" not in action.help.replace("%(", "") if isinstance(action.help, str) else "%" not in action.help
        return action

    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", checked)
    with pytest.raises(TypeError):  # the control
        get_args_parser()
    let_argparse_read_help()
    parser = get_args_parser()
    shell = next(each for each in parser._actions if "--shell-completion" in each.option_strings)
    assert "Install or Uninstall shell completion" in str(shell.help)


HOSTILE = r"\x1b]52;c;aGk= \x1b]0;title\x1b\\ \x9b2J \x1b[2J \x1b[1A \u202e \x1b[31mred\x1b[0m"
SHOWN = "?]52;c;aGk= ?]0;title?\\ ?2J ?[2J ?[1A ? \x1b[31mred\x1b[0m"


@pytest.mark.parametrize(
    "code",
    [
        f'print("{HOSTILE}")',
        f'import sys; print("{HOSTILE}", file=sys.stderr)',
        f'import sys; sys.exit("{HOSTILE}")',
        f'raise ValueError("{HOSTILE}")',
        f'from hidden_subnet.sweep.console import make_console, say; say(make_console(), "{HOSTILE}")',
        "from hidden_subnet.sweep.console import make_console; from rich.table import Table; t = Table(box=None); "
        f't.add_column(); t.add_row("{HOSTILE}"); make_console().print(t)',
    ],
)
def test_control_sequences_do_not_reach_a_terminal(code: str) -> None:
    said = python(PRINTS + code, PYTHONIOENCODING="utf-8")
    shown = (said.stdout + said.stderr).decode()
    assert not CONTROL.search(shown)
    assert SHOWN[:40] in shown
    assert "table" in code or SHOWN in shown  # its columns are as wide as what is printed, without colors of a cell


def test_lines_of_both_ways_to_print_stay_in_order() -> None:
    code = "from hidden_subnet.sweep.console import make_console, say; c = make_console(); "
    assert python(PRINTS + code + 'print(1); say(c, "2"); print(3); say(c, "4")').stdout == b"1\n2\n3\n4\n"


FORKED = """
from hidden_subnet.sweep import fork_server
assert fork_server.LOADED.pop(0) == "hidden_subnet.sweep.quiet_server"
fork_server.LOADED[:] = ["hidden_subnet.sweep.quiet_server"]  # the others take seconds
fork_server.load_ahead([])
process = fork_server.fork_server().Process(target=print, args=(r"{text}".encode().decode("unicode_escape"),))
process.start()
process.join()
"""


def test_control_sequences_of_the_processes_of_runs_do_not_reach_a_terminal() -> None:
    said = subprocess.run([sys.executable, "-c", FORKED.format(text=HOSTILE)], cwd=ROOT, capture_output=True, text=True)
    assert said.stdout == f"{SHOWN}\n", said.stderr
