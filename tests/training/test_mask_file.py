"""A file of masks gives the subnetwork again, to the bit; a damaged or another file is refused in one line."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.methods import config_of, network_of, take_step, trainer_of
from helpers.runs import QUIET, small

import hidden_subnet
from hidden_subnet.cli.main import main
from hidden_subnet.config.registries import METHODS
from hidden_subnet.config.settings import Config, Library, Model, Norm
from hidden_subnet.errors import ConfigError
from hidden_subnet.masks.coding import information
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.methods.sampled import Evaluation
from hidden_subnet.store import checkpoints, files
from hidden_subnet.sweep.execute import execute
from hidden_subnet.training import mask_file

RESULT = {"weights_sha256": "0" * 64, "environment": {"torch": "2.14"}, "projection": {"schema": 3}}


def written(config: Config, path: Path, result: dict[str, Any] = RESULT) -> list[torch.Tensor]:
    """Write the masks of a network after two steps, and return its effective weights."""
    network, method = network_of(config)
    if method.is_trained():
        trainer = trainer_of(network, method, lr=0.1)
        take_step(trainer)
        take_step(trainer)
    method.on_evaluation(1)
    found = effective(network)
    mask_file.write(network, method, result, 1, path, None)
    return found


def effective(network: torch.nn.Module) -> list[torch.Tensor]:
    with torch.no_grad():
        return [layer.effective_weight().clone() for _, layer in masked_layers(network)]


WITHOUT_WEIGHTS = [name for name, method in METHODS.items() if method.masks and method.weights_stay()]


@pytest.mark.parametrize("pruning", ["layerwise", "global"])
@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_masks_of_every_method_come_back(name: str, pruning: str, tmp_path: Path) -> None:
    more = {"evaluation": Evaluation.threshold} if name == "sampled" else {}
    config = config_of(name, pruning, prune_rate=0.7, **more)
    before = written(config, tmp_path / "x.mask")
    file = mask_file.read(tmp_path / "x.mask")
    assert file.config.method == config.method
    network, method = network_of(config)
    mask_file.put_into(network, method, file)
    assert all(torch.equal(one, other) for one, other in zip(before, effective(network), strict=True))


@pytest.mark.parametrize("name", [name for name in METHODS if name not in WITHOUT_WEIGHTS])
def test_methods_that_change_weights_are_refused(name: str, tmp_path: Path) -> None:
    network, method = network_of(config_of(name))
    with pytest.raises(
        ConfigError, match=f"^method={name}: .*; to write them, as in: python -m hidden_subnet export RUN$"
    ):
        mask_file.write(network, method, RESULT, 1, tmp_path / "x.mask", None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("evaluation", [Evaluation.sample, Evaluation.mean])
def test_masks_that_do_not_give_the_weights_are_refused(evaluation: Evaluation, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^method=sampled: its masks alone do not give its weights again"):
        written(config_of("sampled", evaluation=evaluation), tmp_path / "x.mask")


def test_levels_written_out() -> None:
    levels = {"a": torch.tensor([0, 1, -1, 0, 3, 1, 2, 0], dtype=torch.int8).numpy()}
    planes = [bits.astype(int).tolist() for bits in mask_file._planes(levels["a"])]
    assert planes == [[0, 1, 1, 0, 1, 1, 1, 0], [1, 0, 1, 1, 1], [0, 1, 0, 1], [1, 0]]
    code, sizes = mask_file._encoded(levels)
    layers = [(path, size, [(ones, length) for ones, length in planes]) for path, size, planes in sizes]
    assert mask_file._decoded(code, layers)["a"].tolist() == levels["a"].tolist()


def test_size(tmp_path: Path) -> None:
    """The masks are within 3 % of their information; the rest is names and settings."""
    config = config_of("edge_popup", "global", prune_rate=0.7)
    network, method = network_of(replace(config, model=Model(name="fc")))
    mask_file.write(network, method, RESULT, 1, tmp_path / "x.mask", None)
    file = mask_file.read(tmp_path / "x.mask")
    bits = sum(information(size, planes[0][0]) for _, size, planes in file.layers)
    assert 8 * len(file.code) <= 1.05 * bits  # of 20,000 weights; tests/masks/test_coding.py has a million
    assert (tmp_path / "x.mask").stat().st_size < len(file.code) + 8000


def test_a_run_comes_back_in_another_process(tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    folder = undisturbed("edge_popup")
    path = hidden_subnet.save_masks(folder, tmp_path / "x.mask")
    result = files.read_result(folder)
    assert result is not None
    code = (
        "import sys, hidden_subnet; model = hidden_subnet.load(sys.argv[1]);"
        "images, labels = hidden_subnet.test_images(sys.argv[2]);"
        "print((model(images).argmax(1) == labels).double().mean().item())"
    )
    said = subprocess.run([sys.executable, "-c", code, path, folder], capture_output=True, text=True, check=True)
    assert float(said.stdout) == result["last"]["test"]["top1"]
    of_run, of_file = hidden_subnet.load(folder).state_dict(), hidden_subnet.load(path).state_dict()
    assert all(torch.equal(of_run[name], of_file[name]) for name in of_run)
    masks = hidden_subnet.load_masks(folder)
    assert all(torch.equal(mask, masks[name]) for name, mask in hidden_subnet.load_masks(path).items())


def test_what_the_seed_does_not_give_is_in_the_file(tmp_path: Path) -> None:
    config = replace(small(tmp_path), model=Model(name="cifar_resnet18", width=1 / 16, norm=Norm.batch))
    outcome = execute(config, QUIET)
    assert outcome.result is not None, outcome.message
    path = hidden_subnet.save_masks(outcome.folder)
    assert path == outcome.folder / "last.mask"
    of_run, of_file = hidden_subnet.load(outcome.folder).state_dict(), hidden_subnet.load(path).state_dict()
    assert of_run.keys() == of_file.keys()
    assert all(torch.equal(of_run[name], of_file[name]) for name in of_run)
    assert "stem_norm.running_mean" in mask_file.read(path).others
    assert str(tmp_path) not in path.read_bytes().decode(errors="ignore")  # no folder of the one who made it


def test_other_weights_are_refused_with_both_digests(tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    path = hidden_subnet.save_masks(undisturbed("edge_popup"), tmp_path / "x.mask")
    state = checkpoints.load(path)
    checkpoints.save(path, {**state, "weights_sha256": "f" * 64, "torch": "1.0"})
    with pytest.raises(ValueError, match=r"torch 1\.0, .*\(sha256 [0-9a-f]{12}, and f{12} then\)"):
        hidden_subnet.load(path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "x"}, "is not a file of masks"),
        ({"layers": []}, "of another network"),
        ({"layers": "x"}, "is damaged"),
        ({"layers": [["a", 10**15, [[1, 1]]]]}, "of another network"),
        ({"code": torch.zeros(0, dtype=torch.uint8)}, "is damaged"),
        ({"epoch": "x"}, "is damaged"),
        ({"config": {}}, "is damaged"),
        ({"config": {"method": {"name": "no_such"}}}, "no_such"),
        ({"others": {"x": torch.zeros(1)}}, "of another network"),
    ],
)
def test_files_of_others_are_refused_in_one_line(
    changes: dict[str, Any], says: str, tmp_path: Path, undisturbed: Callable[[str], Path]
) -> None:
    path = hidden_subnet.save_masks(undisturbed("edge_popup"), tmp_path / "x.mask")
    checkpoints.save(path, {**checkpoints.load(path), **changes})
    with pytest.raises(ValueError, match=says) as caught:
        hidden_subnet.load(path)
    assert "\n" not in str(caught.value)


def test_a_huge_network_is_refused_before_it_takes_memory(tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    path = hidden_subnet.save_masks(undisturbed("edge_popup"), tmp_path / "x.mask")
    state = checkpoints.load(path)
    state["config"]["model"]["width"] = 100.0
    checkpoints.save(path, state)
    with pytest.raises(ValueError, match="and at most 1,000,000,000 are built from a file"):
        hidden_subnet.load(path)


def test_a_network_of_a_library_has_its_size(tmp_path: Path) -> None:
    """RegNet cannot be built without numbers."""
    written(config_of("edge_popup"), tmp_path / "x.mask")
    file = mask_file.read(tmp_path / "x.mask")
    model = Model(name="regnet_x_400mf", library=Library.torchvision)
    mask_file.refuse_huge(replace(file, config=replace(file.config, model=model)))


def test_damage_is_noticed(tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    path = hidden_subnet.save_masks(undisturbed("edge_popup"), tmp_path / "x.mask")
    content = path.read_bytes()
    middle = len(content) // 2  # within the masks; elsewhere may be filling
    flipped = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
    for wrong in (content[:-100], content[:100], b"", flipped):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match="is damaged"):
            mask_file.read(path)


def test_the_command_says_what_it_wrote(
    tmp_path: Path, undisturbed: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["mask", str(undisturbed("edge_popup")), "--to", str(tmp_path / "x.mask")])
    assert ended.value.code == 0
    said = capsys.readouterr().out.splitlines()
    size = (tmp_path / "x.mask").stat().st_size
    assert said[0].startswith(f"wrote {tmp_path / 'x.mask'}: {size:,} bytes, of which masks ")
    assert said[2] == f'read it with: model = hidden_subnet.load("{tmp_path / "x.mask"}")'
