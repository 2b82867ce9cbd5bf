"""The accuracies that a figure and the tables for a paper can be of (`report.metric`, `results --metric`)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """An accuracy of a finished run."""

    path: str
    """Its place in result.json."""
    sentence: str
    axis: str


METRICS = {
    "last_test_top1": Metric("last.test.top1", "Test accuracy at the last epoch", "test accuracy (%)"),
    "best_test_top1": Metric("best.test.top1", "Test accuracy at the best epoch", "test accuracy (%)"),
    "last_validation_top1": Metric(
        "last.validation.top1", "Validation accuracy at the last epoch", "validation accuracy (%)"
    ),
    "best_validation_top1": Metric(
        "best.validation.top1", "Validation accuracy at the best epoch", "validation accuracy (%)"
    ),
    "last_train_top1": Metric("last.train.top1", "Training accuracy at the last epoch", "training accuracy (%)"),
}
"""By the name of its column in results.csv, which is that in `ReportMetric` (hidden_subnet/config/settings.py)."""
LAST_TEST = METRICS["last_test_top1"]
