"""`evaluate=` takes the settings of the run that it names: any other on its command line is a misunderstanding."""

from collections.abc import Sequence
from pathlib import Path

from hidden_subnet.check import ConfigError
from hidden_subnet.settings import Config

TAKEN = ("evaluate", "out", "train.device", "data.root")


def evaluate_as_asked(config: Config, overrides: Sequence[str]) -> int:
    """The exit code. Raises ConfigError for a setting that the run itself has."""
    keys = {line.split("=")[0].lstrip("+~"): line for line in overrides}
    others = [line for key, line in keys.items() if key not in TAKEN]
    if others:
        raise ConfigError(
            f"evaluate={config.evaluate}: is measured with its own settings; leave {' '.join(others)[:100]} away "
            f"(beside it {', '.join(TAKEN[1:])} may be given)"
        )
    from hidden_subnet.commands.evaluate import evaluate  # here is where torch loads

    assert config.evaluate is not None
    root = config.data.root if "data.root" in keys else None
    return evaluate(Path(config.out), config.evaluate, config.train.device, root)


def refuse_in_sweep(config: Config) -> None:
    if config.evaluate is not None:
        raise ConfigError(f"evaluate={config.evaluate}: measures one run; leave -m, and other settings, away")
