"""Networks that torch refuses on a GPU with deterministic algorithms; found on the meta device, as there is no GPU."""

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hidden_subnet.models import torchvision
from hidden_subnet.sweep.preflight import refuse_undetermined
from hidden_subnet.training.determinism import without_deterministic_kernel

Operation = Callable[[Tensor], object]


def _zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


# Each line of torch's list (the words that it begins with), the shape of an input, and an operation that is meant.
LISTED: dict[str, tuple[tuple[int, ...], Operation]] = {
    "AvgPool3d": ((1, 1, 4, 4, 4), nn.AvgPool3d(2)),
    "AdaptiveAvgPool2d": ((1, 1, 8, 8), nn.AdaptiveAvgPool2d(7)),
    "AdaptiveAvgPool3d": ((1, 1, 8, 8, 8), nn.AdaptiveAvgPool3d(2)),
    "AdaptiveMaxPool2d": ((1, 1, 8, 8), nn.AdaptiveMaxPool2d(1)),
    "FractionalMaxPool2d": ((1, 1, 8, 8), nn.FractionalMaxPool2d(2, output_size=4)),
    "FractionalMaxPool3d": ((1, 1, 8, 8, 8), nn.FractionalMaxPool3d(2, output_size=4)),
    "MaxUnpool1d": ((1, 4, 8), lambda x: nn.MaxUnpool1d(2)(x, _zeros(1, 4, 8, dtype=torch.long))),
    "MaxUnpool2d": ((1, 1, 4, 4), lambda x: nn.MaxUnpool2d(2)(x, _zeros(1, 1, 4, 4, dtype=torch.long))),
    "MaxUnpool3d": ((1, 1, 2, 2, 2), lambda x: nn.MaxUnpool3d(2)(x, _zeros(1, 1, 2, 2, 2, dtype=torch.long))),
    "interpolate": ((1, 1, 4, 4), lambda x: F.interpolate(x, scale_factor=2, mode="bicubic")),
    "ReflectionPad1d": ((1, 1, 4), nn.ReflectionPad1d(1)),
    "ReflectionPad2d": ((1, 1, 4, 4), nn.ReflectionPad2d(1)),
    "ReflectionPad3d": ((1, 1, 4, 4, 4), nn.ReflectionPad3d(1)),
    "NLLLoss": ((1, 3, 4, 4), lambda x: F.nll_loss(x, _zeros(1, 4, 4, dtype=torch.long))),
    "CTCLoss": (
        (5, 1, 3),
        lambda x: F.ctc_loss(x, torch.ones(1, 2, dtype=torch.long), torch.tensor([5]), torch.tensor([2])),
    ),
    "EmbeddingBag": (
        (3, 2),
        lambda x: F.embedding_bag(_zeros(1, 2, dtype=torch.long), x, mode="max"),
    ),
    "put_": ((4,), lambda x: x.put_(_zeros(1, dtype=torch.long), _zeros(1))),
    "histc": ((4,), lambda x: x.histc(2)),
    "bincount": ((4,), lambda x: torch.bincount(_zeros(4, dtype=torch.long), x)),
    "median": ((4,), lambda x: x.median(dim=0)),
    "grid_sample": ((1, 1, 4, 4), lambda x: F.grid_sample(x, _zeros(1, 4, 4, 2), align_corners=False)),
    "scatter_reduce": ((4,), lambda x: x.scatter_reduce(0, _zeros(4, dtype=torch.long), x, "prod")),
}
PASSED: dict[str, tuple[tuple[int, ...], Operation]] = {
    "adaptive average pooling to 1x1": ((1, 1, 8, 8), nn.AdaptiveAvgPool2d(1)),
    "average pooling": ((1, 1, 8, 8), nn.AvgPool2d(2)),
    "max pooling": ((1, 1, 8, 8), nn.MaxPool2d(2)),
    "nearest interpolation": ((1, 1, 4, 4), lambda x: F.interpolate(x, scale_factor=2)),
    "cross entropy": ((2, 3), lambda x: F.cross_entropy(x, _zeros(2, dtype=torch.long))),
    "convolution": ((1, 1, 8, 8), nn.Conv2d(1, 1, 3)),
}


class Network(nn.Module):
    """Executes an operation."""

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, images: Tensor) -> object:
        return self.operation(images)


def test_the_table_is_the_list_of_torch() -> None:
    text = str(torch.use_deterministic_algorithms.__doc__)
    raises = text[text.index("operations will throw a") : text.index("In addition, several")]
    listed = set(re.findall(r"\* :(?:class|func):`torch\.(?:nn\.|functional\.|Tensor\.)*(\w+)`", raises))
    assert listed - {"resize_"} == LISTED.keys()  # resize_ of a quantized tensor: there are none


@pytest.mark.parametrize("name", LISTED)
def test_every_operation_of_torchs_list_is_found(name: str) -> None:
    shape, operation = LISTED[name]
    assert len(without_deterministic_kernel(Network(operation), torch.zeros(shape))) == 1


@pytest.mark.parametrize("name", PASSED)
def test_others_pass(name: str) -> None:
    shape, operation = PASSED[name]
    assert without_deterministic_kernel(Network(operation), torch.zeros(shape)) == []
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("vgg11", 64, "adaptive average pooling to more than 1x1"),
        ("alexnet", 64, "adaptive average pooling to more than 1x1"),
        ("resnet18", 64, None),
        ("mobilenet_v3_small", 64, None),
    ],
)
def test_networks_of_torchvision(name: str, size: int, words: str | None) -> None:
    network = torchvision.probe(name, (3, size, size), 10, 2)
    if words is None:
        refuse_undetermined(name, network, (3, size, size), "cuda")
        return
    refuse_undetermined(name, network, (3, size, size), "cpu")  # where everything is deterministic
    with pytest.raises(ValueError, match=f"model.name={name}: .*{words}.*train.device=cpu"):
        refuse_undetermined(name, network, (3, size, size), "cuda")
