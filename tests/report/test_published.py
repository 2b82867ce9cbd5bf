"""Published accuracies over a figure: only those of the same data and network, and said where they come from."""

from pathlib import Path

import matplotlib
import pytest
from helpers.run_folders import config, finish

from hidden_subnet.cli.results import results
from hidden_subnet.config.settings import Config, Data, Model
from hidden_subnet.report.figure import plot
from hidden_subnet.report.published import POINTS, published_of
from hidden_subnet.report.series import picture
from hidden_subnet.report.style import PAPER, settings_of
from hidden_subnet.report.table import summarise
from hidden_subnet.store.read import read_runs


def cifar(model: str = "conv2", width: float = 1.0, prune_rate: float = 0.5, seed: int = 0) -> Config:
    made = config(prune_rate=prune_rate, seed=seed)
    made.model, made.data = Model(name=model, width=width), Data(name="cifar10")
    return made


def test_every_point_is_a_rate_and_a_percentage_with_a_source() -> None:
    for each in POINTS:
        assert 0 < each.prune_rate < 1
        assert 10 <= each.top1 <= 100
        assert each.source
        assert each.how
    names = [(each.data, each.model, each.method, each.what, each.prune_rate, each.source) for each in POINTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("model", "width", "names"),
    [
        ("conv4", 1.0, ["conv4, kaiming_normal"]),
        ("conv4", 0.5, []),
        ("fc", 1.0, []),
        ("conv8", 1.0, ["conv8, signed_constant", "conv8, kaiming_normal"]),
    ],
)
def test_only_of_the_same_network(tmp_path: Path, model: str, width: float, names: list[str]) -> None:
    finish(tmp_path, cifar(model, width), 0.8)
    assert [each.name for each in published_of(read_runs(tmp_path))] == names


def test_they_lie_over_the_figure_with_their_rates_and_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        finish(tmp_path, cifar("conv8", prune_rate=0.5, seed=seed), 0.5 + seed / 10)
    runs = read_runs(tmp_path)
    found = published_of(runs)
    with matplotlib.rc_context(settings_of(PAPER)):
        axes = plot(picture(summarise(runs), found), "").axes[0]
        alone = plot(picture(summarise(runs)), "").axes[0]
    drawn = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.get_lines()}
    assert drawn["published: conv8, kaiming_normal"] == [(0.3, 84.8), (0.5, 87.7), (0.7, 87.2), (0.9, 71.7)]
    assert axes.get_xlim()[0] < 0.1
    assert axes.get_xlim()[1] > 0.9
    assert axes.get_ylim()[1] > 89.2 > alone.get_ylim()[1]
    results(tmp_path, None, published=True)
    said = capsys.readouterr().out
    assert "published: conv8, kaiming_normal: the paper's figure 3, from iceychris/edge-popup" in " ".join(said.split())
    assert "published: conv8" in (tmp_path / "figures" / "all.svg").read_text()
    results(tmp_path, None)
    assert "published" not in (tmp_path / "figures" / "all.svg").read_text()


def test_none_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(tmp_path, config(), 0.9)
    results(tmp_path, None, published=True)
    assert "no accuracies for these data, models and methods; there are some for cifar10 conv2" in " ".join(
        capsys.readouterr().out.split()
    )
