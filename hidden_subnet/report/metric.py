"""The accuracies that a figure and the tables for a paper can be of (`report.metric`, `results --metric`)."""

from dataclasses import dataclass

from hidden_subnet.report.results import OUTCOME


@dataclass(frozen=True)
class Metric:
    """An accuracy of a finished run."""

    images: str
    """The images that it is on: test, validation or training."""
    epoch: str
    """last or best."""
    path: str
    """Its place in result.json."""

    @property
    def sentence(self) -> str:
        """Name of it with its epoch, as a sentence begins."""
        return f"{self.images.capitalize()} accuracy at the {self.epoch} epoch"

    @property
    def axis(self) -> str:
        """Label of its axis."""
        return f"{self.images} accuracy (%)"


# By the column of results.csv, which is the name in `ReportMetric` (hidden_subnet/config/settings.py).
METRICS = {
    f"{epoch}_{split}_top1": Metric(images, epoch, OUTCOME[f"{epoch}_{split}_top1"])
    for epoch, split, images in (
        ("last", "test", "test"),
        ("best", "test", "test"),
        ("last", "validation", "validation"),
        ("best", "validation", "validation"),
        ("last", "train", "training"),
    )
}
LAST_TEST = METRICS["last_test_top1"]
