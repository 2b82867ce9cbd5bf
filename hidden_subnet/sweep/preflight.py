"""Finds what can go wrong before the first run starts, and says it in one line."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile

import torch
from torch import nn

from hidden_subnet.config.checks import last_batch
from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.config.layer_rates import layer_rates
from hidden_subnet.config.own_parts import said
from hidden_subnet.config.parents import names_method
from hidden_subnet.config.registries import (
    ALLOCATIONS,
    DATA,
    INITS,
    OWN,
    SCHEDULES,
    info_of,
    method_traits,
    model_entry,
)
from hidden_subnet.config.settings import Config, Precision, Structure, Train
from hidden_subnet.data.augment import refuse_wrong_transforms
from hidden_subnet.data.catalog import prepare as prepare_data
from hidden_subnet.data.catalog import taken_from
from hidden_subnet.errors import AGAIN, ConfigError, problem
from hidden_subnet.masks.gpu.select import available
from hidden_subnet.masks.layers import norm_factors, refuse_tied
from hidden_subnet.masks.structure import left_dense
from hidden_subnet.models.from_config import bare_network, masked_shapes
from hidden_subnet.models.inits import dense_layers
from hidden_subnet.models.pretrained_weights import load_weights
from hidden_subnet.store.access import refuse_unwritable
from hidden_subnet.store.pretrained import errors_of
from hidden_subnet.training.acceleration import refuse_bfloat16, refuse_compilation, refuse_graph
from hidden_subnet.training.batch_norm import layers_with_statistics
from hidden_subnet.training.determinism import without_deterministic_kernel
from hidden_subnet.training.devices import choose_device
from hidden_subnet.training.given_mask import match_mask, read_mask
from hidden_subnet.training.own_metrics import refuse_wrong_metrics


def preflight(configs: list[Config]) -> None:
    """Check devices, networks that are not ours, data (downloaded if missing), given weights and masks, output folders.

    Raises ConfigError or DataError where one of them cannot be had.
    """
    outs = {Path(config.out) for config in configs}
    infos = [info_of(config.data) for config in configs]
    for config in configs:
        _check_device(config.train)
    _try_metrics(configs, infos)
    for config in configs:
        _try_functions(config)
    refuse_wrong_augmentation(configs)
    _try_networks(configs, infos)
    for out in outs:
        _refuse_where_nothing_can_be_made(out)  # before a download of minutes, and before anything is written
    for name, root in {(config.data.name, config.data.root) for config in configs}:
        prepare_data(name, Path(root))
        if line := taken_from(name, Path(root)):
            print(line)
    _refuse_weights_that_do_not_fit(configs, infos)
    _refuse_masks_that_do_not_fit(configs, infos)
    refuse_wrong_allocations(configs, infos)
    for out in outs:
        _make(out)


def _check_device(train: Train) -> None:
    device = choose_device(train.device)
    if train.precision is Precision.bf16:
        refuse_bfloat16(device)
    if train.compile:
        refuse_compilation(device)
    if train.cuda_graph:
        refuse_graph(device)
    if train.mask_kernels and not available(torch.device(device)):
        rule = f"needs an NVIDIA GPU (capability 7.5 or more) and Triton 3.8, and this run is on {device}"
        raise ConfigError(problem("train.mask_kernels=true", rule, "train.mask_kernels=false"))
    if train.sync_norm and device != "cuda":
        rule = f"joins the batch norms of several GPUs, and this run is on {device}"
        raise ConfigError(problem("train.sync_norm=true", rule, "train.sync_norm=false"))


def _distinct(
    configs: list[Config], infos: list[DataInfo], *more: Sequence[object]
) -> Iterator[tuple[Config, DataInfo]]:
    """Config and info, once for each network; `more` are lists with what else makes two configs differ."""
    seen = set()
    for config, info, others in zip(configs, infos, zip(*more, strict=True), strict=True):
        network = replace(config.model, temperature=1.0)
        key = (repr(network), info.shape, info.classes, others)
        if key not in seen:
            seen.add(key)
            yield config, info


def _refuse_weights_that_do_not_fit(configs: list[Config], infos: list[DataInfo]) -> None:
    for config, info in _distinct(configs, infos, [config.pretrained_sha256 for config in configs]):
        if config.pretrained is None:
            continue
        with errors_of("pretrained", config.pretrained):
            load_weights(bare_network(config.model, info, 0), Path(config.pretrained), config.pretrained_sha256)


def _refuse_masks_that_do_not_fit(configs: list[Config], infos: list[DataInfo]) -> None:
    for config, info in _distinct(configs, infos, [config.mask_sha256 for config in configs]):
        if config.mask is None or names_method(config):  # whose run has the same network
            continue
        with errors_of("mask", config.mask):
            match_mask(masked_shapes(config.model, info), read_mask(Path(config.mask), config.mask_sha256))


def refuse_wrong_allocations(configs: list[Config], infos: list[DataInfo]) -> None:
    """Raise ConfigError where an allocation does not suit the layers.

    It has to leave each its floor, or a weight; pruning.rates has to name layers that there are; a function of the
    user's own has to give rates, and a structure has to divide the layers.
    """
    rates = [(repr(config.pruning), config.prune_rate) for config in configs]
    for config, info in _distinct(configs, infos, rates, [config.method.name for config in configs]):
        pruning, entry = config.pruning, ALLOCATIONS[config.pruning.name]
        structured = pruning.structure is not Structure.weight
        asks = structured or pruning.rates or entry.require or entry.try_shapes
        if not method_traits(config).prunes_by_rate(config.method) or not asks:
            continue
        shapes = masked_shapes(config.model, info)
        try:
            layer_rates(config, list(shapes))
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if structured:
            try:
                left_dense(shapes, pruning)
            except ValueError as error:
                raise ConfigError(f"pruning.structure={pruning.structure.name}: {error}") from None
        try:
            if entry.require is not None:
                entry.require([math.prod(each) for each in shapes.values()], config.prune_rate, pruning.floor)
            if entry.try_shapes is not None:
                entry.try_shapes(list(shapes.values()), config.prune_rate, pruning)
        except ValueError as error:
            raise ConfigError(f"pruning={pruning.name}: {error}") from None


def refuse_wrong_augmentation(configs: list[Config]) -> None:
    """Raise ConfigError where data.augment has a transform that does not exist, or does not suit the images."""
    tried = set()
    for config in configs:
        data, entry = config.data, DATA[config.data.name]
        if not data.augment or (key := (repr(data.augment), data.name, data.size, data.pad)) in tried:
            continue
        tried.add(key)
        raw = entry.raw_info(data)
        channels, *sides = raw.shape  # images in memory are transformed before they are enlarged
        height, width = (data.size,) * 2 if entry.in_folders else (side + 2 * data.pad for side in sides)
        refuse_wrong_transforms(data.augment, (channels, height, width), raw.max_value)


def _try_metrics(configs: list[Config], infos: list[DataInfo]) -> None:
    tried = {
        (repr(config.metric), *config.metrics, info.classes): (config, info)
        for config, info in zip(configs, infos, strict=True)
    }
    for config, info in tried.values():
        refuse_wrong_metrics(config, info.classes)


def _try_functions(config: Config) -> None:
    """Try an init and a schedule of the user's own, on a small weight and for each epoch of the run."""
    init, schedule = config.init.name, config.train.schedule
    if ("init", init) in OWN:
        try:
            INITS[init].draw(torch.empty(4, 3), 1.0, torch.Generator())
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise ConfigError(_of_own(f"init={init}", error)) from None
    if ("train.schedule", schedule) in OWN and method_traits(config).is_trained():
        try:
            for epoch in range(config.train.warmup_epochs, config.train.epochs):
                SCHEDULES[schedule].rate(epoch, config.train)
        except (Exception, SystemExit) as error:
            raise ConfigError(_of_own(f"train.schedule={schedule}", error)) from None


def _of_own(part: str, error: BaseException) -> str:
    """Return the line on an error of the user's function; that of our own checks names the part already."""
    line = str(error) if str(error).startswith(part) else f"{part}: {said(error)}"
    return f"{line}; mend the function, and {AGAIN}"


def _try_networks(configs: list[Config], infos: list[DataInfo]) -> None:
    # A batch of one does not matter where nothing is trained.
    smallest = [
        2 if not method_traits(config).is_trained() else last_batch(config, info)
        for config, info in zip(configs, infos, strict=True)
    ]
    sizes = {id(config): size for config, size in zip(configs, smallest, strict=True)}
    norms = [(config.train.norm_batches > 0, config.train.norm_affine) for config in configs]
    devices = [choose_device(config.train.device) for config in configs]
    masks = [method_traits(config).masks for config in configs]
    scales = [config.init.attention_scale for config in configs]
    for config, info in _distinct(configs, infos, smallest, norms, devices, masks, scales):
        entry = model_entry(config.model)
        if entry is None or entry.probe is None:
            _refuse_attention_scale(config, None)
            continue
        try:
            network = entry.probe(config.model, info, sizes[id(config)])
        except ValueError as error:
            raise ConfigError(str(error)) from None
        _refuse_attention_scale(config, network)
        if method_traits(config).masks:
            try:
                refuse_tied(network, dense_layers(network, config.model))
            except ValueError as error:
                raise ConfigError(
                    f"model.name={config.model.name}: {error}; to mask nothing, type: method=dense"
                ) from None
        if method_traits(config).is_trained():
            refuse_undetermined(config.model.name, network, info.shape, choose_device(config.train.device))
        if config.train.norm_batches and not layers_with_statistics(network):
            rule = f"model.name={config.model.name} has no batch norm, whose statistics it would recompute"
            raise ConfigError(problem(f"train.norm_batches={config.train.norm_batches}", rule, "train.norm_batches=0"))
        if config.train.norm_affine and not norm_factors(network):
            rule = f"model.name={config.model.name} has no batch norm with factors, which it would learn"
            raise ConfigError(problem("train.norm_affine=true", rule, "train.norm_affine=false"))


def _refuse_attention_scale(config: Config, network: nn.Module | None) -> None:
    if config.init.attention_scale == 1:
        return
    if network is None or not any(isinstance(each, nn.MultiheadAttention) for each in network.modules()):
        rule = f"model.name={config.model.name} has no nn.MultiheadAttention, whose weights it would scale"
        raise ConfigError(
            problem(f"init.attention_scale={config.init.attention_scale:g}", rule, "init.attention_scale=1")
        )


def refuse_undetermined(name: str, network: nn.Module, shape: tuple[int, int, int], device: str) -> None:
    """Raise ConfigError if a step of a network (on meta) has no deterministic kernel on the device."""
    if device != "cuda":
        return
    with torch.device("meta"):
        found = without_deterministic_kernel(network, torch.empty(2, *shape))
    if found:
        raise ConfigError(
            f"model.name={name}: on an NVIDIA GPU torch has no deterministic kernel for {' and '.join(found)}, so that "
            "the same run would not give the same bits; choose a network without, as in model.name=resnet18, or type: "
            "train.device=cpu"
        )


def _refuse_where_nothing_can_be_made(out: Path) -> None:
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise _refusal(out, f"{there} is a file")
    refuse_unwritable([there], out)


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise _refusal(out, error.strerror or str(error)) from None


def _refusal(out: Path, why: str) -> ConfigError:
    rule = f"results cannot be written there ({why}); choose another out"
    return ConfigError(problem(f"out={out}", rule, "out=/tmp/runs" if str(out) == "runs" else "out=runs", lead="as in"))
