"""pretrained= by the names of torchvision's weights; their files are made here, nothing is loaded from the net."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision import models

from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError

RESNET = ["data=cifar10", "model=torchvision", "model.name=resnet18", "method=dense"]
FILE = "resnet18-f37072fd.pth"
URL = f"https://download.pytorch.org/models/{FILE}"
NO_SUCH = "torchvision has no such weights "
Compose = Callable[..., Config]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's folder of weights, still empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    "name", ["IMAGENET1K_V1", "DEFAULT", "ResNet18_Weights.IMAGENET1K_V1", "ResNet18_Weights.DEFAULT"]
)
def test_a_name_is_the_file_that_torch_hub_keeps(name: str, hub: Path, compose_single: Compose) -> None:
    torch.save(models.resnet18().state_dict(), hub / FILE)
    config = compose_single(*RESNET, f"pretrained={name}")
    assert config.pretrained == str(hub / FILE)
    assert config.pretrained_sha256 is not None
    assert config == compose_single(*RESNET, f"pretrained={hub / FILE}")  # the same run


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["pretrained=IMAGENET1K_V1"], f"is not on this machine; load {URL} into"),
        (["pretrained=IMAGENET1K_V9"], f"{NO_SUCH}('IMAGENET1K_V9')"),
        (["pretrained=ResNet19_Weights.DEFAULT"], f"{NO_SUCH}(The weight enum 'ResNet19_Weights'"),
        (["model=resnet18", "model.name=resnet18", "pretrained=DEFAULT"], "which network it is of is known"),
    ],
)
def test_what_is_not_there_is_refused(words: list[str], line: str, hub: Path, compose_single: Compose) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_single(*RESNET, *words)
    assert str(caught.value).startswith(f"{words[-1]}: ")
    assert line in str(caught.value)


def test_a_file_of_that_name_goes_first(
    hub: Path, compose_single: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(models.resnet18().state_dict(), "DEFAULT")
    assert compose_single(*RESNET, "pretrained=DEFAULT").pretrained == str(tmp_path / "DEFAULT")
