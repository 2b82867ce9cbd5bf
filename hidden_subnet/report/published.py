"""Accuracies that others published of these networks, to lay over a figure; none was measured with this code.

The paper prints no accuracy on CIFAR-10 as a number, only curves: those were read off them, by whom and how is said.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hidden_subnet.report.runs import Run, dig


@dataclass(frozen=True)
class Published:
    data: str
    model: str
    what: str
    points: dict[float, float]
    """Test accuracy in % by prune rate (the fraction removed)."""
    source: str
    how: str

    @property
    def name(self) -> str:
        return f"{self.model}, {self.what}"


KOSTER = "the paper's figure 3, as Koster et al. read it (README of kosnil/signed_supermasks)"
RERUN = "NesterukSergey/hidden-networks, demos/results.csv"
KOREAN = "JoohyeonL22/hidden-networks_pruning_rate-change, figure4.png"
TABLE = "the paper's table 2 and its code's README"
READ = "read off the figure by eye"
RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def _of(values: Sequence[float], rates: Sequence[float] = RATES) -> dict[float, float]:
    return dict(zip(rates, values, strict=True))


FIVE = (0.1, 0.3, 0.5, 0.7, 0.9)
RUN_OF_THEIRS = "a run of the authors' code, 100 epochs, 1 seed, last epoch"
PUBLISHED = (
    Published("cifar10", "conv2", "kaiming_normal", {0.9: 65.0}, KOSTER, READ),
    Published("cifar10", "conv4", "kaiming_normal", {0.9: 74.0}, KOSTER, READ),
    Published("cifar10", "conv6", "kaiming_normal", {0.9: 77.0}, KOSTER, READ),
    Published(
        "cifar10",
        "conv8",
        "signed_constant",
        _of((71.3, 87.5, 89.2, 87.9, 67.7), FIVE),
        "the paper's figure 3, from iceychris/edge-popup, img/paper/conv8_ks.png",
        "digitised; the axis labels are cropped, 5 points a tick assumed",
    ),
    Published(
        "cifar10",
        "conv8",
        "kaiming_normal",
        _of((84.8, 87.7, 87.2, 71.7), FIVE[1:]),
        "the paper's figure 3, from iceychris/edge-popup, img/paper/conv8_ks.png",
        "digitised; the axis labels are cropped, 5 points a tick assumed",
    ),
    Published(
        "cifar10",
        "conv6",
        "kaiming_normal, unscaled",
        _of((56.10, 75.75, 83.14, 86.17, 86.92, 86.43, 85.43, 84.44, 77.55)),
        RERUN,
        RUN_OF_THEIRS,
    ),
    Published(
        "cifar10",
        "conv6",
        "kaiming_normal, scaled upside down",
        _of((10.00, 48.41, 77.40, 83.85, 86.67, 87.55, 87.19, 85.30, 78.99)),
        RERUN,
        RUN_OF_THEIRS,
    ),
    Published(
        "cifar10",
        "conv2",
        "signed_constant, layerwise",
        _of((56.4, 69.9, 74.5, 76.7, 77.8, 77.3, 76.2, 72.8, 61.2)),
        KOREAN,
        READ,
    ),
    Published(
        "cifar10",
        "conv2",
        "signed_constant, budget across layers",
        _of((69.1, 74.2, 76.2, 77.2, 77.8, 77.2, 77.6, 77.3, 75.5)),
        KOREAN,
        READ,
    ),
    Published("imagenet", "resnet50", "kaiming_normal", {0.7: 61.7}, TABLE, "printed as a number"),
    Published("imagenet", "resnet50", "signed_constant", {0.7: 68.6}, TABLE, "printed as a number"),
    Published("imagenet", "resnet101", "kaiming_normal", {0.7: 66.15}, TABLE, "printed as a number"),
    Published("imagenet", "resnet101", "signed_constant", {0.7: 72.3}, TABLE, "printed as a number"),
    Published("imagenet", "wide_resnet50_2", "kaiming_normal", {0.7: 67.9}, TABLE, "printed as a number"),
    Published("imagenet", "wide_resnet50_2", "signed_constant", {0.7: 73.3}, TABLE, "printed as a number"),
)


def published_of(runs: Iterable[Run]) -> list[Published]:
    """What is known of the data and models of `runs`; a network of another width is another network."""
    ours = {
        (dig(run.projection, "data.name"), dig(run.projection, "model.name"))
        for run in runs
        if dig(run.projection, "model.width") == 1 and dig(run.projection, "model.library") is None
    }
    return [each for each in PUBLISHED if (each.data, each.model) in ours]


def models_known() -> str:
    """The pairs that something is known of: "cifar10 conv2, conv4; imagenet resnet50"."""
    by_data: dict[str, dict[str, None]] = {}
    for each in PUBLISHED:
        by_data.setdefault(each.data, {})[each.model] = None
    return "; ".join(f"{data} {', '.join(models)}" for data, models in by_data.items())
