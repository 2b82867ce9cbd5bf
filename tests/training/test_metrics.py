"""Loss and accuracy of an epoch, on logits small enough to count by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from hidden_subnet.training.metrics import MetricSums, target_rank


@pytest.mark.parametrize(
    ("logits", "label", "rank"),
    [
        ([0.1, 0.9, 0.5], 1, 0),
        ([0.1, 0.9, 0.5], 2, 1),
        ([0.1, 0.9, 0.5], 0, 2),
        ([0.0, 0.0, 0.0], 0, 0),  # a dead network answers class 0
        ([0.0, 0.0, 0.0], 2, 2),
        ([math.nan, math.nan, math.nan], 0, 3),
    ],
)
def test_target_rank(logits: list[float], label: int, rank: int) -> None:
    assert target_rank(torch.tensor([logits]), torch.tensor([label])).tolist() == [rank]


def test_top1_is_argmax_on_distinct_logits() -> None:
    logits = torch.randn(500, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 10, (500,), generator=torch.Generator().manual_seed(1))
    assert torch.equal(target_rank(logits, labels) < 1, logits.argmax(dim=1) == labels)
    in_top5 = (logits.topk(5, dim=1).indices == labels[:, None]).any(dim=1)
    assert torch.equal(target_rank(logits, labels) < 5, in_top5)


@pytest.mark.parametrize(
    ("logits", "label", "top1", "top5"),
    [
        ([0.1, 0.9, 0.5], 0, 0.0, 1.0),  # of three classes each is among the first five
        ([math.nan] * 3, 0, 0.0, 0.0),
        ([math.nan, 0.9, 0.5], 0, 0.0, 0.0),
        ([math.nan, 0.9, 0.5], 1, 0.0, 1.0),
        ([0.6, 0.5, 0.4, 0.3, 0.2, 0.1], 4, 0.0, 1.0),
        ([0.6, 0.5, 0.4, 0.3, 0.2, 0.1], 5, 0.0, 0.0),
        ([math.nan] * 6, 0, 0.0, 0.0),
        ([math.inf, 0.0], 0, 1.0, 1.0),
    ],
)
def test_hits(logits: list[float], label: int, top1: float, top5: float) -> None:
    sums = MetricSums("cpu")
    sums.add(torch.tensor(1.0), torch.tensor([logits]), torch.tensor([label]))
    assert (sums.means().top1, sums.means().top5) == (top1, top5)


def test_means_weigh_images_not_batches() -> None:
    sums = MetricSums("cpu")
    right = torch.tensor([[9.0, 0.0], [9.0, 0.0], [9.0, 0.0]])
    sums.add(torch.tensor(1.0), right, torch.tensor([0, 0, 0]))
    sums.add(torch.tensor(3.0), right[:1], torch.tensor([1]))
    means = sums.means()
    assert (means.loss, means.top1, means.top5) == (1.5, 0.75, 1.0)


def test_label_smoothing_written_out() -> None:
    """(1 - e) * cross-entropy + e * the mean over all classes of -log p (the authors' LabelSmoothing)."""
    logits, e = torch.tensor([[2.0, 0.0, -1.0]]), 0.1
    log_p = logits.log_softmax(dim=1)[0]
    expected = (1 - e) * -log_p[1] + e * -log_p.mean()
    assert F.cross_entropy(logits, torch.tensor([1]), label_smoothing=e).item() == pytest.approx(
        expected.item(), rel=1e-6
    )
