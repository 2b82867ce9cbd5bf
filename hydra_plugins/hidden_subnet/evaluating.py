"""`evaluate=<run>` uses the settings of that run, so other settings on the command line are refused."""

from collections.abc import Sequence
from pathlib import Path

from hidden_subnet.config.program import LAUNCH
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError, problem

ALLOWED = ("evaluate", "out", "train.device", "data.root", "use")


def evaluate_as_asked(config: Config, overrides: Sequence[str]) -> int:
    """Evaluate the run that `config.evaluate` names. Returns the exit code.

    overrides: those on the command line. Raises ConfigError if one of them is a setting that the run itself has.
    """
    assert config.evaluate is not None
    if not config.evaluate.strip():
        raise ConfigError(problem("evaluate=", "name a finished run", "evaluate=runs/digits-conv2", lead="as in"))
    keys = {line.split("=")[0].lstrip("+~"): line for line in overrides}
    others = [line for key, line in keys.items() if key not in ALLOWED]
    if others:
        rule = (
            f"the run is evaluated with its own settings, without {' '.join(others)[:100]} (only "
            f"{', '.join(ALLOWED[1:])} can be given)"
        )
        allowed = [line for key, line in keys.items() if key in ALLOWED]
        raise ConfigError(problem(f"evaluate={config.evaluate}", rule, *LAUNCH.split(), *allowed))
    from hidden_subnet.cli.evaluate import evaluate  # imports torch

    root = config.data.root if "data.root" in keys else None
    return evaluate(Path(config.out), config.evaluate, config.train.device, root)


def refuse_in_sweep(config: Config) -> None:
    """Raise ConfigError if a job of a sweep has evaluate=."""
    if config.evaluate is not None:
        typed = f"evaluate={config.evaluate}"
        raise ConfigError(problem(typed, "evaluates one run; remove -m", *LAUNCH.split(), typed))
