"""What is counted in an epoch, on logits small enough to count by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from hidden_subnet.layers import mask_layers
from hidden_subnet.masks import Scratch, kept_count
from hidden_subnet.methods.edge_popup import TopKRule
from hidden_subnet.models.build import build
from hidden_subnet.training import Sums, ranks, train_epoch


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
def test_ranks(logits: list[float], label: int, rank: int) -> None:
    assert ranks(torch.tensor([logits]), torch.tensor([label])).tolist() == [rank]


def test_top1_is_argmax_on_distinct_logits() -> None:
    logits = torch.randn(500, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 10, (500,), generator=torch.Generator().manual_seed(1))
    assert torch.equal(ranks(logits, labels) < 1, logits.argmax(dim=1) == labels)
    in_top5 = (logits.topk(5, dim=1).indices == labels[:, None]).any(dim=1)
    assert torch.equal(ranks(logits, labels) < 5, in_top5)


def test_means_weigh_images_not_batches() -> None:
    sums = Sums("cpu")
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


def test_a_step_never_reads_from_the_device() -> None:
    """On torch's meta device tensors have no values: whatever waits for one (item, nonzero, a branch) raises."""
    model = build("conv2", 0.25, (1, 8, 8), 10)
    mask_layers(model, lambda n: TopKRule(kept_count(n, 0.5), Scratch()))
    model.to("meta")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    batch = torch.empty(4, 1, 8, 8, device="meta"), torch.empty(4, dtype=torch.int64, device="meta")
    steps: list[int] = []
    train_epoch(model, [batch, batch], optimizer, 0.1, Sums("meta"), lambda: steps.append(1))
    assert len(steps) == 2
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.empty(1, device="meta").item()
