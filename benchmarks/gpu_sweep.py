"""A sweep of 45 runs of conv4 on one GPU, against a plain script that trains one after the other."""

import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy
import torch

from benchmarks.runs import ROOT, launch
from benchmarks.timing import Row
from hidden_subnet.data.idx import FILES, FIRST_TEST_LABELS

TOPIC = "H100: conv4, 9 prune rates x 5 seeds, in bf16"


def rows(device: str, width: float, images: int, batch: int, epochs: int, rates: int, seeds: int) -> list[Row]:
    """`images` to train on, of random pixels, 10,000 to evaluate on; `device` may be cpu to try it out."""
    named = (
        ("the sweep, from the command to its table", "min", 20.0, False),
        (f"the script, one run x {rates * seeds}", "min", None, False),
        ("script / sweep", "x", 2.5, True),
    )
    if device == "cuda" and not torch.cuda.is_available():
        measured: list[list[float]] = [[], [], []]
    else:
        sweep = _sweep(device, width, images, batch, epochs, rates, seeds)
        script = _script(device, width, images, batch, epochs)
        measured = [[sweep / 60], [rates * seeds * script / 60], [rates * seeds * script / sweep]]
    return [
        Row(topic=TOPIC, name=name, unit=unit, samples=samples, goal=goal, at_least=least, note="no GPU")
        for (name, unit, goal, least), samples in zip(named, measured, strict=True)
    ]


def _sweep(device: str, width: float, images: int, batch: int, epochs: int, rates: int, seeds: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        _write_images(Path(folder) / "data")
        fast = ["train.precision=bf16", "train.cuda_graph=true", "hydra.launcher.jobs_per_gpu=auto"]
        fast = fast if device == "cuda" else []  # some CPUs have no bfloat16
        start = perf_counter()
        launch(
            "-m",
            f"prune_rate={','.join(str((index + 1) / 10) for index in range(rates))}",
            f"seed=range({seeds})",
            *("model=conv4", f"model.width={width}", "data=fashion_mnist", "data.pad=2", f"data.root={folder}/data"),
            *(f"data.validation={1 / 6:.6f}", f"data.fraction={images / 50_000}", "data.crop=4", "data.flip=true"),
            *(f"train.epochs={epochs}", f"train.batch_size={batch}", f"train.device={device}"),
            *("train.channels_last=true", "tracker=none", f"out={folder}/runs", *fast),
        )
        return perf_counter() - start


def _write_images(folder: Path) -> None:
    """In the place of Fashion-MNIST: what is timed does not depend on the pixels."""
    folder.mkdir()
    source = numpy.random.RandomState(0)
    for file, count in zip(FILES, (60_000, 60_000, 10_000, 10_000), strict=True):
        if "images" in file:
            content = struct.pack(">IIII", FILES[file], count, 28, 28) + source.bytes(count * 28 * 28)
        else:
            labels = (numpy.arange(count) % 10).astype(numpy.uint8).tobytes()
            first = FIRST_TEST_LABELS["fashion_mnist"] if file.startswith("t10k") else b""
            content = struct.pack(">II", FILES[file], count) + first + labels[len(first) :]
        (folder / file).write_bytes(content)


def _script(device: str, width: float, images: int, batch: int, epochs: int) -> float:
    command = [sys.executable, "-m", "benchmarks.plain_script", device, *map(str, (width, images, batch, epochs))]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout))
