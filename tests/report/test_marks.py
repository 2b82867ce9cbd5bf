"""The marks of runs: each a shape of its own, unless there are too many for that."""

import pytest
from matplotlib.figure import Figure

from hidden_subnet.report.drawn import drawn
from hidden_subnet.report.marks import MANY, draw_runs


@pytest.mark.parametrize(("count", "is_image"), [(MANY, False), (MANY + 1, True)])
def test_many_dots_are_an_image(count: int, is_image: bool) -> None:
    figure = Figure()
    draw_runs(figure.subplots(), [(0.1 * (number % 9), number / count, False) for number in range(count)], "C0", "o", 9)
    svg = drawn(figure, "svg", dpi=100)
    assert (b"<image" in svg) is is_image
    assert (svg.count(b"<use") > MANY) is not is_image
