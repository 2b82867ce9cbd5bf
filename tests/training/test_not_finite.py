"""A run whose numbers are not finite says whose fault it is: the learning rate's only where training did it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.color_images import synthetic_data
from helpers.runs import QUIET, small

from hidden_subnet.config.registries import DATA, INITS, InitEntry
from hidden_subnet.config.settings import Config, Scale
from hidden_subnet.data import synthetic
from hidden_subnet.methods.sampled import SampledSettings
from hidden_subnet.sweep.execute import execute


def failure(config: Config) -> str:
    outcome = execute(config, QUIET)
    assert outcome.state == "failed"
    assert "\n" not in outcome.message
    return outcome.message


def own_init(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    entry = InitEntry(lambda weight, mode: 1.0, lambda weight, std, generator: weight.fill_(value))
    monkeypatch.setitem(INITS, "mine", entry)


@pytest.mark.parametrize("method", ["edge_popup", "dense", "random"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_first_weights(method: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_init(monkeypatch, value)
    config = small(tmp_path, method)
    config.init.name = "mine"
    said = failure(config)
    assert "model=conv2 init=mine: conv1.weight of the untrained network holds values that are NaN or infinite" in said
    assert said.endswith("; as in: init=signed_constant")
    assert "lr" not in said


@pytest.mark.parametrize("method", ["edge_popup", "dense"])
def test_outputs_of_the_untrained_network(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_init(monkeypatch, 1e30)
    config = small(tmp_path, method)
    config.init.name = "mine"
    said = failure(config)
    assert "so was the loss before the first update, whatever train.lr" in said
    assert said.endswith("; as in: init=signed_constant")


def test_the_words_that_made_the_outputs_large_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_init(monkeypatch, 1e30)
    config = small(tmp_path)
    config.init.name, config.init.scale = "mine", Scale.density
    assert failure(config).endswith("; as in: init.scale=none")


@pytest.mark.parametrize("method", ["edge_popup", "dense", "random"])
def test_images_of_a_data_set_whose_std_is_0(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic_data(monkeypatch, std=(0.0,) * DATA["synthetic"].info.shape[0])
    said = failure(small(tmp_path, method))
    assert "data=synthetic: its images, as the network gets them, hold values that are NaN or infinite" in said
    assert said.endswith("; as in: data=digits")


def test_one_training_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = DATA["synthetic"].info

    def read(root: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        images, *others = synthetic.read(info)
        images = images.float()
        images[300] = float("nan")
        return images, *others

    monkeypatch.setitem(DATA, "synthetic", replace(DATA["synthetic"], read=read))
    config = small(tmp_path)
    config.data.validation, config.data.crop = 0, 0
    assert "data=synthetic: its images" in failure(config)


@pytest.mark.parametrize("penalty", [1e37, 1e38])
def test_penalty(penalty: float, tmp_path: Path) -> None:
    config = small(tmp_path, "sampled", lr=200)
    assert isinstance(config.method, SampledSettings)
    config.method.penalty = penalty
    said = failure(config)
    assert "the training diverged in epoch 1 (loss 2.3" in said
    assert f"method.penalty={penalty:g} added inf to a loss of 3.7" in said
    assert said.endswith(" before the first update; as in: method.penalty=1e-05")
    assert "lr" not in said


def test_a_penalty_that_is_not_at_fault(tmp_path: Path) -> None:
    config = small(tmp_path, "sampled", lr=1e38)
    assert isinstance(config.method, SampledSettings)
    config.method.penalty = 1e-5
    assert failure(config).endswith("try a learning rate below train.lr=1e+38; as in: train.lr=1e+37")


def test_learning_rate(tmp_path: Path) -> None:
    said = failure(small(tmp_path, "dense", lr=1e30))
    assert "the training diverged in epoch 1 (loss nan" in said
    assert said.endswith("try a learning rate below train.lr=1e+30; as in: train.lr=1e+29")
