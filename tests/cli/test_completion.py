"""Completion by Tab in a real bash, through the function that argcomplete registers there."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hidden_subnet.config.settings import Config
from hidden_subnet.store import files, sweeps

ROOT = Path(__file__).parents[2]
# As pip writes it, for the entry point in setup.cfg.
SCRIPT = f"#!{sys.executable}\nfrom hidden_subnet.cli.main import main\nmain()\n"
BASH = """\
eval "$(register-python-argcomplete hidden-subnet)"
COMP_LINE="$1" COMP_POINT=${#1} COMP_TYPE=9
read -ra COMP_WORDS <<<"$1"
[[ $1 == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_python_argcomplete hidden-subnet "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def tab(tmp_path: Path, compose: Callable[..., Config]) -> Callable[[str], list[str]]:
    """tab("status d"): what bash offers for the last word, in a folder with two runs and a sweep of them."""
    configs = [compose("data=digits", f"seed={seed}", f"out={tmp_path / 'runs'}") for seed in (0, 1)]
    for config in configs:
        (files.open_folder(config) / files.CONFIG).touch()
    sweeps.write(sweeps.plan(configs, "seed"), {"command": "launch.py", "directory": "/", "git": None})
    script = tmp_path / "bin" / "hidden-subnet"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    script.chmod(0o755)
    path = f"{script.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"

    def pressed(line: str) -> list[str]:
        done = subprocess.run(
            ["bash", "-c", BASH, "bash", f"hidden-subnet {line}"],
            cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [each.strip() for each in done.stdout.splitlines() if each]

    return pressed


def test_names_of_runs_and_sweeps(tab: Callable[[str], list[str]], tmp_path: Path) -> None:
    runs = sorted(path.name for path in (tmp_path / "runs").glob("digits-*"))
    [sweep] = [folder.name for folder in sweeps.find(tmp_path / "runs")]
    assert len(runs) == 2
    assert sorted(tab("logs dig")) == runs
    assert tab(f"export {runs[0][:-4]}") == [runs[0]]
    assert tab("status s") == [sweep]
    assert tab("results --sweep s") == [sweep]
    assert sorted(tab("rm ")) == sorted([*runs, sweep, "--out", "--yes", "--failed", "--runs", "--parents", "--help"])
    assert tab(f"logs --out {tmp_path}/bin dig") == []
    assert tab(f"logs --out {tmp_path}/no dig") == []


def test_commands_options_and_files(tab: Callable[[str], list[str]]) -> None:
    assert {"launch", "status", "logs", "sync"} <= set(tab(""))
    assert tab("sta") == ["status"]
    assert tab("status --w") == ["--watch"]
    assert tab("results b") == ["bin/"]


def test_words_of_a_launch(tab: Callable[[str], list[str]], tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "widths_of_mine.yaml").write_text("common: {seed: 1}\n")
    assert tab("launch prune_r") == ["prune_rate="]
    assert set(tab("launch sweep=widt")) == {"width", "width_at_kept", "widths_of_mine"}  # bash ends a word at =
    assert tab("launch -m data=fash") == ["fashion_mnist"]
