"""Every command of the documents is typed into a real shell, and what launch.py gets of it is composed."""

import re
import shlex
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from helpers.first_lines import refused
from hydra.core.override_parser.overrides_parser import OverridesParser

from hidden_subnet.cli.help import INTRO
from hidden_subnet.cli.main import make_parser
from hidden_subnet.config.program import COMMANDS
from hidden_subnet.config.settings import Config
from hydra_plugins.hidden_subnet.grid_sweeper import expand

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")]
    if path.name != "CHANGELOG.md"  # quotes older versions
]
PROGRAMS = (
    "python", "hidden-subnet", "pip", "pytest", "pre-commit", "git", "wandb", "sbatch", "ruff", "mypy", "sphinx-build",
    "cd", "docker", "qsub", "kubectl", "torchrun", "ray",
)  # fmt: skip
# A keyword of Python; the method that "Add a method" adds; a preset of the user's own; what needs own parts
# (tests/cli/test_extending.py).
NO_COMMANDS = (
    "id=", "method=winners", "sweep=q", "sweep=/path", "use=", "model=my_net", "data=my_images", "method=no_abs",
    "init=halves", "train.schedule=triangle", "pruning=by_size",
)  # fmt: skip
# Types each argument in a folder without files, with functions in place of programs: a record of words for each call.
SHELL = """
shopt -s failglob
PATH=
for name in $PROGRAMS; do
    eval "$name() { printf '%s\\0' $name \\"\\$@\\"; echo; }"
done
for line; do
    (eval "$line") 2>&1
    printf '\\001%d\\n' $?
done
"""


def commands_in(text: str) -> list[str]:
    """The commands in a document's blocks and code spans; a span of settings only follows `python launch.py`."""
    blocks = re.findall(r"^ *```(?:|bash|sh|console)\n(.*?)\n *```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^ *```.*?\n *```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose)]
    found = []
    for line in lines:
        if line.endswith(("=", "=...")) or any(f" {each}" in f" {line}" for each in NO_COMMANDS):
            continue
        line = re.sub(r"=[A-Z]\b", "=1", line)  # a number, N or T
        line = re.sub(r"<[^<>]*>", "x", re.sub(r" (?:\.\.\.|…)( |$)", r"\1", line))
        if line.startswith("python -m hidden_subnet"):
            line = re.sub(r"\[[^]]*\]", "", line)  # may be omitted
        if line.split(" ")[0] in PROGRAMS and " " in line:
            found.append(line)
        elif re.match(r"(-m )?[+'\"]?[a-z_]+[\w./]*=[^=\s]", line) and "(" not in line.partition("=")[0]:
            found.append(f"python launch.py {line}")
    return list(dict.fromkeys(found))


@cache
def typed(lines: tuple[str, ...]) -> list[tuple[str, int]]:
    """Answers of the shell to each line: the words of its calls, and the exit code."""
    with TemporaryDirectory() as folder:
        activate = Path(folder, ".venv", "bin", "activate")
        activate.parent.mkdir(parents=True)
        activate.touch()
        shell = subprocess.run(
            ["bash", "-c", SHELL, "bash", *lines],
            capture_output=True, text=True, check=True, cwd=folder, env={"PROGRAMS": " ".join(PROGRAMS)},
        )  # fmt: skip
    answers = re.findall(r"(.*?)\001(\d+)\n", shell.stdout, flags=re.DOTALL)
    return [(said, int(code)) for said, code in answers]


def calls(line: str) -> list[list[str]]:
    [(said, code)] = typed((line,))
    assert code == 0, f"{line}: {said}"
    return [call.split("\0")[:-1] for call in said.splitlines()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])
def test_every_command_is_one_for_a_shell_and_for_launch_py(path: Path) -> None:
    lines = commands_in(path.read_text())
    for line, (said, code) in zip(lines, typed(tuple(lines)), strict=True):
        assert code == 0, f"{line}: {said}"
        for call in said.splitlines():
            words = call.split("\0")[:-1]
            if words[:2] in (["python", "launch.py"], ["hidden-subnet", "launch"]):
                assert refused(words[2:]) is None, line
            elif words[:3] == ["python", "-m", "hidden_subnet"] and words[3:4] and words[3] in COMMANDS:
                make_parser().parse_args(words[3:])
            elif words[:1] == ["hidden-subnet"] and words[1:]:
                make_parser().parse_args(words[1:])


def test_the_pods_have_a_command_of_ours() -> None:
    """And the words behind the programs of other schedulers are one."""
    text = (ROOT / "docs" / "beyond_slurm.md").read_text()
    [job] = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)]
    [container] = job["spec"]["template"]["spec"]["containers"]
    [submitted] = re.findall(r"^ray job submit .* -- (hidden-subnet .*)$", text, flags=re.MULTILINE)
    [[ranks]] = [re.findall(r"^torchrun \S+ launch\.py (.*)$", text, flags=re.MULTILINE)]
    for program, *words in (container["command"], shlex.split(submitted)):
        assert program == "hidden-subnet"
        assert make_parser().parse_args(words).command == "worker"
    assert refused(shlex.split(ranks)) is None
    shared = {each["name"] for each in job["spec"]["template"]["spec"]["volumes"]}
    assert {each["name"] for each in container["volumeMounts"]} == shared


def test_the_shell_finds_what_is_wrong() -> None:
    for line in ("prune_rate=range(0.1,1.0,0.1)", "train.milestones=[5,10]", "x.py", "out='my runs"):
        [(_, code)] = typed((f"python launch.py {line}" if "=" in line else line,))
        assert code != 0, line


def test_whole_commands_compose(compose: Callable[..., Config]) -> None:
    """The first and the last run of each."""
    texts = [path.read_text() for path in DOCUMENTS]
    lines = [line for text in texts for line in commands_in(text) if line in text]
    lines += re.findall(r"^  (python launch\.py(?: \S+)*)", INTRO, flags=re.MULTILINE)
    others = r"evaluate=|--|\.\.\.|root=x|pretrained"  # need a file, or run nothing
    whole = [line for line in lines if "launch.py" in line and not re.search(others, line)]
    assert len(whole) > 10
    for line in dict.fromkeys(whole):
        words = [word for call in calls(line) if "launch.py" in call for word in call[2:]]
        given = [word for word in words if word != "-m" and not word.startswith("hydra")]
        presets = [word for word in given if word.startswith("sweep=")]
        jobs = expand(OverridesParser.create(), given, compose(*presets).grids or [{}])
        for job in (jobs[0], jobs[-1]):
            compose(*job)
