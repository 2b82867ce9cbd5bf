"""Speed of the training of a run on this machine, from a few steps on random images."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import torch
from torch import Tensor

from hidden_subnet.config.registries import method_traits
from hidden_subnet.config.settings import Config
from hidden_subnet.methods.apply import apply_method
from hidden_subnet.training.devices import deterministic
from hidden_subnet.training.experiment import Resolved, build_network, resolve
from hidden_subnet.training.metrics import evaluate
from hidden_subnet.training.trainer import Trainer

WARM = 10
"""Steps before the time is taken, in which code is compiled, and between two looks at the clock."""
LOOK = 0.3
"""Seconds that a step may take while a run is looked at; the time of a larger batch follows."""
EVALUATED = 256
"""Images for which an evaluation is measured."""
ENOUGH, STEPS = 0.06, 3
"""Seconds, and number, of steps of one size."""


def steps_per_second(config: Config, seconds: float, wait: Callable[[], object]) -> float:
    """Measure training steps per second on random images; `wait` returns when all other processes are ready too."""
    run = resolve(config)
    trainer = _trainer(run)
    batch = _batch(run, config.train.batch_size)
    marks: list[tuple[int, float]] = []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for step in count():
            if step == WARM:
                _now(run)
                wait()
                marks.append((step, _now(run)))
            # Seldom, since it waits for the GPU.
            elif step > WARM and step % WARM == 0 and _now(run) - marks[0][1] >= seconds:
                marks.append((step, _now(run)))
                return
            yield batch

    trainer.train_epoch(batches())
    (first, began), (last, ended) = marks
    return (last - first) / (ended - began)


@dataclass(frozen=True)
class Speed:
    """Seconds that an image takes."""

    trained: float
    """In a training step; 0 where nothing is trained."""
    evaluated: float


def look(config: Config, device: str) -> Speed:
    """Measure the speed of a run by a few steps; a step of many images is measured on some of them.

    What the run asks to be compiled or captured is not. With the threads that torch has now.
    """
    plain = replace(config, train=replace(config.train, compile=False, cuda_graph=False))
    run = resolve(plain, device)
    trainer = _trainer(run)

    def step(images: int) -> float:
        began = _now(run)
        trainer.train_epoch([_batch(run, images)])
        return _now(run) - began

    def evaluation(images: int) -> float:
        began = _now(run)
        trainer.method.on_evaluation(0)
        evaluate(trainer.network, [_batch(run, images)], run.device)
        return _now(run) - began

    batch = config.train.batch_size
    trained = _of_batch(step, batch) / batch if method_traits(config).is_trained() else 0.0
    return Speed(trained, _of_batch(evaluation, EVALUATED) / EVALUATED)


def _of_batch(timed: Callable[[int], float], batch: int) -> float:
    """Return the seconds of `batch` images; those of a large batch follow from two smaller ones.

    A part of the time, as that of masks and of the optimizer, is the same for any number of images.
    """
    few, more = 2, min(batch, 8)  # batch norm wants two values
    seconds = {few: _fastest(partial(timed, few))}
    while True:
        seconds[more] = _fastest(partial(timed, more))
        if more >= batch:
            return seconds[batch]
        each = max(seconds[more] - seconds[few], 1e-9) / (more - few)
        if seconds[more] + each * more > LOOK:
            return seconds[more] + each * (batch - more)
        more = min(batch, 4 * more)


def _fastest(timed: Callable[[], float]) -> float:
    """Return the least of several times: what the others have more, another program or a first call has taken."""
    times = [timed() for _ in range(STEPS)]
    while sum(times) < ENOUGH:
        times.append(timed())
    return min(times)


def _trainer(run: Resolved) -> Trainer:
    deterministic(run.device)
    network = build_network(run).network
    return Trainer(network, apply_method(network, run.config), run.config.train, run.device)


def _batch(run: Resolved, size: int) -> tuple[Tensor, Tensor]:
    images = torch.rand(size, *run.info.shape, device=run.device)
    return images, torch.arange(size, device=run.device) % run.info.classes


def _now(run: Resolved) -> float:
    if run.device == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()
