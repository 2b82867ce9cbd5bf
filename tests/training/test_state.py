"""Where a training stands: packed into a checkpoint and back, and what is said of one from elsewhere."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from hidden_subnet.masks.layers import mask_layers, masked_layers
from hidden_subnet.store import checkpoints, files
from hidden_subnet.training.state import TrainingState, pack, read_state, unpack


def network() -> nn.Sequential:
    """27 and 10 weights: neither number is one of whole bytes."""
    made = nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.Flatten(), nn.Linear(5, 2, bias=False))
    mask_layers(made)
    return made


def state_of(model: nn.Module) -> TrainingState:
    source = torch.Generator().manual_seed(0)
    masks = {path: torch.rand(layer.weight.shape, generator=source) < 0.5 for path, layer in masked_layers(model)}
    return TrainingState(
        epoch=3,
        batch=7,
        step=42,
        seconds=1.5,
        total_seconds=12.25,
        best_epoch=2,
        best_key=(0.875, -0.3),
        masks=masks,
    )


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    model = network()
    state = state_of(model)
    # The seconds of the present epoch are measured by whoever saves.
    checkpoints.save(tmp_path / "state.ckpt", {**pack(state), "seconds": state.seconds})
    found = unpack(checkpoints.load(tmp_path / "state.ckpt"), model)
    assert replace(found, masks={}) == replace(state, masks={})
    assert found.masks.keys() == state.masks.keys() == {"0", "2"}
    for path, mask in state.masks.items():
        assert found.masks[path].dtype == torch.bool
        assert torch.equal(found.masks[path], mask)


def test_every_field_is_packed_and_masks_take_a_bit_per_weight() -> None:
    packed = pack(state_of(network()))
    assert packed.keys() == {field.name for field in fields(TrainingState)} - {"seconds"}
    assert {path: bits.numel() for path, bits in packed["masks"].items()} == {"0": 4, "2": 2}


def test_new_state_is_at_the_beginning_and_below_every_accuracy() -> None:
    state = TrainingState()
    assert (state.epoch, state.batch, state.step, state.best_epoch) == (0, 0, 0, 0)
    assert state.best_key < (0.0, -1e9)
    assert unpack({**pack(state), "seconds": 0.0}, nn.Linear(2, 2)) == state


@pytest.mark.parametrize(
    ("device", "devices", "said"),
    [
        ("cpu", 2, []),
        ("cuda", 2, ["was started on cpu and resumes on cuda"]),
        ("cpu", 1, ["was started with train.devices=2 and resumes with 1"]),
        (
            "mps",
            3,
            ["was started on cpu and resumes on mps", "was started with train.devices=2 and resumes with 3"],
        ),
    ],
)
def test_another_device_is_said(device: str, devices: int, said: list[str], tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    checkpoints.save(tmp_path / "checkpoints" / files.RESUME, {"device": "cpu", "devices": 2})
    lines: list[str] = []
    assert read_state(tmp_path, device, devices, lines.append) == {"device": "cpu", "devices": 2}
    assert [line.partition(":")[0] for line in lines] == said
    assert all(line.endswith("the bits may differ from an undisturbed run's") for line in lines)


def test_without_a_checkpoint_there_is_no_state(tmp_path: Path) -> None:
    lines: list[str] = []
    assert read_state(tmp_path, "cpu", 1, lines.append) is None
    assert lines == []
