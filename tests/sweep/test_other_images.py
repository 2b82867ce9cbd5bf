"""The same command on other images begins another run, and says so in a line that ends in what to type."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.folder_runs import Compose, small
from helpers.image_folders import make_folder, picture
from helpers.runs import QUIET, interrupt

from hidden_subnet.cli.main import main
from hidden_subnet.cli.run import run_single
from hidden_subnet.config.settings import Config
from hidden_subnet.store import files
from hidden_subnet.sweep.execute import execute
from hidden_subnet.sweep.in_vain import in_vain

Make = Callable[..., Config]


def lines(configs: list[Config]) -> list[str]:
    return list(in_vain(configs, [files.folder_of(config) for config in configs]))


@pytest.fixture
def make(compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """make(...): the config of the command, on the images that are in ./images now."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "one")
    make_folder(tmp_path / "two", train=9)
    (tmp_path / "images").symlink_to("one")
    return lambda *more: small(compose, Path("images"), "data.workers=0", "out=runs", *more)


def replace_images() -> None:
    for number, path in enumerate(sorted(Path("one").rglob("*.png"))):
        picture(9000 + number).save(path)


def turn_link() -> None:
    Path("images").unlink()
    Path("images").symlink_to("two")


@pytest.mark.parametrize("change", [replace_images, turn_link])
def test_an_interrupted_run(make: Make, capsys: pytest.CaptureFixture[str], change: Callable[[], None]) -> None:
    before = make()
    interrupt(before, 7)  # of 4 batches in an epoch
    old = files.folder_of(before)
    assert lines([make()]) == []  # it is resumed
    change()
    [line] = lines([make()])
    now = "one" if change is replace_images else "two"
    assert line == (
        f"{Path('images').absolute()} (a link, now to {Path(now).absolute()}): the images changed since {old.name} "
        "(interrupted after 1 epoch); this begins another run. To remove the old one, type: "
        f"python -m hidden_subnet rm {old.name}"
    )
    assert run_single(make()) == 0
    assert line.replace(" ", "") in re.sub(r"\s", "", capsys.readouterr().out)
    assert lines([make()]) == []  # it is there now
    assert old.is_dir()
    with pytest.raises(SystemExit, match="0"):
        main([*shlex.split(line)[-2:], "--yes"])
    assert not old.exists()


def test_finished_runs_of_a_sweep(make: Make) -> None:
    first = [make(f"seed={seed}", "train.epochs=1") for seed in range(4)]
    for config in first:
        assert execute(config, QUIET).state == "done"
    replace_images()
    [line] = lines([make(f"seed={seed}", "train.epochs=1") for seed in range(6)])
    assert f"{files.folder_of(first[0]).name} (done)" in line
    assert line.endswith(" and 1 more; this begins 4 other runs. To see the old ones, type: "
                         "python -m hidden_subnet status")  # fmt: skip


def test_another_command_says_nothing(make: Make) -> None:
    interrupt(make(), 2)
    replace_images()
    assert lines([make("train.lr=0.3")]) == []
    assert lines([make("force=true")]) == []
    make_folder(Path("three"))
    assert lines([make(f"data.root={Path('three').absolute()}")]) == []


def test_a_run_that_was_begun_on_several_other_images(make: Make) -> None:
    for change in (turn_link, replace_images):
        assert execute(make("train.epochs=1"), QUIET).state == "done"
        change()
    Path("images").unlink()
    Path("images").symlink_to("one")
    [line] = lines([make("train.epochs=1")])
    assert line.count("(done)") == 2
    assert "; this begins another run. To remove the old ones, type: " in line
