"""Plots of the user's own: what they are given, where they are written, and that a wrong one ends nothing."""

from pathlib import Path

import pytest
from helpers.own_parts import Use, forgotten, use
from helpers.run_folders import config, finish

from hidden_subnet.cli.main import call, make_parser
from hidden_subnet.errors import ConfigError
from hidden_subnet.report.own_plots import draw_own
from hidden_subnet.store.read import read_runs

__all__ = ["forgotten", "use"]

PLOT = """
import hidden_subnet as hs

@hs.register_plot("mine")
def mine(results, axes):
    {}
"""


def test_a_plot_is_drawn_from_the_results(use: Use, tmp_path: Path) -> None:
    use(PLOT.format("axes.set_title(' '.join(f'{v:.4f}' for v in results['last_test_top1'].astype(float)))"))
    finish(tmp_path / "runs", config(), top1=0.125)
    paths = draw_own(read_runs(tmp_path / "runs"), tmp_path / "runs" / "figures" / "sweep", pytest.fail)
    assert [path.name for path in paths] == ["sweep-mine.png", "sweep-mine.svg"]
    assert "0.1250" in paths[1].read_text()


def test_a_wrong_plot_is_one_line(use: Use, tmp_path: Path) -> None:
    use(PLOT.format("axes.plot(results['no_such_column'])"))
    finish(tmp_path / "runs", config(), top1=0.125)
    said: list[str] = []
    assert draw_own(read_runs(tmp_path / "runs"), tmp_path / "runs" / "figures" / "sweep", said.append) == []
    assert said == ["the plot mine could not be drawn: my_own_parts.py, line 6: KeyError: 'no_such_column'"]


def test_nothing_is_drawn_without_plots_or_results(use: Use, tmp_path: Path) -> None:
    assert draw_own([], tmp_path / "runs" / "figures" / "sweep", pytest.fail) == []
    use(PLOT.format("raise AssertionError"))
    assert draw_own([], tmp_path / "runs" / "figures" / "sweep", pytest.fail) == []


def test_a_function_of_other_arguments_is_refused(use: Use) -> None:
    with pytest.raises(ConfigError, match=r"mine: takes \(axes\), and is called with 2 values"):
        use(PLOT.format("pass").replace("(results, axes)", "(axes)"))


def test_results_draws_those_of_a_file_that_is_named(
    forgotten: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_plots.py").write_text(PLOT.format("axes.plot(results['width'])"))
    finish(tmp_path / "runs", config(), top1=0.125)
    words = ["results", str(tmp_path / "runs"), "--use", str(tmp_path / "my_plots.py")]
    assert call(make_parser().parse_args(words)) in (0, None)
    assert (tmp_path / "runs" / "figures" / "all-mine.svg").is_file()
    assert "all-mine.png" in "".join(capsys.readouterr().out.split())
