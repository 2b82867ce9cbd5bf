"""Checkpoint files: any tool reads them, and no flipped bit or cut passes unseen."""

import hashlib
import io
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.runs import QUIET, small, tensor_byte

from hidden_subnet.store import checkpoints
from hidden_subnet.sweep.execute import execute


def state(n: int = 12) -> dict[str, Any]:
    """The entries of a checkpoint to resume from, with tensors of n elements."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(n, generator=generator)
    return {
        "epoch": 3,
        "best_key": [0.5, -1.25],
        "trained": {"fc1.scores": scores.view(3, -1), "norm.num_batches_tracked": torch.tensor(7)},
        "optimizer": {"state": {0: {"momentum_buffer": scores[:12].clone()}}, "param_groups": [{"nesterov": False}]},
        "masks": {"fc1": torch.tensor([3, 5], dtype=torch.uint8)},
        "method": {"kept": torch.zeros(0), "rule": None, "rate": (1, 1.0, True)},
    }


def written(tmp_path: Path, content: dict[str, Any]) -> Path:
    """The path of a checkpoint in the folder of a run."""
    path = tmp_path / "run" / "checkpoints" / "x.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoints.save(path, content)
    return path


def outcome(content: bytes, expected: dict[str, Any]) -> str:
    """Load what a file holds: "damaged", "harmless", or an exception for what is neither."""
    try:
        found = checkpoints.decode(content, Path("x.ckpt"))
    except checkpoints.DamagedError:
        return "damaged"
    assert found.keys() == expected.keys()
    assert repr(found) == repr(expected)
    assert checkpoints.digest(found) == checkpoints.digest(expected)
    return "harmless"


def with_a_bit_flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_torch_alone_reads_a_checkpoint(tmp_path: Path) -> None:
    found = torch.load(written(tmp_path, state()), weights_only=True)
    assert torch.equal(found["trained"]["fc1.scores"], state()["trained"]["fc1.scores"])
    assert found.keys() == {*state(), "sha256"}
    assert len(found["sha256"]) == 64


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    found = checkpoints.load(written(tmp_path, state()))
    assert repr(found) == repr(state())
    assert found["method"]["rate"] == (1, 1.0, True)
    there = checkpoints.load(written(tmp_path, state()), "meta")
    assert there["trained"]["fc1.scores"].device.type == "meta"
    assert there.keys() == state().keys()


def test_a_checkpoint_that_another_tool_wrote_again_is_loaded(tmp_path: Path) -> None:
    path = written(tmp_path, state())
    torch.save(torch.load(path), path)
    assert repr(checkpoints.load(path)) == repr(state())


def test_the_old_framing_is_read(tmp_path: Path) -> None:
    """A line, the sha256 of the rest, and what torch.save wrote: the checkpoints of 0.1.0."""
    buffer = io.BytesIO()
    torch.save(state(), buffer)
    payload = buffer.getvalue()
    content = b"hidden_subnet 1\n" + hashlib.sha256(payload).digest() + payload
    assert outcome(content, state()) == "harmless"
    for bit in range(0, 8 * len(content), 501):
        assert outcome(with_a_bit_flipped(content, bit), state()) == "damaged"


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 43])
def test_flipped_bits_of_a_small_file_are_detected_or_harmless(step: int, tmp_path: Path) -> None:
    content = written(tmp_path, state()).read_bytes()
    found = [outcome(with_a_bit_flipped(content, bit), state()) for bit in range(0, 8 * len(content), step)]
    assert {*found} == {"damaged", "harmless"}


def test_flipped_bits_of_a_large_file_are_detected_or_harmless(tmp_path: Path) -> None:
    large = state(600_000)
    content = written(tmp_path, large).read_bytes()
    assert len(content) > 2_000_000
    ends = [*range(8 * 1500), *range(8 * (len(content) - 1500), 8 * len(content))]
    rng = random.Random(0)
    bits = rng.sample(ends, 150) + rng.sample(range(8 * len(content)), 50)
    assert {outcome(with_a_bit_flipped(content, bit), large) for bit in bits} == {"damaged", "harmless"}


def test_every_truncation_is_detected(tmp_path: Path) -> None:
    content = written(tmp_path, state()).read_bytes()
    assert {outcome(content[:size], state()) for size in range(len(content))} == {"damaged"}
    large = written(tmp_path, state(600_000)).read_bytes()
    sizes = [*random.Random(0).sample(range(len(large)), 50), len(large) - 1]
    assert {outcome(large[:size], state()) for size in sizes} == {"damaged"}


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 4},
        {"epoch": 3.0},
        {"epoch": True},
        {"epoch": "3"},
        {"best_key": (0.5, -1.25)},
        {"masks": {"fc2": torch.tensor([3, 5], dtype=torch.uint8)}},
        {"masks": {"fc1": torch.tensor([3, 5], dtype=torch.int8)}},
        {"masks": {"fc1": torch.tensor([[3], [5]], dtype=torch.uint8)}},
        {"more": None},
    ],
)
def test_the_digest_covers_names_types_shapes_and_values(change: dict[str, Any]) -> None:
    assert checkpoints.digest({**state(), **change}) != checkpoints.digest(state())


def test_the_newest_whole_file_is_loaded(tmp_path: Path) -> None:
    path = written(tmp_path, {**state(), "epoch": 1})
    checkpoints.save(path, {**state(), "epoch": 2}, keep_previous=True)
    found, complaints = checkpoints.load_newest(path)
    assert found is not None
    assert (found["epoch"], complaints) == (2, [])
    content = path.read_bytes()
    path.write_bytes(with_a_bit_flipped(content, 8 * tensor_byte(path)))
    found, [complaint] = checkpoints.load_newest(path)
    assert found is not None
    assert found["epoch"] == 1
    assert complaint == f"{path} is damaged: its digest does not match its content"


def test_0_1_0_refuses_a_run_with_such_checkpoints(tmp_path: Path) -> None:
    """It would take them for damaged ones and start from the beginning; it reads config.yaml first, and stops there.

    Its Data has none of these settings, and it refuses a config.yaml with one that it does not know.
    """
    settings = yaml.safe_load((execute(small(tmp_path, "random"), QUIET).folder / "config.yaml").read_text())
    assert "trust_names" in settings["data"]
