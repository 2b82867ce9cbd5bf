"""`launch.py --help` lists what conf/, sweeps/ and the settings have, and needs neither torch nor Hydra."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest

from hidden_subnet.cli.help import GROUPS, description, help_text, options, setting_lines
from hidden_subnet.config.registries import OPTIMIZERS, SCHEDULES, load_parts
from hidden_subnet.config.settings import Config
from hydra_plugins.hidden_subnet.suggestions import all_settings

ROOT = Path(__file__).parents[2]
load_parts()


def test_every_folder_of_conf_is_a_group() -> None:
    folders = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
    assert folders == {*GROUPS, "train"} - {"sweep"}  # train has its defaults only


def test_every_option_and_preset_is_described() -> None:
    said = help_text(ROOT)
    for group in GROUPS:
        found = options(ROOT, group)
        assert found
        section = re.split(r"\n  \w", said.split(f"\n  {group}: ")[1])[0]
        for name, about in found.items():
            assert 10 < len(about) <= 100, (group, name)
            assert re.search(rf"^    .*\b{name}\b", section, flags=re.MULTILINE), (group, name)
    assert max(map(len, said.splitlines())) <= 120


def test_a_description_is_the_first_comment(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("# @package _global_\n# what it is\n# more\nname: x # not this\n")
    assert description(path) == "what it is"
    path.write_text("name: x # not this\n")
    assert description(path) == ""


Colour = Enum("Colour", {"red": "red"})


@dataclass
class Inner:
    hidden: int = field(default=1, metadata={"id": "always", "help": ""})
    rate: float = field(default=0.5, metadata={"id": "always", "help": "fraction removed"})
    colours: list[str] = field(default_factory=list, metadata={"id": "never", "help": "of the line"})


@dataclass
class Settings:
    inner: Inner = field(default_factory=Inner, metadata={"id": "always", "help": ""})
    colour: Colour = field(default=Colour.red, metadata={"id": "never", "help": "a choice"})
    name: str | None = field(default=None, metadata={"id": "never", "help": "a name"})
    on: bool = field(default=True, metadata={"id": "never", "help": "a switch " * 20})
    plain: int = 3


def test_settings_with_a_help_line_are_listed() -> None:
    listed = list(setting_lines(Settings))
    assert listed[:2] == [("colour=red", "a choice"), ("name=null", "a name")]
    assert listed[2][0] == "on=true"
    assert listed[3:] == [("inner.rate=0.5", "fraction removed"), ("inner.colours=[]", "of the line")]
    said = help_text(ROOT, Settings).split("Settings (name=default):\n")[1].splitlines()
    assert re.fullmatch(r"  colour=red +a choice", said[0])
    assert max(map(len, said)) <= 120


def test_listed_settings_exist_with_these_defaults(compose: Callable[..., Config]) -> None:
    lines = [name for name, _ in setting_lines(Config)]
    assert {name.partition("=")[0] for name in lines} <= set(all_settings())
    assert compose(*lines) == compose()


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["-m", "--help", "seed=0"]])
def test_help_of_launch(tmp_path: Path, arguments: list[str]) -> None:
    said, loaded = python(tmp_path, str(ROOT / "launch.py"), *arguments)
    assert said == help_text(ROOT) + "\n"
    assert not {"torch", "hydra", "omegaconf", "yaml", "numpy"} & loaded


def test_version(tmp_path: Path) -> None:
    for command in ([str(ROOT / "launch.py")], ["-m", "hidden_subnet"]):
        said, loaded = python(tmp_path, *command, "--version")
        assert said == "hidden_subnet 0.2.0\n"
        assert not {"torch", "hydra"} & loaded


def python(cwd: Path, *arguments: str) -> tuple[str, set[str]]:
    """Run Python; return what it prints and the modules that it imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], cwd=cwd, capture_output=True, text=True, check=True
    )
    loaded = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    return done.stdout, set(loaded)


@pytest.mark.parametrize(("name", "registry"), [("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)])
def test_the_help_of_a_setting_lists_what_its_registry_holds(name: str, registry: dict[str, object]) -> None:
    [about] = [about for line, about in setting_lines(Config) if line.startswith(f"train.{name}=")]
    assert set(re.findall(r"\w+", about)) - {"or"} == set(registry)
