"""Small runs on synthetic images: executed without a word, interrupted, and compared to the last bit."""

import atexit
import shutil
import tempfile
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from hidden_subnet.config.chains import ancestors
from hidden_subnet.config.registries import METHODS, info_of, load_parts
from hidden_subnet.config.settings import Config, Data, Init, Model, Pruning, Train
from hidden_subnet.models.from_config import masked_shapes
from hidden_subnet.seeding import generator
from hidden_subnet.store import checkpoints, files
from hidden_subnet.sweep.execute import RunObserver, execute
from hidden_subnet.training.given_mask import digest_of, resolve_mask

load_parts()

QUIET = RunObserver(on_row=lambda row: None, on_step=lambda epoch, batch, batches: None, say=lambda text: None)
TIMES = ("seconds", "images_per_second")


def small(out: Path, method: str = "edge_popup", **train: Any) -> Config:
    """conv2 at an eighth of its width, 3 epochs of 5 batches (461 images, of which the last batch has 61).

    A method whose mask is given has that of `with_mask`.
    """
    config = Config(
        model=Model(name="conv2", width=0.125),
        init=Init(name="signed_constant"),
        data=Data(name="synthetic", crop=1, flip=True),
        pruning=Pruning(name="layerwise"),
        method=METHODS[method].settings(),
        train=Train(**{"epochs": 3, "batch_size": 100, "lr": 0.1, **train}),
        out=str(out),
    )
    return with_mask(config) if METHODS[method].has_given_mask else config


def with_parents(config: Config) -> Config:
    """Execute the runs from which that of the config starts, and return the config."""
    for each in ancestors(config):
        outcome = execute(each, QUIET)
        assert outcome.state in ("done", "skipped"), outcome.message
    return config


@cache
def _folder_of_masks() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="hidden_subnet-masks-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def with_mask(config: Config, kept: float = 0.5) -> Config:
    """Return the config with a mask, a file, that keeps about the fraction `kept` of each layer; always the same."""
    shapes = masked_shapes(config.model, info_of(config.data))
    masks = {path: torch.rand(shape, generator=generator(0, path)) < kept for path, shape in shapes.items()}
    path = _folder_of_masks() / f"{digest_of(masks)}.safetensors"
    if not path.exists():
        safetensors.torch.save_file(masks, path)
    return resolve_mask(replace(config, mask=str(path), mask_sha256=None))


def rows_without_times(folder: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in files.read_rows(folder)]


def trained(folder: Path, which: str = "last") -> dict[str, torch.Tensor]:
    """Return the tensors in a checkpoint of a run."""
    state: dict[str, torch.Tensor] = checkpoints.load(folder / "checkpoints" / f"{which}.ckpt")["trained"]
    return state


def tensor_byte(path: Path) -> int:
    """Position of a byte of a tensor in a checkpoint: the middle of its largest tensor."""
    with zipfile.ZipFile(path) as found:
        entry = max((each for each in found.infolist() if "/data/" in each.filename), key=lambda each: each.file_size)
        content = found.read(entry)
    return path.read_bytes().index(content) + len(content) // 2


def assert_same_run(one: Path, other: Path) -> None:
    """Compare rows, checkpoints and results, all but times and the environment."""
    assert rows_without_times(one) == rows_without_times(other)
    for which in ("first", "best", "last"):
        a, b = trained(one, which), trained(other, which)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)
    drop = ("seconds", "environment")
    a, b = (files.read_result(folder) for folder in (one, other))
    assert a is not None
    assert b is not None
    assert {k: v for k, v in a.items() if k not in drop} == {k: v for k, v in b.items() if k not in drop}


def interrupt(config: Config, steps: int) -> Path:
    """Execute the run for `steps` steps, as a signal then ends it; return the folder of the attempt."""
    taken: list[int] = []
    outcome = execute(
        config,
        RunObserver(QUIET.on_row, lambda epoch, batch, batches: taken.append(batch), QUIET.say),
        stopped=lambda: len(taken) >= steps,
    )
    assert outcome.state == "interrupted"
    assert len(taken) == steps
    assert not (outcome.folder / files.RESULT).exists()
    return files.working(outcome.folder)
