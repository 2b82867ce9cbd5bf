"""Training: one run, from its config to its result."""

from hidden_subnet.training import optim, own_metrics

__all__ = ["optim", "own_metrics"]
"""Importing this file fills registries.OPTIMIZERS and SCHEDULES; METRICS is the user's."""
