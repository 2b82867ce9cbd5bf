"""A finished run comes back as a plain module: its accuracy, and the file that `export` writes."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from helpers.runs import QUIET, small
from onnx.reference import ReferenceEvaluator

import hidden_subnet
from hidden_subnet.analysis.export import export, write_network
from hidden_subnet.config.registries import info_of
from hidden_subnet.config.settings import Library, Masking, Model, Norm, Precision
from hidden_subnet.data import synthetic
from hidden_subnet.models.from_config import bare_network
from hidden_subnet.store import files
from hidden_subnet.sweep.execute import Outcome, execute
from hidden_subnet.training.experiment import open_images, resolve


@pytest.mark.parametrize("method", ["edge_popup", "dense", "random", "last_layer"])
@pytest.mark.parametrize("which", ["last", "best"])
def test_load_has_the_recorded_accuracy(method: str, which: Any, undisturbed: Callable[[str], Path]) -> None:
    folder = undisturbed(method)
    model = hidden_subnet.load(folder, which)
    assert all(type(layer).__module__.startswith("torch.nn") for layer in model.modules())
    result = files.read_result(folder)
    assert result is not None
    images, labels = hidden_subnet.test_images(folder)
    accuracy = (model(images).argmax(dim=1) == labels).double().mean().item()
    assert accuracy == result[which]["test"]["top1"]
    if method in ("edge_popup", "random"):
        kept = sum(int(parameter.count_nonzero()) for parameter in model.parameters())
        assert kept == result["kept"]


@pytest.mark.slow
def test_exported_file_needs_torch_only(tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    path = export(undisturbed("edge_popup"), "last", tmp_path / "subnetwork.pt2")
    code = (
        "import sys, json, torch; model = torch.export.load(sys.argv[1]).module();"
        "assert not any(name.startswith('hidden_subnet') for name in sys.modules);"
        "print(json.dumps(model(torch.ones(1, 1, 8, 8)).tolist()))"
    )
    said = subprocess.run([sys.executable, "-c", code, path], cwd=tmp_path, capture_output=True, text=True, check=True)
    with torch.no_grad():
        expected = hidden_subnet.load(undisturbed("edge_popup"))(torch.ones(1, 1, 8, 8))
    torch.testing.assert_close(torch.tensor(json.loads(said.stdout)), expected)


CONV2, RESNET = Model(name="conv2", width=0.125), Model(name="cifar_resnet18", width=1 / 16)
FORWARDS: dict[str, tuple[Model, dict[str, Any]]] = {
    "as it is": (CONV2, {}),
    "temperature": (replace(CONV2, temperature=3.0), {}),
    "dense layers": (replace(CONV2, first_layer=Masking.dense, last_layer=Masking.dense), {}),
    "bf16": (CONV2, {"precision": Precision.bf16}),
    "channels_last": (replace(CONV2, temperature=3.0), {"channels_last": True}),
    "residual": (RESNET, {}),
    "residual, temperature, norm": (replace(RESNET, temperature=3.0, norm=Norm.batch), {"norm_batches": 1}),
}
"""Each setting that changes how a network maps images to logits."""


def executed(name: str, out: Path) -> Outcome:
    """The run of a network, with random masks."""
    model, train = FORWARDS[name]
    outcome = execute(replace(small(out, "random", **train), model=model), QUIET)
    assert outcome.result is not None, outcome.message
    return outcome


@pytest.mark.parametrize("name", FORWARDS)
def test_an_exported_file_gives_the_logits_of_load(name: str, tmp_path: Path) -> None:
    outcome = executed(name, tmp_path)
    assert outcome.result is not None
    path = export(outcome.folder, "last", tmp_path / "subnetwork.pt2")
    images, labels = hidden_subnet.test_images(outcome.folder)
    loaded = hidden_subnet.load(outcome.folder)
    expected = loaded(images)
    program = torch.export.load(path).module()
    assert torch.equal(program(images), expected)
    torch.testing.assert_close(program(images[:1]), expected[:1])  # batches of any size
    tensors = safetensors.torch.load_file(export(outcome.folder, "last", tmp_path / "subnetwork.safetensors"))
    assert tensors.keys() == loaded.state_dict().keys()
    assert all(torch.equal(value, tensors[name]) for name, value in loaded.state_dict().items())
    weights = torch.load(export(outcome.folder, "last", None))
    assert weights.keys() == loaded.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())
    loss = torch.nn.functional.cross_entropy(expected, labels).item()
    assert loss == pytest.approx(outcome.result["last"]["test"]["loss"], rel=1e-2 if name == "bf16" else 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["temperature", "residual"])
def test_an_onnx_file_gives_the_logits_of_load(name: str, tmp_path: Path) -> None:
    outcome = executed(name, tmp_path)
    path = export(outcome.folder, "last", tmp_path / "subnetwork.onnx")
    images, _ = hidden_subnet.test_images(outcome.folder)
    [logits] = ReferenceEvaluator(str(path)).run(None, {"images": images[:7].numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), hidden_subnet.load(outcome.folder)(images[:7]))


def test_onnx_without_its_packages_is_one_line(
    undisturbed: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hidden_subnet.analysis.export.FOR_ONNX", ("no_such_package",))
    with pytest.raises(ValueError, match=r"needs the packages of ONNX; type: pip install no_such_package$"):
        export(undisturbed("edge_popup"), "last", tmp_path / "x.onnx")


def test_the_temperature_of_a_network_of_torchvision_is_exported(tmp_path: Path) -> None:
    config = small(tmp_path)
    model = Model(name="squeezenet1_1", library=Library.torchvision)
    info = replace(info_of(config.data), shape=(3, 32, 32))
    plain, cooled = (bare_network(replace(model, temperature=value), info, 0).eval() for value in (1.0, 3.0))
    images = torch.randn(2, 3, 32, 32)
    expected = plain(images) / 3
    assert list(plain.state_dict()) == list(cooled.state_dict())
    assert torch.equal(cooled(images), expected)
    path = write_network(cooled, torch.zeros(2, *info.shape), tmp_path / "subnetwork.pt2")
    assert torch.equal(torch.export.load(path).module()(images), expected)


def test_an_export_that_fails_leaves_the_file_before_it(
    tmp_path: Path, undisturbed: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = export(undisturbed("edge_popup"), "last", tmp_path / "subnetwork.pt")
    before = path.read_bytes()
    unpicklable = torch.nn.ReLU()
    unpicklable.register_buffer("state", torch.ones(1))
    monkeypatch.setattr(unpicklable, "state_dict", lambda: {"state": lambda: None})
    with pytest.raises(Exception, match="pickle"):
        write_network(unpicklable, None, path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["subnetwork.pt"]


def test_training_images_are_those_in_use_and_not_augmented(undisturbed: Callable[[str], Path]) -> None:
    folder = undisturbed("edge_popup")
    config = files.load_config(folder / files.CONFIG)
    info = info_of(config.data)
    (images, labels), (test_images, _) = hidden_subnet.train_images(folder), hidden_subnet.test_images(folder)
    with open_images(resolve(config, "cpu")) as loaders:
        assert len(images) == len(labels) == loaders.train.images_in_epoch
        assert loaders.validation is not None
        held = len(loaders.validation.labels)
    assert held > 0
    assert len(images) + held == info.train
    raw = images * torch.tensor(info.std).view(1, -1, 1, 1) + torch.tensor(info.mean).view(1, -1, 1, 1)
    known = {tuple(each.flatten().tolist()) for each in synthetic.read(info)[0].long()}
    found = [tuple(each.flatten().tolist()) for each in (raw * 255).round().long()]
    assert set(found) <= known
    assert not set(map(str, test_images[:50].tolist())) & set(map(str, images.tolist()))
