"""The lines that a single run prints."""

import pytest

from hidden_subnet.cli.run import epoch_line


@pytest.mark.parametrize(
    ("row", "masked", "line"),
    [
        ({"epoch": 0.0, "test/loss": 2.3, "test/top1": 0.1}, True,
         "epoch 0/3, test loss 2.3000 top-1 10.00 % (untrained, under the first mask)"),
        ({"epoch": 0.0, "test/loss": 2.3, "test/top1": 0.1}, False,
         "epoch 0/3, test loss 2.3000 top-1 10.00 % (untrained, all weights)"),
        ({"epoch": 1.0, "train/loss": 2.0, "train/top1": 0.2, "seconds": 0.25}, True,
         "epoch 1/3, train loss 2.0000 top-1 20.00 %, 0.2 s"),
    ],
)  # fmt: skip
def test_line_of_an_epoch(row: dict[str, float], masked: bool, line: str) -> None:
    assert epoch_line(row, 3, masked=masked) == line
