"""What can go wrong before the first run starts, and shall do so in one line."""

import os
from pathlib import Path

from hidden_subnet.check import ConfigError
from hidden_subnet.config import Config
from hidden_subnet.data.load import prepare as prepare_data
from hidden_subnet.dataset import info_of
from hidden_subnet.experiment import choose_device
from hidden_subnet.subnetwork import bare_network
from hidden_subnet.weights import load_weights


def prepare(configs: list[Config]) -> None:
    """See to the device, the data (downloaded where missing) and the output folder; ConfigError or DataError if not."""
    outs = {Path(config.out) for config in configs}
    for device in {config.train.device for config in configs}:
        choose_device(device)
    for out in outs:
        _refuse_where_nothing_can_be_made(out)  # before a download of minutes, and before anything is written
    for name, root in {(config.data.name.name, config.data.root) for config in configs}:
        prepare_data(name, Path(root))
    _refuse_weights_that_do_not_fit(configs)
    for out in outs:
        _make(out)


def _refuse_weights_that_do_not_fit(configs: list[Config]) -> None:
    tried = set()
    for config in configs:
        info = info_of(config.data)
        what = (config.pretrained_sha256, config.model.name, config.model.width, info.shape, info.classes)
        if config.pretrained is None or what in tried:
            continue
        tried.add(what)
        try:
            load_weights(bare_network(config), Path(config.pretrained), config.pretrained_sha256)
        except OSError as error:
            raise ConfigError(f"pretrained={config.pretrained}: cannot be read ({error.strerror or error})") from None
        except ValueError as error:  # whose message begins with the path
            raise ConfigError(f"pretrained={error}") from None


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
