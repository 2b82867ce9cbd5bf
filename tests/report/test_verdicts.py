"""Runs of a published recipe are within what one may expect of it, or outside by a number of points."""

from pathlib import Path

import pytest
from helpers.composing import make_composer
from helpers.run_folders import finish
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from hidden_subnet.cli.results import results
from hidden_subnet.config.registries import DATA
from hidden_subnet.config.settings import Config
from hidden_subnet.report.published import POINTS, Point
from hidden_subnet.report.verdicts import Verdict, not_run, verdicts
from hidden_subnet.store.read import read_runs
from hydra_plugins.hidden_subnet.grid_sweeper import expand, grids

PRINTED = Point("mnist", "fc", "signed", "signed mask", 0.9623, 97.48, "signed_mnist", (), "a paper", "printed")
READ_OFF = Point("cifar10", "conv2", "biprop", "MPT-1/32", 0.9, 70, "biprop", (), "a paper", "read off the figure")


@pytest.mark.parametrize(
    ("point", "accuracies", "text"),
    [
        (PRINTED, (97.48, 97.48), "within"),
        (PRINTED, (97.0, 97.5, 97.3), "within"),  # mean 97.27, interval +- 0.63
        (PRINTED, (96.9, 97.0, 97.1), "outside by -0.48"),  # +- 0.25
        (PRINTED, (98.48, 98.48), "outside by +1.00"),
        (PRINTED, (97.98,), "+0.50 (n = 1)"),
        (READ_OFF, (70.9, 70.9), "within"),  # a point of reading error
        (READ_OFF, (71.1, 71.1), "outside by +1.10"),
        (READ_OFF, (68.5,), "-1.50 (n = 1)"),
    ],
)
def test_the_verdict(point: Point, accuracies: tuple[float, ...], text: str) -> None:
    assert Verdict(point, accuracies).text == text


def jobs(preset: str, *given: str) -> list[Config]:
    composer = make_composer()
    alone = composer.context.config_loader.load_configuration("config", [f"sweep={preset}"], RunMode.MULTIRUN)
    expanded = expand(OverridesParser.create(), [f"sweep={preset}", *given], grids(alone))
    return [composer.compose(job) for job in expanded]


@pytest.mark.parametrize("preset", sorted({each.preset for each in POINTS if each.preset and each.data != "imagenet"}))
def test_a_preset_runs_the_recipes_of_its_published_numbers(tmp_path: Path, preset: str) -> None:
    """Each published number is met by one run of the preset that it names, and by no two."""
    for config in jobs(preset, "seed=0"):
        finish(tmp_path, config, 0.5)
    runs = read_runs(tmp_path)
    found = [each for each in verdicts(runs) if each.point.preset == preset]
    assert [each.point for each in found] == [each for each in POINTS if each.preset == preset]
    assert {len(each.accuracies) for each in found} == {1}


def test_runs_of_another_recipe_do_not_count(tmp_path: Path) -> None:
    for given in (["train.epochs=3"], ["model.width=0.5"], ["data=digits"], ["prune_rate=0.5"], ["method=edge_popup"]):
        for config in jobs("signed_mnist", "seed=0", *given):
            finish(tmp_path, config, 0.97)
    assert verdicts(read_runs(tmp_path)) == []


def test_the_command_shows_them_and_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for config in jobs("signed_mnist"):
        finish(tmp_path, config, 0.97 + config.seed / 1000)
    results(tmp_path, None, published=True)
    said = " ".join(capsys.readouterr().out.split())
    assert "mnist fc signed signed mask 0.9623 97.48 97.20 ± 0.16 5 outside by -0.28" in said
    assert "no run of 6 published accuracies; needs data=cifar10: python launch.py sweep=biprop" in said
    assert "sweep=signed_mnist" not in said


def test_every_line_names_data_and_a_preset_that_exist() -> None:
    lines = not_run([])
    assert len(lines) == len({(each.preset, each.data) for each in POINTS if each.preset})
    assert {each.data for each in POINTS} <= set(DATA)
