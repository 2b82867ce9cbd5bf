"""examples/accuracy_by_bits.py and halves.py, which docs/analysis.md uses: what is drawn, and what the files hold."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.own_parts import forgotten
from matplotlib.figure import Figure
from pandas import DataFrame

from hidden_subnet.config.own_parts import import_own_parts
from hidden_subnet.report.own_plots import PLOTS

__all__ = ["forgotten"]

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_line_for_each_number_of_bits_has_a_star_at_its_best(forgotten: None) -> None:
    import_own_parts([str(EXAMPLES / "accuracy_by_bits.py")])
    rows = [
        # width, prune rate, bits, density, accuracy, state
        (1.0, 0.9, 101_000, 0.1, 0.80, "done"),
        (1.0, 0.9, 99_000, 0.1, 0.82, "done"),  # another seed
        (0.5, 0.5, 98_000, 0.5, 0.85, "done"),
        (0.5, 0.8, 51_000, 0.2, 0.70, "done"),
        (0.25, 0.9, 0, 0.1, 0.0, "failed"),
    ]
    names = ["width", "prune_rate", "bits", "density", "last_test_top1", "state"]
    axes = Figure().add_subplot()
    PLOTS["bits"](DataFrame(rows, columns=names), axes)
    drawn = [(line.get_label(), line.get_xydata().round(6).tolist()) for line in axes.lines]
    assert [each for each in drawn if "bits" in str(each[0])] == [
        ("100,000 bits", [[0.5, 85], [1, 81]]),
        ("50,000 bits", [[0.5, 70]]),
    ]
    assert [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "*"] == [[[0.5, 85]], [[0.5, 70]]]
    assert [text.get_text() for text in axes.texts] == ["50 % kept", "20 % kept"]


@pytest.mark.slow
def test_the_halves_have_five_classes_each(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(EXAMPLES / "halves.py")], cwd=tmp_path, check=True)
    for name in ("first_half.npz", "second_half.npz"):
        with np.load(tmp_path / name) as half:
            assert half["train_images"].shape == (30_000, 28, 28)
            assert np.bincount(half["train_labels"]).tolist() == [6_000] * 5
            assert np.bincount(half["test_labels"]).tolist() == [1_000] * 5
