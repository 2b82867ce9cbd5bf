"""Callbacks by which a run reports to its caller and is stopped; none of them can change its result."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Row = dict[str, float]
"""A line of metrics.jsonl, column to number: epoch, step, lr, train/loss, validation/top1, density, ..."""


class InterruptedRun(Exception):
    """Raised where a run was asked to stop; if its training had started, a resume checkpoint has been saved."""


class StoppedRun(InterruptedRun):
    """Raised where a run ends itself before its last epoch, with its reason; it is saved."""


@dataclass(frozen=True)
class Callbacks:
    """Functions that a run calls; by default they do nothing."""

    on_row: Callable[[Row], None] = lambda row: None
    """Called with each row, of epoch 0 too, after it was written."""
    on_step: Callable[[int, int, int], None] = lambda epoch, batch, batches: None
    """(epoch, batch, batches per epoch), counted from 1; called after each step."""
    should_stop: Callable[[], bool] = lambda: False
    """Called after each step and before each batch of an evaluation; True: save and stop."""
    on_line: Callable[[dict[str, Any]], None] = lambda line: None
    """Called with each line of tracked.jsonl (store/files.py), before the row of its epoch."""
    loss_every: int = 0
    """Steps from one line with the loss of a step to the next; 0: none."""
    histograms_every: int = 0
    """Epochs from one line with histograms of scores to the next; 0: none."""
    say: Callable[[str], None] = lambda line: None
    """Called with lines for the log of the run."""
