"""Tables for a paper: means with the best in bold, and differences paired by seed."""

from pathlib import Path

from helpers.run_folders import config, finish

from hidden_subnet.config.settings import Data
from hidden_subnet.report.paper_tables import latex, markdown, paper_tables
from hidden_subnet.report.table import Line, summarise
from hidden_subnet.store.read import read_runs


def lines(out: Path) -> list[Line]:
    """Three seeds of edge_popup at two rates, of dense two and another."""
    for seed, top1 in enumerate((0.90, 0.92, 0.94)):
        finish(out, config(prune_rate=0.5, seed=seed), top1)
        finish(out, config(prune_rate=0.9, seed=seed), top1 - 0.2)
    finish(out, config("random", 0.5), 0.1)
    for seed, top1 in ((0, 0.95), (1, 0.96), (7, 0.5)):
        finish(out, config("dense", seed=seed), top1)
    return summarise(read_runs(out))


def test_the_best_of_a_column_is_bold(tmp_path: Path) -> None:
    text = markdown(paper_tables(lines(tmp_path)))
    assert text.splitlines() == [
        "Test accuracy at the last epoch in %, mean ± standard deviation over seeds.",
        "",
        "| prune rate | none | 0.5 | 0.9 |",
        "| --- | ---: | ---: | ---: |",
        "| dense | 80.33 ± 26.27 |  |  |",
        "| edge-popup |  | **92.00 ± 2.00** | 72.00 ± 2.00 |",
        "| random masks |  | 10.00 |  |",
    ]


def test_differences_are_of_runs_with_the_same_seed(tmp_path: Path) -> None:
    found = lines(tmp_path)
    dense = [line for line in found if line.method == "dense"]
    [_, table] = paper_tables(found, dense, "method=dense")
    assert table.title.startswith("Difference to method=dense in points")
    assert table.head == ["prune rate", "0.5", "0.9"]
    # Of seeds 0 and 1: 90 - 95 and 92 - 96, so -4.5; t(0.975, 1) = 12.706 times 0.7071 / sqrt(2) is 6.35.
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["edge-popup", "-4.50 [-10.85, +1.85]", "-24.50 [-30.85, -18.15]"],
        ["random masks", "-85.00", ""],
    ]


def test_latex(tmp_path: Path) -> None:
    finish(tmp_path, config(), 0.9)
    finish(tmp_path, config("random"), 0.1)
    assert latex(paper_tables(summarise(read_runs(tmp_path)))).splitlines() == [
        r"% Test accuracy at the last epoch in %, mean +- standard deviation over seeds",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r" & test accuracy \\",
        r"\midrule",
        r"edge-popup & \textbf{90.00} \\",
        r"random masks & 10.00 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_the_best_and_the_reference_are_of_the_same_data(tmp_path: Path) -> None:
    for data, top1 in (("digits", 0.9), ("cifar10", 0.5)):
        for rate in (0.5, 0.9):
            finish(tmp_path, config(prune_rate=rate, data=Data(name=data)), top1)
        finish(tmp_path, config("random_trained", 0.5, data=Data(name=data)), top1 - 0.1)
    found = summarise(read_runs(tmp_path))
    means, differences = paper_tables(found, [line for line in found if line.method == "edge_popup"], "edge_popup")
    assert [row[0].text for row in means.rows if row[1].is_best] == ["CIFAR-10, edge-popup", "Digits, edge-popup"]
    assert [[cell.text for cell in row] for row in differences.rows] == [
        ["CIFAR-10, random masks, trained", "-10.00"],
        ["Digits, random masks, trained", "-10.00"],
    ]
