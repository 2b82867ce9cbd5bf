"""Training a run from where it stands to its last epoch: rows, checkpoints, stopping and going on."""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import numpy
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hidden_subnet import checkpoints, record
from hidden_subnet.course import Course
from hidden_subnet.data.interfaces import WHOLE, EvaluationImages, TrainingImages, rows, shared
from hidden_subnet.identity import seed_of
from hidden_subnet.layers import masked_layers
from hidden_subnet.norm import take_statistics
from hidden_subnet.optimizers import make_optimizer
from hidden_subnet.ranks import ALONE, Team
from hidden_subnet.schedules import learning_rate
from hidden_subnet.seeding import derive
from hidden_subnet.settings import Config, Library, Train
from hidden_subnet.speed import compiled
from hidden_subnet.step_graph import recorded
from hidden_subnet.subnetwork import current_masks, flips, load_trained, trained_state, weights_from_seed
from hidden_subnet.training import Metrics, Step, Sums, evaluate, train_epoch
from hidden_subnet.weights import Fit

Row = dict[str, float]


class Faster(TypedDict):
    """Of train_epoch's arguments."""

    forward: Callable[[Tensor], Tensor] | None
    faster: Callable[[Step], Step]


GO_ON, SAVE, STOP = range(3)
"""What rank 0 may decide after a step; before a batch of an evaluation, not to save."""


class InterruptedRun(Exception):
    """The run was asked to stop, and saved what going on needs."""


@dataclass(frozen=True)
class Hooks:
    """What the world around a run may see and say; none of it can change the result."""

    on_row: Callable[[Row], None]
    on_step: Callable[[int, int, int], None]
    """(epoch, batch, batches in an epoch), counted from 1."""
    should_stop: Callable[[], bool]
    say: Callable[[str], None]


@dataclass
class Progress:
    """Where the training stands; with the trained tensors and the optimizer it is all that going on needs.

    No random state: the order and augmentation of an epoch are functions of (seed, epoch).
    """

    sums: Sums
    epoch: int = 0
    """Finished epochs."""
    batch: int = 0
    """Finished batches of the current epoch."""
    step: int = 0
    seconds: float = 0.0
    """Of the current epoch, before the last interruption."""
    total_seconds: float = 0.0
    best_epoch: int = 0
    best_key: tuple[float, float] = (-1.0, 0.0)
    masks: dict[str, Tensor] = field(default_factory=dict)
    """As they were when the current epoch began."""


@dataclass(frozen=True)
class Parts:
    config: Config
    folder: Path
    model: nn.Module
    course: Course
    device: str
    train: TrainingImages
    validation: EvaluationImages | None
    test: EvaluationImages
    parameters: int
    weights: str
    """Digest of the weights before training."""
    team: Team = ALONE
    pretrained: Fit | None = None
    """What of the file pretrained= fitted; None where the weights are random."""
    before_batch: Callable[[], None] = lambda: None
    """Called before each batch of an evaluation; raises InterruptedRun to stop there."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds of the network."""
        return trained_state(self.model, frozen=not weights_from_seed(self.config))

    def save(self, name: str, epoch: int, **more: Any) -> None:
        """Write a checkpoint, once for all ranks."""
        if self.team.leads:
            state = {"epoch": epoch, "trained": self.state(), **more}
            checkpoints.save(self.folder / "checkpoints" / name, state)

    def measured(self, images: EvaluationImages) -> Metrics:
        """Of the network as it is now; every rank measures its part."""
        return evaluate(self.model, images, self.device, self.team.total, self.before_batch)


def fit(
    parts: Parts, untrained: dict[str, Any], saved: dict[str, Any] | None, hooks: Hooks
) -> tuple[Progress, Callable[[], None]]:
    """Train to the last epoch; where it stands then, and what saves that as it saves an interrupted training."""
    train, model, folder, course, team = parts.config.train, parts.model, parts.folder, parts.course, parts.team
    optimizer = make_optimizer(model, train)
    progress = Progress(Sums(parts.device))
    if saved is not None:
        _go_on(parts, optimizer, progress, saved)
        hooks.say(f"goes on after epoch {progress.epoch}, batch {progress.batch}")
    else:
        progress.masks = current_masks(model)
        row = first_row(parts, untrained)
        if team.leads:
            record.keep_rows(folder, 0)
            record.append_row(folder, row)
            hooks.on_row(row)
            checkpoints.save(folder / "checkpoints" / record.FIRST, {"epoch": 0, "trained": parts.state()})
    trained = team.trained(model)
    faster = faster_steps(model, train)

    saved_at = epoch_at = time.monotonic()

    def save() -> None:
        nonlocal saved_at
        seconds = progress.seconds + time.monotonic() - epoch_at
        _save_state(parts, optimizer, progress, seconds)
        saved_at = time.monotonic()

    def after_step() -> None:
        progress.batch += 1
        progress.step += 1
        hooks.on_step(progress.epoch + 1, progress.batch, len(parts.train))
        due = time.monotonic() - saved_at >= 60 * parts.config.checkpoint.minutes
        decision = team.agree(STOP if hooks.should_stop() else SAVE if due else GO_ON)
        if decision == STOP:
            save()
            raise InterruptedRun(f"stopped and saved in epoch {progress.epoch + 1} after batch {progress.batch}")
        if decision == SAVE:
            save()

    while progress.epoch < train.epochs:
        epoch_at = time.monotonic()
        lr = learning_rate(
            progress.epoch,
            schedule=train.schedule.name,
            lr=train.lr,
            epochs=train.epochs,
            warmup_epochs=train.warmup_epochs,
            milestones=train.milestones,
            gamma=train.gamma,
        )
        for group in optimizer.param_groups:
            group["lr"] = lr
        batches = parts.train.epoch(seed_of(parts.config, "data"), progress.epoch, start=progress.batch)
        if parts.config.model.library is Library.torchvision:
            batches = _reseeded(batches, seed_of(parts.config, "data"), progress.epoch, progress.batch, team.rank)
        course.begin_epoch(progress.epoch)
        train_epoch(
            trained,
            batches,
            optimizer,
            train.label_smoothing,
            progress.sums,
            after_step,
            before_step=lambda: course.before_step(progress.step),
            penalty=course.penalty,
            weights=_weights(parts, progress.batch) if team.size > 1 else None,
            **faster,
        )
        try:
            row = _finish_epoch(parts, progress, lr, epoch_at)
        except InterruptedRun:
            save()
            raise InterruptedRun(f"stopped and saved in the evaluation after epoch {progress.epoch + 1}") from None
        if team.leads:
            record.append_row(folder, row)
            hooks.on_row(row)
    return progress, save


def faster_steps(model: nn.Module, train: Train) -> Faster:
    """What train.compile and train.cuda_graph make of the steps."""
    return {
        "forward": compiled(model, train.batch_size) if train.compile else None,
        "faster": partial(recorded, size=train.batch_size) if train.cuda_graph else lambda step: step,
    }


def _weights(parts: Parts, start: int) -> Iterator[float]:
    """Of this rank's mean loss in each batch from `start` on, so that the mean over the ranks is that of the batch."""
    n, size = parts.train.images_in_epoch, parts.config.train.batch_size
    for first in range(start * size, n, size):
        whole = min(size, n - first)
        mine = rows(0, whole, parts.team.share)
        yield (mine.stop - mine.start) * parts.team.size / whole


def _reseeded(
    batches: Iterator[tuple[Tensor, Tensor]], seed: int, epoch: int, start: int, rank: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """torchvision's dropout and stochastic depth draw from torch's global stream: each step and rank has its own."""
    for index, batch in enumerate(batches, start=start):
        torch.manual_seed(derive(seed, "dropout", epoch, index, *([rank] if rank else [])))
        yield batch


def renew_norm(config: Config, model: nn.Module, train: TrainingImages) -> None:
    """The statistics of batch norm from the first batches of epoch 0, augmented as in training, if so configured.

    Always the same batches, and what was is forgotten, so that the result is a function of the network; it stays,
    as training only writes running statistics and never reads them, and is what a checkpoint holds.
    """
    if config.train.norm_batches:
        train = shared(train, WHOLE)
        take_statistics(model, itertools.islice(train.epoch(seed_of(config, "data"), 0), config.train.norm_batches))


def _finish_epoch(parts: Parts, progress: Progress, lr: float, epoch_at: float) -> Row:
    """Measure, keep the best, and move `progress` to the start of the next epoch."""
    trained = progress.sums.means(parts.team.total)
    # The scores too: with scores that are no numbers nothing is kept, and the loss of a network of zeros is finite.
    finite = all(bool(torch.isfinite(value).all()) for value in parts.state().values())
    if not (math.isfinite(trained.loss) and finite):
        raise FloatingPointError(
            f"the training diverged in epoch {progress.epoch + 1} (loss {trained.loss:g}"
            f"{'' if finite else ', what is trained is not finite'}); try a train.lr below {lr:g}"
        )
    epoch = progress.epoch + 1
    parts.course.before_evaluation(epoch)
    parts.team.same_norms(parts.model)
    if parts.validation:
        renew_norm(parts.config, parts.model, parts.train)
    validation = parts.measured(parts.validation) if parts.validation else None
    masks = current_masks(parts.model)
    rated = epoch >= parts.course.first_best
    if validation is not None and rated and (key := (validation.top1, -validation.loss)) > progress.best_key:
        progress.best_epoch, progress.best_key = epoch, key
        parts.save(record.BEST, epoch, validation=asdict(validation), train=asdict(trained))
    if (every := parts.config.checkpoint.every) and epoch % every == 0:
        parts.save(record.checkpoint_name(epoch), epoch)
    seconds = progress.seconds + time.monotonic() - epoch_at
    row: Row = {
        "epoch": epoch,
        "step": progress.step,
        "lr": lr,
        **_named("train", trained),
        **(_named("validation", validation) if validation else {}),
        **_of_masks(parts, masks, progress.masks),
        **parts.course.measured(),
        "seconds": seconds,
        "images_per_second": parts.train.images_in_epoch / seconds,
    }
    progress.epoch, progress.batch, progress.seconds, progress.masks = epoch, 0, 0.0, masks
    progress.total_seconds += seconds
    progress.sums = Sums(parts.device)
    return row


def first_row(parts: Parts, untrained: dict[str, Any]) -> Row:
    first = parts.measured(parts.validation) if parts.validation else None
    under = untrained["first_mask"] or untrained["unpruned"]
    named = _named("validation", first) if first else {f"test/{key}": value for key, value in under.items()}
    return {"epoch": 0, "step": 0, **named, **_of_masks(parts, current_masks(parts.model)), **parts.course.measured()}


def densities(parts: Parts, masks: dict[str, Tensor]) -> Row:
    """Fractions kept: of the weights in masked layers, and of all parameters (a dense network keeps all)."""
    return _densities(parts, _kept(masks), sum(mask.numel() for mask in masks.values()))


def _of_masks(parts: Parts, masks: dict[str, Tensor], before: dict[str, Tensor] | None = None) -> Row:
    """Densities and, with the masks of the epoch `before`, flip rates: in all and `<name>/<layer>`; each read once."""
    sizes, kept = {path: mask.numel() for path, mask in masks.items()}, _kept(masks)
    row = _densities(parts, kept, weights := sum(sizes.values()))
    row |= {f"density/{path}": kept[path] / size for path, size in sizes.items()}
    if before:
        changed = flips(before, masks)
        row["flip_rate"] = sum(changed.values()) / weights
        row |= {f"flip_rate/{path}": changed[path] / size for path, size in sizes.items()}
    return row


def _kept(masks: dict[str, Tensor]) -> dict[str, int]:
    return {path: int(mask.count_nonzero()) for path, mask in masks.items()}


def _densities(parts: Parts, kept: dict[str, int], weights: int) -> Row:
    count = sum(kept.values())
    return {
        "density": count / weights if kept else 1.0,
        "density_all": (count + parts.parameters - weights) / parts.parameters,
    }


def _named(name: str, metrics: Metrics) -> Row:
    return {f"{name}/{key}": value for key, value in asdict(metrics).items()}


def saved_state(folder: Path, device: str, devices: int, say: Callable[[str], None]) -> dict[str, Any] | None:
    state, complaints = checkpoints.load_newest(folder / "checkpoints" / record.RESUME, device)
    for complaint in complaints:
        say(f"{complaint}; goes on from the one before it" if state else f"{complaint}; starts anew")
    if state is not None and state["device"] != device:
        say(f"was begun on {state['device']} and goes on on {device}: the bits may differ from an undisturbed run's")
    if state is not None and state.get("devices", 1) != devices:
        say(
            f"was begun with train.devices={state.get('devices', 1)} and goes on with {devices}: the bits may differ "
            "from an undisturbed run's"
        )
    return state


def _save_state(parts: Parts, optimizer: Optimizer, progress: Progress, seconds: float) -> None:
    parts.team.same_norms(parts.model)
    sums = parts.team.total(progress.sums.totals)
    if not parts.team.leads:
        return
    state = {
        "trained": parts.state(),
        "optimizer": optimizer.state_dict(),
        "epoch": progress.epoch,
        "batch": progress.batch,
        "step": progress.step,
        "seconds": seconds,
        "total_seconds": progress.total_seconds,
        "best_epoch": progress.best_epoch,
        "best_key": list(progress.best_key),
        "masks": {path: torch.from_numpy(numpy.packbits(mask.numpy())) for path, mask in progress.masks.items()},
        "sums": sums,
        "threads": torch.get_num_threads(),
        "devices": parts.team.size,
        "device": parts.device,
        "weights_sha256": parts.weights,
    }
    checkpoints.save(parts.folder / "checkpoints" / record.RESUME, state, keep_previous=True)


def _go_on(parts: Parts, optimizer: Optimizer, progress: Progress, state: dict[str, Any]) -> None:
    if state["weights_sha256"] != parts.weights:
        raise ValueError(
            "this torch draws other random weights from the seed than the one that began the run; "
            "go on with that version, or begin anew with force=true"
        )
    load_trained(parts.model, state["trained"])
    optimizer.load_state_dict(state["optimizer"])
    progress.epoch, progress.batch, progress.step = state["epoch"], state["batch"], state["step"]
    progress.seconds, progress.total_seconds = state["seconds"], state["total_seconds"]
    progress.best_epoch, progress.best_key = state["best_epoch"], tuple(state["best_key"])
    progress.sums.totals = state["sums"].clone()
    if not parts.team.leads:  # they were added up
        progress.sums.totals.zero_()
    for path, layer in masked_layers(parts.model):
        bits = numpy.unpackbits(state["masks"][path].cpu().numpy(), count=layer.weight.numel())
        progress.masks[path] = torch.from_numpy(bits.astype(bool)).view(layer.weight.shape)
    # A best.ckpt from after the checkpoint is written again on the way, with the same bits.
    if parts.team.leads:
        record.keep_rows(parts.folder, progress.epoch + 1)
