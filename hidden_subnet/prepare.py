"""What can go wrong before the first run starts, and shall do so in one line."""

import os
from pathlib import Path

import torch

from hidden_subnet.check import ConfigError
from hidden_subnet.check_model import last_batch
from hidden_subnet.data.load import prepare as prepare_data
from hidden_subnet.dataset import info_of
from hidden_subnet.experiment import choose_device
from hidden_subnet.identity import has_rate
from hidden_subnet.inits import weights_of
from hidden_subnet.methods.budget import kept_and_floors
from hidden_subnet.models import zoo
from hidden_subnet.norm import layers_with_statistics
from hidden_subnet.settings import Config, Library, Precision, PruningName, Random
from hidden_subnet.speed import refuse_bfloat16, refuse_compilation
from hidden_subnet.step_graph import refuse_graph
from hidden_subnet.subnetwork import bare_network, dense_layers
from hidden_subnet.weights import load_weights


def prepare(configs: list[Config]) -> None:
    """See to the device, torchvision's networks, the data (downloaded where missing) and the output folder.

    Raises ConfigError or DataError where one of them cannot be had.
    """
    outs = {Path(config.out) for config in configs}
    for train in (config.train for config in configs):
        device = choose_device(train.device)
        if train.precision is Precision.bf16:
            refuse_bfloat16(device)
        if train.compile:
            refuse_compilation(device)
        if train.cuda_graph:
            refuse_graph(device)
        if train.sync_norm and device != "cuda":
            raise ConfigError(
                f"train.sync_norm=true: joins the batch norms of several GPUs, and this run is on {device}; "
                "leave it away"
            )
    _try_torchvision(configs)
    for out in outs:
        _refuse_where_nothing_can_be_made(out)  # before a download of minutes, and before anything is written
    for name, root in {(config.data.name.name, config.data.root) for config in configs}:
        prepare_data(name, Path(root))
    _refuse_weights_that_do_not_fit(configs)
    _refuse_budgets_too_small(configs)
    for out in outs:
        _make(out)


def _refuse_weights_that_do_not_fit(configs: list[Config]) -> None:
    tried = set()
    for config in configs:
        info, model = info_of(config.data), config.model
        what = (config.pretrained_sha256, model.library, model.name, model.width, model.norm, info.shape, info.classes)
        if config.pretrained is None or what in tried:
            continue
        tried.add(what)
        try:
            load_weights(bare_network(config), Path(config.pretrained), config.pretrained_sha256)
        except OSError as error:
            raise ConfigError(f"pretrained={config.pretrained}: cannot be read ({error.strerror or error})") from None
        except ValueError as error:  # whose message begins with the path
            raise ConfigError(f"pretrained={error}") from None


def _refuse_budgets_too_small(configs: list[Config]) -> None:
    """One threshold for all layers has to leave each its floor."""
    tried = set()
    for config in configs:
        if config.pruning.name is PruningName.layerwise or not has_rate(config.method):
            continue
        model, info = config.model, info_of(config.data)
        network = (model.library, model.name, model.width, model.first_layer, model.last_layer, info.shape)
        what = (network, info.classes, config.prune_rate, config.pruning.floor)
        if what in tried:
            continue
        tried.add(what)
        with torch.device("meta"):
            bare = bare_network(config)
        dense = dense_layers(bare, config)
        sizes = [module.get_parameter(name).numel() for path, module, name in weights_of(bare) if path not in dense]
        try:
            kept_and_floors(sizes, config.prune_rate, config.pruning.floor)
        except ValueError as error:
            raise ConfigError(f"pruning=global: {error}") from None


def _try_torchvision(configs: list[Config]) -> None:
    tried = set()
    for config in configs:
        if config.model.library is not Library.torchvision:
            continue
        # A batch of one is no matter where nothing is trained.
        smallest = 2 if isinstance(config.method, Random) else last_batch(config)
        info = info_of(config.data)
        needs = (config.model.name, info.shape, info.classes, smallest, config.train.norm_batches > 0)
        if needs in tried:
            continue
        tried.add(needs)
        try:
            model = zoo.probe(config.model.name, info.shape, info.classes, smallest)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if config.train.norm_batches and not layers_with_statistics(model):
            raise ConfigError(
                f"train.norm_batches={config.train.norm_batches}: model.name={config.model.name} has no batch norm, "
                "whose statistics it would take anew; leave it away"
            )


def _refuse_where_nothing_can_be_made(out: Path) -> None:
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise _refusal(out, f"{there} is a file")
    if not os.access(there, os.W_OK):
        raise _refusal(out, f"{there} is read-only")


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _refusal(out, error.strerror or str(error)) from None


def _refusal(out: Path, why: str) -> ConfigError:
    return ConfigError(f"out={out}: results cannot be written there ({why}); choose another out")
