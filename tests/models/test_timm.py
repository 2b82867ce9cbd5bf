"""The networks of timm, where it is installed, and what is said where it is not."""

import sys
from pathlib import Path

import pytest
import torch
from helpers.composing import make_composer
from helpers.runs import QUIET
from torch import nn

from hidden_subnet.config.identity import folder_name, projection
from hidden_subnet.config.registries import info_of
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError
from hidden_subnet.models import timm
from hidden_subnet.sweep.execute import execute
from hidden_subnet.sweep.preflight import preflight


def composed(*words: str) -> Config:
    return make_composer().compose(["tracker=none", "model=timm", *words])


def test_where_timm_is_missing_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    config = composed("model.name=resnet18", f"out={tmp_path / 'runs'}")
    assert "-timm.resnet18-" in folder_name(config)
    assert projection(config)["model"] == {"name": "resnet18", "library": "timm", "width": 1.0}
    with pytest.raises(ConfigError, match=r"^model=timm: needs .*'hidden_subnet\[timm\]'.*; type: pip install timm$"):
        preflight([config])
    with pytest.raises(ConfigError, match=r"^model=timm: name the network too; as in: model=timm model.name=resnet18$"):
        composed()


def test_a_network_takes_the_images_and_its_blocks_act(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    config = composed("model.name=resnet18", "data=synthetic")
    first, second, other = (timm.build("resnet18", info_of(config.data), seed) for seed in (0, 0, 1))
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    norms = [layer for layer in first.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms
    assert all(layer.weight.eq(1).all() for layer in norms)
    small = composed("model.name=test_resnet", "data=synthetic", "train.epochs=1", f"out={tmp_path / 'runs'}")
    preflight([small])
    assert execute(small, QUIET).state == "done"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("resnet19", r"timm has no such network \(resnet18.*; did you mean: model=timm model.name=resnet18$"),
        ("resnet18.a1_in1k", r"did you mean: model=timm model.name=resnet18$"),
        ("vit_tiny_patch16_224", r"does not take images of 1x8x8: .*; choose another network, or data with larger"),
    ],
)
def test_what_does_not_exist_or_fit_is_refused_in_one_line(name: str, line: str, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match=rf"^model.name={name}: .*{line}") as caught:
        preflight([composed(f"model.name={name}", f"out={tmp_path / 'runs'}")])
    assert "\n" not in str(caught.value)
