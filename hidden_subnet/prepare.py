"""What can go wrong before the first run starts, and shall do so in one line."""

import os
from pathlib import Path

from hidden_subnet.check import ConfigError
from hidden_subnet.check_model import last_batch
from hidden_subnet.config import Config, Library, Random
from hidden_subnet.data.info import INFO
from hidden_subnet.data.load import prepare as prepare_data
from hidden_subnet.experiment import choose_device
from hidden_subnet.models import zoo
from hidden_subnet.norm import layers_with_statistics


def prepare(configs: list[Config]) -> None:
    """See to the device, torchvision's networks, the data (downloaded where missing) and the output folder.

    Raises ConfigError or DataError where one of them cannot be had.
    """
    outs = {Path(config.out) for config in configs}
    for device in {config.train.device for config in configs}:
        choose_device(device)
    _try_torchvision(configs)
    for out in outs:
        _refuse_where_nothing_can_be_made(out)  # before a download of minutes, and before anything is written
    for name, root in {(config.data.name.name, config.data.root) for config in configs}:
        prepare_data(name, Path(root))
    for out in outs:
        _make(out)


def _try_torchvision(configs: list[Config]) -> None:
    tried = set()
    for config in configs:
        if config.model.library is not Library.torchvision:
            continue
        # A batch of one is no matter where nothing is trained.
        smallest = 2 if isinstance(config.method, Random) else last_batch(config)
        needs = (config.model.name, config.data.name.name, smallest, config.train.norm_batches > 0)
        if needs in tried:
            continue
        tried.add(needs)
        info = INFO[config.data.name.name]
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
