"""What can go wrong before the first run starts, and shall do so in one line."""

from pathlib import Path

from hidden_subnet.check import ConfigError
from hidden_subnet.config import Config
from hidden_subnet.data.load import prepare as prepare_data
from hidden_subnet.experiment import choose_device


def prepare(configs: list[Config]) -> None:
    """See to the device, the data (downloaded where missing) and the output folder; ConfigError or DataError if not."""
    for device in {config.train.device for config in configs}:
        choose_device(device)
    for name, root in {(config.data.name.name, config.data.root) for config in configs}:
        prepare_data(name, Path(root))
    for out in {config.out for config in configs}:
        try:
            Path(out).mkdir(parents=True, exist_ok=True)
            probe = Path(out) / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ConfigError(
                f"out={out}: results cannot be written there ({error.strerror}); choose another out"
            ) from None
