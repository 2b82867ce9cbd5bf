"""What is asked of an H100: masks of all layers, steps against their floor, images a second, waits for the host."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from benchmarks.network import CIFAR, Shape, batch_of, network, optimizer_of
from benchmarks.timing import Row, by_turns, ratios
from hidden_subnet.course import Course
from hidden_subnet.data.batches import Batches
from hidden_subnet.data.info import INFO
from hidden_subnet.layers import masked_layers
from hidden_subnet.settings import Config, EdgePopup, Init, InitName, Model, Pruning, PruningName
from hidden_subnet.step_graph import FIRST, recorded
from hidden_subnet.subnetwork import put_masks
from hidden_subnet.training import Step, Sums, train_epoch

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


def _masked(name: str, shape: Shape, classes: int, device: str, width: float) -> tuple[torch.nn.Module, Course]:
    """As a run masks it, with whatever makes its masks on this device."""
    model = network(name, width, None, shape=shape, classes=classes, bf16=True, channels_last=True, device=device)
    config = Config(
        model=Model(name=name, width=width),
        init=Init(name=InitName.signed_constant),
        pruning=Pruning(name=PruningName.layerwise),
        method=EdgePopup(),
    )
    course = put_masks(model, config)
    course.begin_epoch(0)
    return model, course


def _mask(device: str, width: float, steps: int, rounds: int) -> list[float]:
    """Microseconds from the scores of all layers to their effective weights."""
    model, course = _masked("resnet50", IMAGENET, 1000, device, width)
    layers = [layer for _, layer in masked_layers(model)]

    @torch.no_grad()
    def make() -> None:
        for step in range(steps):
            for layer in layers:  # as an optimizer's step does
                increment_version(layer.scores)
            course.before_step(step)
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
    model: torch.nn.Module, course: Course | None, batch: tuple[Tensor, Tensor], device: str, steps: int
) -> float:
    """Seconds of so many steps, once a step is recorded."""
    clock, times = _clock(device), []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(FIRST + 1):
            yield batch
        times.append(clock())
        for _ in range(steps):
            yield batch
        times.append(clock())

    sums = Sums(device)
    optimizer, faster = optimizer_of(model), _graph(device, len(batch[1]))
    train_epoch(model, batches(), optimizer, 0.0, sums, lambda: None, _before(course), faster=faster)
    return times[1] - times[0]


def _before(course: Course | None) -> Callable[[], None]:
    return lambda: None if course is None else course.before_step(0)


def _graph(device: str, size: int) -> Callable[[Step], Step]:
    return partial(recorded, size=size) if device == "cuda" else lambda step: step


def _images_per_second(device: str, width: float, batch: int, images: int, rounds: int) -> list[float]:
    """Over epochs with their augmentation, each recording its step; the metrics are read once, at the end of each."""
    pixels = torch.randint(0, 256, (images, *CIFAR), dtype=torch.uint8)
    labels = torch.arange(images) % 10
    batches = Batches(pixels, labels, INFO["cifar10"], batch_size=batch, crop=4, flip=True, device=device)
    model, course = _masked("conv4", CIFAR, 10, device, width)
    optimizer, before = optimizer_of(model), _before(course)

    def epoch() -> None:
        sums, faster = Sums(device), _graph(device, batch)
        train_epoch(model, batches.epoch(0, 0), optimizer, 0.0, sums, lambda: None, before, faster=faster)
        sums.means()

    return [images / s for s in by_turns({"": epoch}, rounds, _clock(device))[""]]


def _waits(device: str, width: float, batch: int, steps: int) -> float:
    """How often a step of conv4 waits for the device, as torch itself reports it."""
    (model, course), (images, labels) = _masked("conv4", CIFAR, 10, device, width), batch_of(batch, CIFAR, device)
    optimizer, sums = optimizer_of(model), Sums(device)

    def train() -> None:
        train_epoch(model, [(images, labels)] * steps, optimizer, 0.0, sums, lambda: None, _before(course))

    train()
    if device != "cuda":
        return 0.0
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            train()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(each.message) for each in told) / steps
