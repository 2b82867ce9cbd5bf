"""The line on cores that other programs keep busy, before runs start there."""

from collections.abc import Sequence

from rich.console import Console

from hidden_subnet.config.settings import Config
from hidden_subnet.store.machine import busy_cores
from hidden_subnet.sweep.console import count, say
from hidden_subnet.sweep.processes import gpus_for
from hidden_subnet.training.devices import cores

MOST = 0.5
"""Share of the cores that others may use without a word."""
SECONDS = 0.1


def say_if_busy(configs: Sequence[Config], console: Console) -> None:
    """Say in one line that runs on the CPU find busy cores; only on a terminal, where somebody can act on it."""
    if not configs or not console.is_terminal or gpus_for(list(configs)):
        return
    used, there = busy_cores(SECONDS), cores()
    if used is not None and used > MOST * there:
        share = f"{used:.1f} of {count(there, 'core')}"
        say(console, f"other programs keep {share} busy, so steps take longer; docs/performance.md says what helps")
