"""Published accuracies of these networks, to compare with in a figure; none was measured with this code.

They are in published.csv. The paper gives accuracies on CIFAR-10 as curves only; `how` says by whom and how they were
read from the figure.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from hidden_subnet.store.read import Run, dig


@dataclass(frozen=True)
class Published:
    """Accuracies from one source."""

    data: str
    model: str
    what: str
    """Distribution of the weights, and how the pruning differs."""
    points: dict[float, float]
    """Test accuracy in % by prune rate (the fraction removed)."""
    source: str
    how: str

    @property
    def name(self) -> str:
        """Label in a figure's legend."""
        return f"{self.model}, {self.what}"


def _read() -> Iterator[Published]:
    with Path(__file__).with_suffix(".csv").open(newline="") as file:
        for (data, model, what, source, how), rows in groupby(csv.DictReader(file), key=itemgetter(*_SOURCE)):
            points = {float(row["prune_rate"]): float(row["top1"]) for row in rows}
            yield Published(data, model, what, points, source, how)


_SOURCE = ("data", "model", "what", "source", "how")
PUBLISHED = tuple(_read())


def published_of(runs: Iterable[Run]) -> list[Published]:
    """Return the published accuracies for the data and models of `runs`; networks of another width do not count."""
    ours = {
        (dig(run.projection, "data.name"), dig(run.projection, "model.name"))
        for run in runs
        if dig(run.projection, "model.width") == 1 and dig(run.projection, "model.library") is None
    }
    return [each for each in PUBLISHED if (each.data, each.model) in ours]


def models_known() -> str:
    """Return the data and models that have published accuracies: "cifar10 conv2, conv4; imagenet resnet50"."""
    by_data: dict[str, dict[str, None]] = {}
    for each in PUBLISHED:
        by_data.setdefault(each.data, {})[each.model] = None
    return "; ".join(f"{data} {', '.join(models)}" for data, models in by_data.items())
