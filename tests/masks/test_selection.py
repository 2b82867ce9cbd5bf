"""The selection of one layer: K weights in a mask, and the same ones in the masked weight."""

import pytest
import torch

from hidden_subnet.masks.selection import TopKSelection
from hidden_subnet.masks.topk import topk_mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_written_out(dtype: torch.dtype) -> None:
    """float64 takes the way of other devices and types."""
    scores = torch.tensor([[0.1, -0.9], [0.5, -0.3]], dtype=dtype)
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=dtype)
    selection = TopKSelection(2)
    assert selection.mask(scores).int().tolist() == [[0, 1], [1, 0]]
    mask_weight = selection.select(scores)
    assert mask_weight(weight).tolist() == [[0, 2], [3, 0]]
    assert mask_weight(-weight).tolist() == [[0, -2], [-3, 0]]  # another weight under the same selection
    selection.keep = 4
    assert selection.select(scores)(weight).tolist() == weight.tolist()


def test_of_equal_scores_the_highest_index_is_kept() -> None:
    scores, weight = torch.tensor([1.0, -1.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert TopKSelection(2).select(scores)(weight).tolist() == [0, 0, 3, 4]
    assert TopKSelection(3).select(scores)(weight).tolist() == [0, 2, 3, 4]


@pytest.mark.parametrize("shape", [(4, 1, 3, 3), (1, 4, 3, 3), (4, 3, 1, 1), (2, 3, 3, 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_effective_weight_lies_in_memory_as_the_weight(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    """Down to the strides of dimensions of one element: by them a convolution chooses how it adds up."""
    weight = torch.randn(shape).to(memory_format=layout)
    scores = torch.randn_like(weight)
    effective = TopKSelection(3).select(scores)(weight)
    assert effective.stride() == weight.stride()
    assert torch.equal(effective, weight * topk_mask(scores, 3))
