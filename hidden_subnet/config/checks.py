"""The rules that a config must satisfy, checked before the first run starts; each line ends in what to type.

The range of a number stands on its field in settings.py. Rules of a single method or network are in its own file
(`problems`), and are found through the registries.
"""

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from hidden_subnet.config import layer_rates
from hidden_subnet.config.convert import as_dict
from hidden_subnet.config.data_info import DataInfo, held_out, trained_on
from hidden_subnet.config.ranges import Bounded, out_of_range, ranges_in
from hidden_subnet.config.registries import (
    DATA,
    INITS,
    METHODS,
    OPTIMIZERS,
    OWN,
    SCHEDULES,
    info_of,
    method_traits,
    model_entry,
    nearest,
    network_name,
    unknown_names,
)
from hidden_subnet.config.settings import (
    Activation,
    Artifacts,
    Config,
    Data,
    Device,
    Fan,
    Keep,
    Masking,
    Norm,
    Pruning,
    Scale,
    Structure,
    Train,
)
from hidden_subnet.errors import ConfigError, problem


def check(config: Config) -> None:
    """Raise ConfigError with the first rule that is broken."""
    for line in problems(config):
        raise ConfigError(line)


def ranges_of(config: Config) -> dict[str, Bounded]:
    """Return the ranges of all settings that the config has, those of its own network, data and method too."""
    own: dict[str, Any] = {
        "model.": type(config.model),
        "data.": type(config.data),
        "method.": type(config.method),
        "pruning.": type(config.pruning),
    }
    return ranges_in(Config) | {name: each for group in own for name, each in ranges_in(own[group], group).items()}


def problems(config: Config) -> Iterator[str]:
    """Yield a line for each rule that is broken."""
    unknown = list(unknown_names(config))
    yield from unknown
    if unknown:
        return  # the other rules look names up in the registries
    if type(config.method) is not method_traits(config).settings:
        name = config.method.name
        yield problem(
            f"method.name={name}",
            "is without its settings and learning rate (a file of your own in method/ begins with the line "
            f"`defaults: [{name}]`)",
            f"method={name}",
        )
        return
    wrong = [*out_of_range(as_dict(config), ranges_of(config)), *layer_rates.problems(config)]
    yield from wrong
    if wrong:
        return  # the other rules compute with these numbers
    if not config.out.strip():
        yield problem("out=", "name the folder for the results", "out=runs", lead="as in")
    if not config.data.root.strip():
        yield problem("data.root=", "name the folder of the images", "data.root=data", lead="as in")
    if config.stop_collapsed and config.data.validation == 0:
        rule = "stop_collapsed looks at the accuracy on validation images, and none are held out"
        yield problem("data.validation=0", rule, "data.validation=0.1", lead="as in")
    yield from _training(config)
    yield from _init(config)
    yield from _data(config)
    yield from _image_size(config.data, DATA[config.data.name].raw_info(config.data))
    yield from _mask(config)
    yield from _extend(config)
    yield from _keep(config)
    yield from method_traits(config).problems(config)
    yield from _ramp(config)
    yield from _structure(config)
    yield from _model(config)


def _init(config: Config) -> Iterator[str]:
    init, scale, method = config.init, config.init.scale, method_traits(config)
    entry, typed = INITS[init.name], f"init.scale={config.init.scale.name}"
    if init.mode is not Fan.fan_in and entry.fixes_fan:
        yield problem(f"init.mode={init.mode.name}", f"init={init.name} fixes its own fan", "init.mode=fan_in")
    if scale is Scale.none:
        return
    none = "init.scale=none"
    if scale is Scale.density and not entry.scales:
        yield problem(typed, f"init={init.name} is torch's own default, which is not scaled", none)
    if scale is Scale.reference and not entry.scales_as_reference:
        scaled = [name for name, each in INITS.items() if each.scales_as_reference]
        rule = f"the authors' code leaves init={init.name} unscaled, and scales init={' init='.join(scaled)}"
        yield problem(typed, rule, none)
    if not method.prunes_by_rate(config.method):
        why = "has no prune rate" if method.masks else "removes no weights"
        yield problem(typed, f"method={config.method.name} {why}, so there is nothing to scale by", none)
    elif scale is Scale.reference and config.pruning.rates:
        yield problem(typed, "is that of the authors' code, where all layers have one rate", "init.scale=density")
    elif scale is Scale.reference and config.prune_rate == 0:
        yield problem(typed, f"divides by sqrt(prune_rate), which is 0 for prune_rate={config.prune_rate:g}", none)


def _mask(config: Config) -> Iterator[str]:
    name, method = config.method.name, method_traits(config)
    if config.mask in METHODS:
        found, own = METHODS[config.mask], [each for each in (config.mask, name) if ("method", each) in OWN]
        why = f"method={config.mask} {'needs a mask itself' if found.has_given_mask else 'masks nothing'}"
        if own or found.has_given_mask or not found.masks:
            rule = f"method={own[0]} is your own, and needs the name of a run" if own else why
            yield problem(f"mask={config.mask}", rule, "mask=runs/digits-conv2", lead="as in")
    if config.mask is None and config.mask_sha256 is None:
        if method.has_given_mask and config.extend is None:  # a run that is extended has a mask
            rule = "has a mask that is given: that of a finished run, of a file, or of a method that finds one"
            yield problem(f"method={name}", rule, f"method={name}", "mask=edge_popup", lead="as in")
    elif not method.has_given_mask and not method.ranks_drawn_scores(config.method):
        why = "finds its own mask" if method.masks else "masks nothing"
        rule = f"method={name} {why}; to train under this one"
        yield problem(f"mask={config.mask}", rule, "method=finetune")


def _extend(config: Config) -> Iterator[str]:
    if config.extend is None and config.extend_sha256 is None:
        return
    if not method_traits(config).is_trained():
        yield problem(f"extend={config.extend}", f"method={config.method.name} trains nothing", "extend=null")
    if method_traits(config).prunes_in_rounds:
        rule = f"method={config.method.name} starts from the round before; to go further, add rounds"
        yield problem(f"extend={config.extend}", rule, "extend=null", "prune_rate=0.9", lead="as in")
    if config.mask is not None:
        rule = "starts from its scores and weights, and mask= from others; give one of them"
        yield problem(f"extend={config.extend}", rule, "extend=null")


def _keep(config: Config) -> Iterator[str]:
    if config.checkpoint.keep is Keep.all:
        return
    name, method = config.method.name, method_traits(config)
    why = ""
    if config.pretrained is not None or config.pretrained_sha256 is not None:
        why = "pretrained weights do not follow from the seed"
    elif not method.masks:
        why = f"method={name} masks nothing"
    elif not method.weights_stay() or method.draws_in_steps:
        why = f"seed and masks do not give the weights of method={name}"
    elif config.tracker.artifacts is Artifacts.best:
        why = "tracker.artifacts=best is a checkpoint"
    if why:
        yield problem("checkpoint.keep=mask", why, "checkpoint.keep=all")


def _ramp(config: Config) -> Iterator[str]:
    pruning, method = config.pruning, method_traits(config)
    if not pruning.ramp_epochs or not method.prunes_by_rate(config.method) or not method.follows_ramp:
        return
    dense = method.dense_epochs(config.method)
    if (ends := dense + pruning.ramp_epochs) >= config.train.epochs:
        after = f" after {dense} epochs in which nothing is removed" if dense else ""
        yield problem(
            f"pruning.ramp_epochs={pruning.ramp_epochs}{after}",
            f"must end before train.epochs={config.train.epochs}, so that an epoch is trained at prune_rate",
            f"train.epochs={ends + 1}",
            lead="as in",
        )
    if pruning.start_rate > layer_rates.final_rate(config):
        yield problem(
            f"pruning.start_rate={pruning.start_rate:g}",
            f"must be at most prune_rate={layer_rates.final_rate(config):g}, to which the ramp rises",
            "pruning.start_rate=0",
            lead="as in",
        )


def _structure(config: Config) -> Iterator[str]:
    pruning, method = config.pruning, method_traits(config)
    if pruning.structure is Structure.weight or not method.prunes_by_rate(config.method):
        return
    typed, none = f"pruning.structure={pruning.structure.name}", "pruning.structure=weight"
    if pruning.name != "layerwise":
        yield problem(typed, f"is layer by layer, and not for pruning={pruning.name}", "pruning=layerwise")
    if pruning.structure is Structure.channel and config.model.last_layer is not Masking.dense:
        rule = "would remove all weights of some classes in the last layer, whose outputs are the classes"
        yield problem(typed, rule, "model.last_layer=dense")
    if pruning.structure is Structure.n_m:
        if method.prunes_in_rounds:
            yield problem(typed, f"has one prune rate, and method={config.method.name} passes through others", none)
        elif pruning.ramp_epochs and method.follows_ramp:
            yield problem(f"pruning.ramp_epochs={pruning.ramp_epochs}", f"{typed} has one prune rate, and so no ramp",
                          "pruning.ramp_epochs=0")  # fmt: skip
        yield from _n_of_m(config.prune_rate, pruning)


def kept_of_each(prune_rate: float, m: int) -> int | None:
    """Return how many of every `m` weights are kept at this prune rate; None where that is not a whole number."""
    n = m * (1 - prune_rate)
    return round(n) if abs(n - round(n)) < 1e-9 else None  # rates have 12 digits: 0.333333333333 keeps 2 of 3


def _n_of_m(prune_rate: float, pruning: Pruning) -> Iterator[str]:
    n, m = pruning.n, pruning.m
    kept = kept_of_each(prune_rate, m)
    if n is not None and n > m:
        yield problem(f"pruning.n={n}", f"must be at most pruning.m={m}", f"pruning.n={m // 2}", lead="as in")
    elif n is not None and n != kept:
        rule = f"pruning.n={n} pruning.m={m} keeps {n} of every {m} weights"
        yield problem(f"prune_rate={prune_rate:g}", rule, f"prune_rate={1 - n / m:.12g}")
    elif kept is None:
        nearest = min(range(1, m), key=lambda each: abs(m * (1 - prune_rate) - each))
        rule = f"pruning.structure=n_m keeps a whole number of every pruning.m={m} weights"
        yield problem(f"prune_rate={prune_rate:g}", rule, f"prune_rate={1 - nearest / m:.12g}", lead="as in")


def _optimizer_args(train: Train) -> Iterator[str]:
    entry, given = OPTIMIZERS[train.optimizer], train.optimizer_args

    def typed(arguments: dict[str, Any]) -> str:
        return f"train.optimizer_args={{{','.join(f'{name}:{value}' for name, value in arguments.items())}}}"

    for name, value in given.items():
        if name not in entry.arguments:
            rest = {other: given[other] for other in given if other != name}
            rule = f"train.optimizer={train.optimizer} has no argument {name} ({', '.join(entry.arguments)})"
            if name in (each.name for each in fields(Train)):
                yield problem(typed(given), f"{name} is a setting of its own", typed(rest), f"train.{name}={value}")
            elif near := nearest(name, entry.arguments):
                yield problem(typed(given), rule, typed({**rest, near: value}), lead="did you mean")
            else:
                yield problem(typed(given), rule, typed(rest))
            return
    if given and (wrong := entry.problem(train)):
        yield problem(typed(given), wrong, typed({}))


def _training(config: Config) -> Iterator[str]:
    train = config.train
    if train.nesterov and (not OPTIMIZERS[train.optimizer].has_momentum or train.momentum == 0):
        yield problem(
            "train.nesterov=true",
            "needs train.optimizer=sgd and a train.momentum above 0",
            "train.optimizer=sgd",
            f"train.momentum={train.momentum or 0.9:g}",
        )
    yield from _optimizer_args(train)
    if train.compile and train.devices > 1:
        rule = f"works with one device only, but train.devices={train.devices}"
        yield problem("train.compile=true", rule, "train.compile=false")
    if train.accumulate > train.batch_size:
        rule = f"must be at most train.batch_size={train.batch_size}, so that each part has an image"
        yield problem(
            f"train.accumulate={train.accumulate}", rule, f"train.accumulate={train.batch_size}", lead="as in"
        )
    for name, is_on in (("devices", train.devices > 1), ("compile", train.compile)):
        if train.accumulate > 1 and is_on:
            rule = f"works without train.{name}, since the parts of the last batch have other sizes"
            yield problem(f"train.accumulate={train.accumulate}", rule, "train.accumulate=1")
    if train.cuda_graph and (why := _not_recordable(config)):
        yield problem("train.cuda_graph=true", f"{why}, which a recorded step cannot", "train.cuda_graph=false")
    if train.warmup_epochs > train.epochs:
        yield problem(
            f"train.warmup_epochs={train.warmup_epochs}",
            f"must be 0 to train.epochs={train.epochs}",
            f"train.warmup_epochs={train.epochs}",
            lead="as in",
        )
    has_milestones = SCHEDULES[train.schedule].has_milestones
    if train.milestones and not has_milestones:
        yield problem(
            f"train.milestones={train.milestones}", "needs train.schedule=multistep", "train.schedule=multistep"
        )
    if has_milestones:
        yield from _milestones(train)


def _milestones(train: Train) -> Iterator[str]:
    marks, last = train.milestones, train.epochs - 1
    if marks and marks == sorted(set(marks)) and marks[0] >= 1 and marks[-1] <= last:
        return
    rule = f"train.schedule={train.schedule} needs one or more epochs in rising order, from 1 to {last}"
    if not last:
        rule = f"train.schedule={train.schedule} changes the learning rate between epochs, and train.epochs=1 has one"
    right = sorted({each for each in marks or (train.epochs // 2, train.epochs * 3 // 4) if 1 <= each <= last})
    right = right or ([last] if last else [])
    words = f"train.milestones=[{','.join(map(str, right))}]" if right else "train.schedule=constant"
    yield problem(f"train.milestones={marks}", rule, words, lead="as in")


def _not_recordable(config: Config) -> str:
    """Return what the host does in each step, which a recorded step (train.cuda_graph) cannot repeat; or ""."""
    entry = model_entry(config.model)
    if config.train.devices > 1:
        return f"the {config.train.devices} processes of train.devices agree in each step"
    if method_traits(config).draws_in_steps:
        return f"method={config.method.name} draws the random numbers of a step from a seed of its own"
    if entry is not None and entry.draws_in_steps:
        return f"model={network_name(config.model)} draws dropout in each step from a seed of its own"
    return ""


def _data(config: Config) -> Iterator[str]:
    data, info = config.data, info_of(config.data)
    held = held_out(info.train, data.validation)
    if data.validation > 0 and not 0 < held < info.train:
        yield problem(
            f"data.validation={data.validation:g}",
            f"holds out {held} of {info.train} images; at least one must be held out and at least one trained on "
            "(0 trains on all)",
            f"data.validation={0.1 if 0 < held_out(info.train, 0.1) < info.train else 0}",
            lead="as in",
        )
    if data.crop and data.resized_crop:
        yield problem(f"data.crop={data.crop}", "data.resized_crop=true already crops", "data.crop=0")
    if data.fraction < 1:
        if data.one_batch:
            rule = "data.one_batch=true already takes a single batch"
            yield problem(f"data.fraction={data.fraction:g}", rule, "data.fraction=1")
        if (trained := trained_on(info.train - held, data.fraction)) < info.classes:
            least = math.ceil(100 * info.classes / max(info.train - held, 1)) / 100
            yield problem(
                f"data.fraction={data.fraction:g}",
                f"leaves {trained} of {info.train - held} images to train on; at least one is needed for each of the "
                f"{info.classes} classes",
                f"data.fraction={min(least, 1):g}",
                lead="as in",
            )


def _image_size(data: Data, raw: DataInfo) -> Iterator[str]:
    if DATA[data.name].in_folders:
        if data.size == 0:
            rule = f"data={data.name} has images of many sizes; choose one"
            yield problem("data.size=0", rule, f"data.size={raw.shape[1]}", lead="as in")
        if data.pad:
            rule = f"the images of data={data.name} are resized to data.size={data.size}, so that padding has no use"
            yield problem(f"data.pad={data.pad}", rule, "data.pad=0")
        if data.resize and data.resize < data.size:
            rule = (
                f"the shorter side before the center crop must be 0 (data.size) or from data.size={data.size} to 8192"
            )
            yield problem(f"data.resize={data.resize}", rule, f"data.resize={data.size}", lead="as in")
        return
    side = max(raw.shape[1:]) + 2 * data.pad
    if data.resize:
        folders = [name for name, entry in DATA.items() if entry.in_folders]
        rule = f"is for image files only (data={', data='.join(folders)})"
        size = f"data.size={max(data.size or data.resize, side)}"
        yield problem(f"data.resize={data.resize}", rule, "data.resize=0", size, lead="did you mean")
    if data.size and data.size < side:
        yield problem(
            f"data.size={data.size}",
            f"must be 0 or at least {side}, since the images of data={data.name} are {side}x{side} with "
            f"data.pad={data.pad} and are only enlarged",
            f"data.size={side}",
            lead="as in",
        )


def _model(config: Config) -> Iterator[str]:
    model, train, entry = config.model, config.train, model_entry(config.model)
    assert entry is not None  # `problems` has refused unknown names
    if train.devices > train.batch_size:
        yield problem(
            f"train.devices={train.devices}",
            f"must be at most the images of a batch (train.batch_size={train.batch_size}), since each device takes a "
            "shard of it",
            f"train.batch_size={train.devices}",
            lead="as in",
        )
    if train.sync_norm and (train.devices == 1 or train.device in (Device.cpu, Device.mps)):
        rule = "joins the batch norms of several GPUs (train.devices=2 or more, not on the CPU)"
        yield problem("train.sync_norm=true", rule, "train.sync_norm=false")
    if not entry.has_activation and model.activation is not Activation.relu:
        rule = "is for our own networks (fc, conv2, resnet20, ...); this one has activations of its own"
        yield problem(f"model.activation={model.activation.name}", rule, "model.activation=relu")
    if not entry.has_norm:
        if train.norm_affine:
            rule = f"model={model.name} has no batch norm whose factors could be learned"
            yield problem("train.norm_affine=true", rule, "train.norm_affine=false")
        if model.norm is not Norm.batch_fixed:
            rule = f"model={model.name} has no norm layers"
            yield problem(f"model.norm={model.norm.name}", rule, "model.norm=batch_fixed")
        if train.norm_batches:
            rule = f"model={model.name} has no batch norm whose statistics could be recomputed"
            yield problem(f"train.norm_batches={train.norm_batches}", rule, "train.norm_batches=0")
    yield from entry.problems(config, info_of(config.data))


def last_batch(config: Config, info: DataInfo) -> int:
    """Return the number of images in the smallest batch of an epoch."""
    data = config.data
    images = trained_on(info.train - held_out(info.train, data.validation), data.fraction)
    images = min(images, config.train.batch_size) if data.one_batch else images
    return images % config.train.batch_size or config.train.batch_size
