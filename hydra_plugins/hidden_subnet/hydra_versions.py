"""Differences of Hydra 1.4 from 1.3, so that the same commands and files work with both."""

import warnings
from collections.abc import Sequence
from typing import Any

import hydra
from hydra._internal.hydra import Hydra
from hydra.types import RunMode

SINCE_1_4 = tuple(map(int, hydra.__version__.split(".")[:2])) >= (1, 4)


def let_files_choose_mode() -> None:
    """Let presets and experiment files set hydra.mode: 1.4 reads it in conf/config.yaml and the command alone."""
    if not SINCE_1_4:
        return
    of_command = Hydra.get_mode

    def get_mode(self: Any, config_name: str | None, overrides: Sequence[str], *parsed: Any, **named: Any) -> Any:
        mode = of_command(self, config_name, overrides, *parsed, **named)
        return mode or _composed_mode(self.config_loader, config_name, overrides)

    Hydra.get_mode = get_mode


def _composed_mode(loader: Any, config_name: str | None, overrides: Sequence[str]) -> Any:
    """Return the mode as 1.3 finds it; None where composing fails, which it will do again to tell the user."""
    try:
        composed = loader.load_configuration(
            config_name, list(overrides), RunMode.MULTIRUN, validate_sweep_overrides=False
        )
    except Exception:
        return None
    return composed.hydra.mode


def hide_advice_for_developers() -> None:
    """Hide 1.4's warnings on code of ours that 1.5 will refuse, since setup.cfg excludes 1.5."""
    if SINCE_1_4:
        from hydra.errors import Hydra15MigrationWarning

        ours = r"hidden_subnet\b|hydra_plugins\.hidden_subnet\b"
        warnings.filterwarnings("ignore", category=Hydra15MigrationWarning, module=ours)
        # What a config may call: all, as in 1.3, since callbacks of the user's own are among it.
        warnings.filterwarnings("ignore", r"hydra\.utils\.instantiate\(\) resolved _target_=")
