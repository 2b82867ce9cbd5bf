"""One run, from its config to its result: build, mask, train, evaluate, and save checkpoints to resume from.

Read `run` first, which calls `_run` for all phases of a run; `train_to_the_end` is its training. Trainer.train_step
(trainer.py) is a step.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hidden_subnet.config.convert import as_dict, restored
from hidden_subnet.config.identity import id_of
from hidden_subnet.config.own_parts import USED
from hidden_subnet.config.parents import parent_of
from hidden_subnet.config.registries import method_traits, model_entry
from hidden_subnet.config.settings import Config, Keep
from hidden_subnet.data.interfaces import WHOLE, shard_slice, shared
from hidden_subnet.data.loaders import Loaders
from hidden_subnet.masks.layers import masked_layers, not_masked
from hidden_subnet.masks.state import current_masks, kept_weights, load_trained, weights_digest
from hidden_subnet.masks.structure import left_dense
from hidden_subnet.models.from_config import has_stable_digest, weights_from_seed
from hidden_subnet.seeding import derive
from hidden_subnet.store import checkpoints, files, folders
from hidden_subnet.training.acceleration import freed_memory_kept
from hidden_subnet.training.batch_norm import layers_with_statistics
from hidden_subnet.training.callbacks import Callbacks, InterruptedRun, Row, StoppedRun
from hidden_subnet.training.collapse import at_chance, chance, dead_layer
from hidden_subnet.training.devices import choose_device, cores, deterministic, set_threads
from hidden_subnet.training.distributed import ProcessGroup, join_tasks, start_ranks
from hidden_subnet.training.experiment import (
    Experiment,
    Resolved,
    build_network,
    masked,
    open_images,
    recalibrate,
    resolve,
)
from hidden_subnet.training.extended import go_on
from hidden_subnet.training.finished import checkpoint_of_parent
from hidden_subnet.training.keep_masks import write_masks
from hidden_subnet.training.metrics import MetricSums, evaluate
from hidden_subnet.training.not_finite import reason, refuse_first_weights, refuse_images
from hidden_subnet.training.own_metrics import measures, without_value
from hidden_subnet.training.profiling import profiled
from hidden_subnet.training.rendezvous import Rendezvous
from hidden_subnet.training.result import first_row, mask_columns, metrics_in, named, run_result
from hidden_subnet.training.state import pack, read_state, unpack
from hidden_subnet.training.tracked import StepLoss, layer_histograms
from hidden_subnet.training.trainer import Trainer

CONTINUE, SAVE, STOP = range(3)
"""Decisions of rank 0 after a step; before a batch of an evaluation only CONTINUE and STOP."""


def run(config: Config, folder: Path, callbacks: Callbacks, met: Rendezvous | None = None) -> dict[str, Any]:
    """Execute a run and return its result; it resumes from a checkpoint in `folder`, and writes result.json last.

    Its other ranks (train.devices) are processes that it starts, or the tasks of the rendezvous `met`.
    Raises InterruptedRun once `callbacks.should_stop()` is true and the state is saved.
    """
    device = choose_device(config.train.device)
    size = 1 if not method_traits(config).is_trained() else config.train.devices
    if met is not None and size > 1:
        met.publish_folder(folder)
        ranks = join_tasks(met, device)
    else:
        # As plain values, as in sweep/processes.py.
        ranks = start_ranks(size, device, _follow_elsewhere, (as_dict(config), [*USED], folder))
    resolved = resolve(config, device)
    with ranks as group:
        result = _on_device(resolved, folder, callbacks, group)
        assert result is not None
    # What is removed is still there if the run is killed before it has its result.
    not_needed = write_masks(resolved, folder, result, callbacks.say) if config.checkpoint.keep is Keep.mask else []
    files.write_json(folder / files.RESULT, result)
    for path in not_needed:
        folders.remove(path)
    return result


def follow(config: Config, folder: Path, group: ProcessGroup) -> None:
    """Execute the run as a rank other than 0, which writes nothing; rank 0 decides when all save and stop."""
    with suppress(InterruptedRun):
        _on_device(resolve(config), folder, Callbacks(), group)


def _follow_elsewhere(settings: dict[str, Any], use: list[str], folder: Path, group: ProcessGroup) -> None:
    follow(restored(settings, use), folder, group)


def _on_device(run: Resolved, folder: Path, callbacks: Callbacks, group: ProcessGroup) -> dict[str, Any] | None:
    deterministic(run.device)
    if run.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    saved = read_state(folder, run.device, group.size, callbacks.say)
    if saved:
        checkpoints.require_run(folder / "checkpoints" / files.RESUME, saved, id_of(run.config))
        # A resumed run keeps its number of threads, since sums by 1 and by 2 threads differ in the last bit.
        set_threads(saved.get("threads"), folder / "checkpoints" / files.RESUME)
    elif run.config.train.threads is not None:
        torch.set_num_threads(run.config.train.threads)
    elif cores() < torch.get_num_threads():  # in a container with a limit, which torch does not see
        torch.set_num_threads(cores())
    with freed_memory_kept(), open_images(run, group) as loaders:
        return _run(run, folder, callbacks, saved, loaders, group)


def _run(
    run: Resolved,
    folder: Path,
    callbacks: Callbacks,
    saved: dict[str, Any] | None,
    loaders: Loaders,
    group: ProcessGroup,
) -> dict[str, Any] | None:
    """Execute all phases of a run and return its result; None on other ranks than 0."""

    def check_stop() -> None:
        if group.broadcast_decision(STOP if callbacks.should_stop() else CONTINUE) == STOP:
            raise InterruptedRun(f"stopped before {'it resumed' if saved else 'the first step'}")

    # The random network, with all its weights. The checkpoint of a resumed run holds what is measured before training.
    built = build_network(run)
    refuse_first_weights(built.network, run.config)
    untrained: dict[str, Any] | None = saved.get("untrained") if saved else None
    is_measured = untrained is not None
    if untrained is None:
        recalibrate(built.network, run, loaders.train)
        unpruned = evaluate(
            built.network,
            loaders.test,
            run.device,
            group.all_reduce_sum,
            check_stop,
            measures(run.config),
            group.all_gather,
        )
        if not math.isfinite(unpruned.loss):
            refuse_images(loaders.test, run.config)
        untrained = {"unpruned": unpruned.values(), "first_mask": None}
    if run.config.train.sync_norm and group.size > 1:
        synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(built.network)  # type: ignore[no-untyped-call]
        built = replace(built, network=synchronised)

    # The subnetwork under its first mask.
    experiment = replace(masked(built, run, folder, loaders, group), check_stop=check_stop)
    method, config = experiment.method, run.config
    if saved is None:
        if (parent := parent_of(config)) is not None:
            method.start_from(partial(checkpoint_of_parent, parent))
        method.prepare(shared(loaders.train, WHOLE).epoch(run.data_seed, 0))
        if config.extend is not None:
            callbacks.say(go_on(experiment.network, config, experiment.weights_sha256))
        method.on_evaluation(0)
    if method.masks and not is_measured:
        if method.first_rated_epoch > 1:
            # A ramp, or a dense phase: the first mask keeps other weights than a subnetwork at prune_rate does.
            method.on_evaluation(config.train.epochs)
            experiment.recalibrate()
            untrained["at_prune_rate"] = experiment.evaluate(experiment.test_images).values()
            method.on_evaluation(0)
        experiment.recalibrate()
        untrained["first_mask"] = experiment.evaluate(experiment.test_images).values()
    _say_what_is_special(experiment, callbacks, resumed=saved is not None)

    if not method.is_trained():
        row = first_row(experiment, untrained)
        _write_first_row(experiment, callbacks, row)
        last = {"epoch": 0, "train": None, "validation": metrics_in(row, "validation"), "test": untrained["first_mask"]}
        # Recomputed statistics of batch norm depend on the data too, and so cannot be restored from the seed.
        if not weights_from_seed(config) or config.train.norm_batches or method.changes_weights:
            experiment.save(files.LAST, 0)
        return run_result(
            experiment,
            kept=kept_weights(experiment.network, current_masks(experiment.network)),
            untrained=untrained,
            last=last,
            best=last,
            collapse={"collapsed": False, "dead_layer": None},
            seconds=0.0,
        )

    with _maybe_profiled(experiment, callbacks) as callbacks:
        trainer, save = train_to_the_end(experiment, untrained, saved, callbacks)
    try:
        kept, last, best, collapse = _test_last_and_best(experiment, trainer)
    except InterruptedRun:
        # By now, the network may hold the best epoch.
        load_trained(experiment.network, checkpoints.load(folder / "checkpoints" / files.LAST, run.device)["trained"])
        save()
        raise InterruptedRun("stopped and saved in the evaluation after its last epoch") from None
    if not group.is_main:
        return None
    state = trainer.state
    return run_result(
        experiment,
        kept=kept,
        untrained=untrained,
        last=last,
        best=best,
        collapse=collapse,
        seconds=state.total_seconds,
    )


def train_to_the_end(
    experiment: Experiment, untrained: dict[str, Any], saved: dict[str, Any] | None, callbacks: Callbacks
) -> tuple[Trainer, Callable[[], None]]:
    """Train to the last epoch; return the trainer, and a function that writes its resume checkpoint."""
    config, group = experiment.config, experiment.group
    trainer = Trainer(experiment.network, experiment.method, config.train, experiment.device, group)
    if saved is not None:
        _restore(experiment, trainer, saved)
        callbacks.say(f"resumes after epoch {trainer.state.epoch}, batch {trainer.state.batch}")
    else:
        trainer.state.masks = current_masks(experiment.network)
        row = first_row(experiment, untrained)
        _write_first_row(experiment, callbacks, row)
        experiment.save(files.FIRST, 0)
    saved_at = epoch_at = time.monotonic()

    def save() -> None:
        nonlocal saved_at
        _save(experiment, trainer, untrained, trainer.state.seconds + time.monotonic() - epoch_at)
        saved_at = time.monotonic()

    first_step: list[Tensor] = []
    step_loss = StepLoss(callbacks.loss_every if group.is_main else 0)
    without: set[str] = set()

    def losses_before() -> Iterator[float]:
        yield from (each["loss"] for each in untrained.values() if each is not None)
        yield from map(float, first_step)

    def after_step() -> None:
        epoch, batch = trainer.state.epoch + 1, trainer.state.batch
        if trainer.state.step == 1:
            first_step.append(trainer.metrics.totals[0].clone())  # its loss; reading it here would wait for the GPU
        if (loss := step_loss.after(trainer.state.step, trainer.metrics.totals)) is not None:
            callbacks.on_line({"step": trainer.state.step, "loss": loss})
        callbacks.on_step(epoch, batch, len(experiment.train_images))
        due = time.monotonic() - saved_at >= 60 * config.checkpoint.minutes
        decision = group.broadcast_decision(STOP if callbacks.should_stop() else SAVE if due else CONTINUE)
        if decision != CONTINUE:
            save()
        if decision == STOP:
            raise InterruptedRun(f"stopped and saved in epoch {epoch} after batch {batch}")

    while trainer.state.epoch < config.train.epochs:
        epoch_at = time.monotonic()
        step_loss.start(trainer.metrics.totals)
        factors = {"loss_factors": _loss_factors(experiment, trainer.state.batch)} if group.size > 1 else {}
        trainer.train_epoch(_batches(experiment, trainer), after_step, **factors)
        try:
            row = _finish_epoch(experiment, trainer, epoch_at, losses_before())
        except InterruptedRun:
            save()
            raise InterruptedRun(f"stopped and saved in the evaluation after epoch {trainer.state.epoch + 1}") from None
        if group.is_main:
            _send_histograms(experiment, callbacks, row, trainer.state.masks)
            files.append_row(experiment.folder, row)
            callbacks.on_row(row)
            _say_without_value(experiment, callbacks, row, without)
        if group.broadcast_decision(STOP if _gives_up(experiment, row) else CONTINUE) == STOP:
            save()
            top1 = f"{100 * row['validation/top1']:.2f} % on the validation images"
            raise StoppedRun(f"at chance after epoch {trainer.state.epoch}, with {top1} (stop_collapsed)")
    return trainer, save


def _gives_up(experiment: Experiment, row: Row) -> bool:
    """Return whether the run is to end after this epoch, since it is still at chance on the validation images."""
    config, images = experiment.config, experiment.validation_images
    epoch = min(config.stop_collapsed_epoch, config.train.epochs)
    if not config.stop_collapsed or images is None or row["epoch"] != epoch or epoch == config.train.epochs:
        return False
    level = chance(images.labels, images.info.classes)
    return at_chance(row["validation/top1"], level, len(images.labels))


def _say_without_value(experiment: Experiment, callbacks: Callbacks, row: Row, told: set[str]) -> None:
    """Log each of the user's metrics that is missing in a row, once; `told` are those of which it was said."""
    missing = without_value(experiment.config, row, "validation") if "validation/loss" in row else []
    for name in missing:
        if name not in told:
            told.add(name)
            callbacks.say(
                f"metrics=[{name}]: is NaN or infinite after epoch {row['epoch']:.0f}; no value of it is recorded there"
            )


def _batches(experiment: Experiment, trainer: Trainer) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the remaining batches of the current epoch, images (B, C, H, W) and labels (B,)."""
    seed, state = experiment.run.data_seed, trainer.state
    entry = model_entry(experiment.config.model)
    reseeds = entry is not None and entry.draws_in_steps
    rank = experiment.group.rank
    batches = experiment.train_images.epoch(seed, state.epoch, start=state.batch)
    for index, batch in enumerate(batches, start=state.batch):
        if reseeds:
            # Dropout and stochastic depth draw from torch's global generator: it is seeded for each step and rank.
            torch.manual_seed(derive(seed, "dropout", state.epoch, index, *([rank] if rank else [])))
        yield batch


def _loss_factors(experiment: Experiment, start: int) -> Iterator[float]:
    """Yield for each batch from `start` on the factor of this rank's mean loss.

    With it, the mean over the ranks is the loss of the whole batch, also where shards differ in size.
    """
    images, size = experiment.train_images.images_in_epoch, experiment.config.train.batch_size
    group = experiment.group
    for first in range(start * size, images, size):
        whole = min(size, images - first)
        mine = shard_slice(0, whole, group.shard)
        yield (mine.stop - mine.start) * group.size / whole


def _finish_epoch(experiment: Experiment, trainer: Trainer, epoch_at: float, losses_before: Iterable[float]) -> Row:
    """Evaluate, save the best checkpoint, move the state to the start of the next epoch, and return the epoch's row.

    losses_before: those before the first update.
    Raises FloatingPointError where loss, scores or weights are not finite.
    """
    state, method, config = trainer.state, experiment.method, experiment.config
    lr = trainer.learning_rate
    trained = trainer.metrics.means(experiment.group.all_reduce_sum)
    # The scores are checked too: where they are NaN, nothing is kept, and the loss of a network of zeros is finite.
    finite = all(bool(torch.isfinite(value).all()) for value in experiment.kept_state().values())
    if not (math.isfinite(trained.loss) and finite):
        what = f"loss {trained.loss:g}{'' if finite else ', scores or weights are not finite'}"
        penalty = 0.0 if trainer.first_penalty is None else float(trainer.first_penalty)
        raise FloatingPointError(reason(experiment, losses_before, penalty, state.epoch + 1, what))
    epoch = state.epoch + 1
    if epoch == 1:
        _refuse_changed_weights(experiment)
    method.on_evaluation(epoch)
    experiment.group.sync_batch_norm_buffers(experiment.network)
    every = config.checkpoint.every
    keeps = (bool(every) and epoch % every == 0) or method.keeps_epoch(epoch)
    if experiment.validation_images or keeps:
        experiment.recalibrate()
    validation = experiment.evaluate(experiment.validation_images) if experiment.validation_images else None
    masks = current_masks(experiment.network)
    rated = epoch >= method.first_rated_epoch
    if validation is not None and rated and (key := (validation.top1, -validation.loss)) > state.best_key:
        state.best_epoch, state.best_key = epoch, key
        experiment.save(files.BEST, epoch, validation=validation.values(), train=trained.values())
    if keeps:
        experiment.save(files.checkpoint_name(epoch), epoch)
    seconds = state.seconds + time.monotonic() - epoch_at
    row: Row = {
        "epoch": epoch,
        "step": state.step,
        "lr": lr,
        **named("train", trained),
        **(named("validation", validation) if validation else {}),
        **mask_columns(experiment, masks, state.masks),
        **method.metrics(),
        "seconds": seconds,
        "images_per_second": experiment.train_images.images_in_epoch / seconds,
    }
    state.epoch, state.batch, state.seconds, state.masks = epoch, 0, 0.0, masks
    state.total_seconds += seconds
    trainer.metrics = MetricSums(experiment.device)
    return row


def _refuse_changed_weights(experiment: Experiment) -> None:
    """Raise RuntimeError where a method changes weights that no checkpoint would hold."""
    method = experiment.method
    config = experiment.config
    if not method.weights_stay() or config.train.norm_affine or not has_stable_digest(config):
        return
    if weights_digest(experiment.network) != experiment.weights_sha256:
        raise RuntimeError(
            f"method={experiment.config.method.name} changes weights: its class needs the trait "
            "changes_weights = True, so that checkpoints hold them"
        )


def _test_last_and_best(
    experiment: Experiment, trainer: Trainer
) -> tuple[dict[str, float], dict[str, Any], dict[str, Any] | None, dict[str, Any]]:
    """Test the last and the best epoch; return both, and kept weights and collapse of the last, as in result.json.

    The network holds the best epoch afterwards.
    """
    state, method, config, test_images = trainer.state, experiment.method, experiment.config, experiment.test_images
    row = files.read_rows(experiment.folder)[-1] if experiment.group.is_main else {}
    method.on_evaluation(state.epoch)
    experiment.group.sync_batch_norm_buffers(experiment.network)
    experiment.recalibrate()
    experiment.save(files.LAST, state.epoch)
    kept = kept_weights(experiment.network, state.masks)
    test = experiment.evaluate(test_images)
    last = {
        "epoch": state.epoch,
        "train": metrics_in(row, "train"),
        "validation": metrics_in(row, "validation"),
        "test": test.values(),
    }
    level = chance(test_images.labels, test_images.info.classes)
    collapsed = at_chance(test.top1, level, len(test_images.labels))
    whole = shared(test_images, WHOLE)
    collapse = {"collapsed": collapsed, "dead_layer": dead_layer(experiment.network, whole) if collapsed else None}
    if experiment.validation_images is None:
        return kept, last, None, collapse
    if state.best_epoch == state.epoch:
        return kept, last, last, collapse
    # Rank 0 has written it before the test evaluation, in which all ranks took part.
    path = experiment.folder / "checkpoints" / files.BEST
    best = checkpoints.load(path, experiment.device)
    checkpoints.require_run(path, best, id_of(config))
    load_trained(experiment.network, best["trained"])
    method.on_evaluation(best["epoch"])
    test = experiment.evaluate(test_images)
    best = {"epoch": best["epoch"], "train": best["train"], "validation": best["validation"], "test": test.values()}
    return kept, last, best, collapse


def _save(experiment: Experiment, trainer: Trainer, untrained: dict[str, Any], seconds: float) -> None:
    """Write the resume checkpoint; every rank takes part, rank 0 writes."""
    group = experiment.group
    group.sync_batch_norm_buffers(experiment.network)
    sums = group.all_reduce_sum(trainer.metrics.totals)
    if not group.is_main:
        return
    state = {
        **pack(trainer.state),
        "seconds": seconds,
        "trained": experiment.kept_state(),
        "optimizer": trainer.optimizer.state_dict(),
        "method": experiment.method.state_dict(),
        "sums": sums,
        "untrained": untrained,
        "threads": torch.get_num_threads(),
        "devices": group.size,
        "device": experiment.device,
        "weights_sha256": experiment.weights_sha256,
        checkpoints.RUN: id_of(experiment.config),
    }
    checkpoints.save(experiment.folder / "checkpoints" / files.RESUME, state, keep_previous=True)


def _restore(experiment: Experiment, trainer: Trainer, saved: dict[str, Any]) -> None:
    """Undo `_save`. Raises ValueError where the random weights are not those of the interrupted run."""
    if saved["weights_sha256"] != experiment.weights_sha256:
        raise ValueError(
            "The random weights drawn from this seed differ from those of the interrupted run (weights_sha256 "
            f"{experiment.weights_sha256[:12]} != {saved['weights_sha256'][:12]}): it was started with another torch "
            f"than this {torch.__version__}. Resume with that version, or restart with force=true"
        )
    load_trained(experiment.network, saved["trained"])
    trainer.optimizer.load_state_dict(saved["optimizer"])
    experiment.method.load_state_dict(saved.get("method", {}))
    trainer.state = unpack(saved, experiment.network)
    trainer.metrics.totals = saved["sums"].clone()
    if not experiment.group.is_main:  # rank 0 has the sums of all ranks
        trainer.metrics.totals.zero_()
    # A best.ckpt that is newer than the checkpoint is written again, with the same bits.
    if experiment.group.is_main:
        files.keep_rows(experiment.folder, trainer.state.epoch + 1)


def _write_first_row(experiment: Experiment, callbacks: Callbacks, row: Row) -> None:
    if experiment.group.is_main:
        files.keep_rows(experiment.folder, 0)
        _send_histograms(experiment, callbacks, row, current_masks(experiment.network))
        files.append_row(experiment.folder, row)
        callbacks.on_row(row)


def _send_histograms(experiment: Experiment, callbacks: Callbacks, row: Row, masks: dict[str, Tensor]) -> None:
    """Call back with histograms of the scores under these masks, if they are asked for after this epoch."""
    if callbacks.histograms_every and row["epoch"] % callbacks.histograms_every == 0 and masks:
        layers = layer_histograms(experiment.network, masks)
        callbacks.on_line({"step": row["step"], "epoch": row["epoch"], "layers": layers})


def _maybe_profiled(experiment: Experiment, callbacks: Callbacks) -> AbstractContextManager[Callbacks]:
    train = experiment.config.train
    if not train.profile or not experiment.group.is_main:
        return nullcontext(callbacks)
    return profiled(experiment.folder, experiment.device, train.epochs * len(experiment.train_images), callbacks)


def _say_what_is_special(experiment: Experiment, callbacks: Callbacks, *, resumed: bool) -> None:
    """Log lines about batch norm on several ranks, given weights and masks, and parameters that are not masked."""
    config, group, network = experiment.config, experiment.group, experiment.network
    if group.size > 1 and layers_with_statistics(network):
        each = "over the whole batch" if config.train.sync_norm else f"over each rank's part of it, 1/{group.size}"
        callbacks.say(f"train.devices={group.size}: batch norm takes its statistics {each}")
    if experiment.pretrained and not resumed:
        callbacks.say(f"pretrained={config.pretrained}: {experiment.pretrained.summary()}")
    if experiment.mask and not resumed:
        callbacks.say(experiment.mask.summary())
        if line := experiment.mask.other_weights(config, experiment.weights_sha256):
            callbacks.say(line)
    layers, left = masked_layers(network), not_masked(network)
    if experiment.method.prunes_by_rate(config.method):
        shapes = {path: tuple(layer.weight.shape) for path, layer in layers}
        for path, why in left_dense(shapes, config.pruning).items():
            structure = config.pruning.structure.name
            callbacks.say(f"pruning.structure={structure} keeps all weights of {path} {shapes[path]}: {why}")
    if layers and left and not experiment.method.trains_weights():
        learned = [name for name in left if network.get_parameter(name).requires_grad]  # train.norm_affine
        frozen = [name for name in left if name not in learned]
        says = [
            f"masks {experiment.parameters - sum(left.values()):,} of {experiment.parameters:,} parameters, in "
            f"{len(layers)} weights; prune_rate is a fraction of these"
        ]
        if learned:
            count = sum(left[name] for name in learned)
            says.append(f"{count:,} are factors and shifts of batch norm, learned beside the scores")
        if frozen:
            shown = ", ".join(frozen[:6]) + (f" and {len(frozen) - 6} more" if len(frozen) > 6 else "")
            says.append(f"Not masked, kept as they were drawn: {shown} (all in {files.RESULT})")
        callbacks.say(". ".join(says))
