"""Figures of a GPU: masks of all layers, steps against their floor, images a second, waits for the host."""

import warnings
from collections.abc import Callable, Iterator
from time import perf_counter

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from benchmarks.network import CIFAR, Shape, batch_of, network, trainer_of
from benchmarks.timing import Row, by_turns, ratios
from hidden_subnet.config.registries import METHODS
from hidden_subnet.config.settings import Config, Init, Model, Pruning, Train
from hidden_subnet.data.catalog import INFO
from hidden_subnet.data.in_memory import Batches
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.methods.apply import apply_method
from hidden_subnet.methods.base import Method
from hidden_subnet.training.acceleration import FIRST
from hidden_subnet.training.metrics import MetricSums
from hidden_subnet.training.trainer import Trainer

IMAGENET: Shape = (3, 224, 224)
WANTED = (
    ("mask of all layers of resnet50", "us", 300.0, False),
    ("step of conv4, bf16: ours / without masks", "x", 1.05, False),
    ("step of resnet50, bf16: ours / without masks", "x", 1.05, False),
    ("conv4, bf16", "images/s", 120_000.0, True),
    ("conv4, bf16: 100 epochs of 50,000", "s", 45.0, False),
    ("host synchronisations a step", "", 0.0, False),
)
TOPIC = "H100"


def rows(device: str, width: float, batch: int, images: int, steps: int, rounds: int) -> list[Row]:
    """`device` may be cpu to try it out."""
    if device == "cuda" and not torch.cuda.is_available():
        return [
            Row(topic=TOPIC, name=name, unit=unit, samples=[], goal=goal, at_least=at_least, note="no GPU")
            for name, unit, goal, at_least in WANTED
        ]
    per_second = _images_per_second(device, width, batch, images, rounds)
    measured = [
        _mask(device, width, steps, rounds),
        _step("conv4", CIFAR, 10, device, width, batch, steps, rounds),
        _step("resnet50", IMAGENET if device == "cuda" else (3, 32, 32), 1000, device, width, batch, steps, rounds),
        per_second,
        [100 * 50_000 / each for each in per_second],
        [_waits(device, width, batch, steps)],
    ]
    return [
        Row(topic=TOPIC, name=name, unit=unit, samples=samples, goal=goal, at_least=at_least)
        for (name, unit, goal, at_least), samples in zip(WANTED, measured, strict=True)
    ]


def _clock(device: str) -> Callable[[], float]:
    def finished() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return perf_counter()

    return finished


def _masked(name: str, shape: Shape, classes: int, device: str, width: float) -> tuple[torch.nn.Module, Method]:
    """As a run masks it, with whatever makes its masks on this device."""
    model = network(name, width, None, shape=shape, classes=classes, bf16=True, channels_last=True, device=device)
    config = Config(
        model=Model(name=name, width=width),
        init=Init(name="signed_constant"),
        pruning=Pruning(name="layerwise"),
        method=METHODS["edge_popup"].settings(),
        train=Train(mask_kernels=device == "cuda"),
    )
    method = apply_method(model, config)
    method.on_epoch_start(0)
    return model, method


def _mask(device: str, width: float, steps: int, rounds: int) -> list[float]:
    """Microseconds from the scores of all layers to their effective weights."""
    model, method = _masked("resnet50", IMAGENET, 1000, device, width)
    layers = [layer for _, layer in masked_layers(model)]

    @torch.no_grad()
    def make() -> None:
        for step in range(steps):
            for layer in layers:  # as an optimizer's step does
                increment_version(layer.scores)
            method.on_step_start(step)
            for layer in layers:
                layer.effective_weight()

    return [1e6 * s / steps for s in by_turns({"": make}, rounds, _clock(device))[""]]


def _step(
    name: str, shape: Shape, classes: int, device: str, width: float, batch: int, steps: int, rounds: int
) -> list[float]:
    """Replayed steps, as with train.cuda_graph: else it is the host that is measured, which launches the kernels."""
    given = batch_of(batch, shape, device)
    floor = network(name, width, None, shape=shape, classes=classes, bf16=True, channels_last=True, device=device)
    rivals = (_masked(name, shape, classes, device, width), (floor, None))
    seconds: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds):
        for which in (0, 1) if i % 2 else (1, 0):
            seconds[which].append(_replaying(*rivals[which], given, device, steps))
    return ratios(*seconds)


def _replaying(
    model: torch.nn.Module, method: Method | None, batch: tuple[Tensor, Tensor], device: str, steps: int
) -> float:
    """Return the seconds of `steps` steps, once a step is recorded."""
    clock, times = _clock(device), []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(FIRST + 1):
            yield batch
        times.append(clock())
        for _ in range(steps):
            yield batch
        times.append(clock())

    _trainer(model, method, len(batch[1]), device).train_epoch(batches())
    return times[1] - times[0]


def _trainer(model: torch.nn.Module, method: Method | None, batch: int, device: str) -> Trainer:
    return trainer_of(model, method, batch_size=batch, device=device, cuda_graph=device == "cuda")


def _images_per_second(device: str, width: float, batch: int, images: int, rounds: int) -> list[float]:
    """Over epochs with their augmentation, each recording its step; the metrics are read once, at the end of each."""
    pixels = torch.randint(0, 256, (images, *CIFAR), dtype=torch.uint8)
    labels = torch.arange(images) % 10
    batches = Batches(pixels, labels, INFO["cifar10"], batch_size=batch, crop=4, flip=True, device=device)
    trainer = _trainer(*_masked("conv4", CIFAR, 10, device, width), batch, device)

    def epoch() -> None:
        trainer.metrics = MetricSums(device)
        trainer.train_epoch(batches.epoch(0, 0))
        trainer.metrics.means()

    return [images / s for s in by_turns({"": epoch}, rounds, _clock(device))[""]]


def _waits(device: str, width: float, batch: int, steps: int) -> float:
    """How often a step of conv4 waits for the device, as torch itself reports it."""
    images, labels = batch_of(batch, CIFAR, device)
    trainer = trainer_of(*_masked("conv4", CIFAR, 10, device, width), batch_size=batch, device=device)
    trainer.network.train()

    def train() -> None:
        for _ in range(steps):
            trainer.train_step(images, labels)

    train()
    if device != "cuda":
        return 0.0
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            train()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(each.message) for each in warned) / steps
