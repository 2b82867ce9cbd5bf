"""Registers a metric of the user's own, which is measured at every evaluation of the runs that name it.

    @hidden_subnet.register_metric("calibration")
    def calibration(logits, labels):
        probability, guess = logits.softmax(dim=1).max(dim=1)
        return (probability.mean() - (guess == labels).float().mean()).abs()

`python launch.py use=my_parts.py metrics=[calibration]`. Rows of metrics.jsonl have it as validation/calibration, the
results as last.test.calibration.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from hidden_subnet.config.own_parts import said
from hidden_subnet.config.registries import METRICS, MetricEntry, NoSettings, register_own
from hidden_subnet.config.settings import MISSING, Config
from hidden_subnet.config.signature import settings_of
from hidden_subnet.errors import AGAIN, ConfigError
from hidden_subnet.seeding import generator
from hidden_subnet.training.metrics import Measure

Function = TypeVar("Function", bound=Callable[..., Any])
FIRST = ("logits", "labels")
OURS = ("loss", "top1", "top5")
TRIED = 16
"""Number of made-up images on which a metric is tried."""


def register_metric(name: str) -> Callable[[Function], Function]:
    """Return a decorator that makes `metrics=[<name>]` measure `(logits, labels, **settings)`, which returns a number.

    >>> @hs.register_metric("confidence")
    ... def confidence(logits, labels):
    ...     return logits.softmax(1).amax(1).mean()

    logits: float32 (N, classes), of all images of an evaluation, before the softmax. labels: int64 (N,). Both are on
    the CPU, in any order of the images. NaN where the metric has no value for them, which is then not recorded.
    Further arguments need a default, and are settings: metric.<name>.<argument>. Raises TypeError for arguments that
    cannot be settings, ValueError for a name in use, or one that cannot be a column.
    """
    if not name.isidentifier() or name in OURS:
        rule = f"needs a name of letters, digits and _, other than {', '.join(OURS)}"
        raise ValueError(f"register_metric({name!r}): {rule}")

    def enter(function: Function) -> Function:
        settings = settings_of(name, function, NoSettings, f"metric.{name}", FIRST, named=False, by_position=True)
        entry = MetricEntry(_measured_by(name, function), settings)
        for each, default in entry.defaults().items():
            if default == MISSING:
                raise TypeError(f"{function.__name__}: {each} needs a default, as in {each}: int = 15")
        register_own("metrics", METRICS, name, function)(entry)
        return function

    return enter


def _measured_by(name: str, function: Callable[..., Any]) -> Callable[..., float]:
    """Return what calls the user's function, and raises ValueError for its errors and for what is no number."""

    def measure(logits: Tensor, labels: Tensor, **given: Any) -> float:
        try:
            found = function(logits.clone(), labels.clone(), **given)  # so that it may change them
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise ValueError(f"metrics=[{name}]: {said(error)}") from error
        try:
            if isinstance(found, str | bytes):
                raise TypeError
            return float(found)
        except (TypeError, ValueError, OverflowError):
            what = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else repr(found)[:50]
            raise ValueError(f"metrics=[{name}]: must return one number, and returns {what}") from None

    return measure


def measures(config: Config) -> dict[str, Measure]:
    """Return the functions of the metrics that the config names, by name."""
    return {name: partial(METRICS[name].measure, **config.metric.get(name, {})) for name in config.metrics}


def refuse_wrong_metrics(config: Config, classes: int) -> None:
    """Raise ConfigError, in one line, for a metric that fails on a few made-up logits, or returns no number."""
    logits = 2 * torch.randn(TRIED, classes, generator=generator(0, "metrics"))
    for measure in measures(config).values():
        try:
            measure(logits, torch.arange(TRIED) % classes)
        except ValueError as error:
            raise ConfigError(f"{error} (tried on made-up logits); mend the metric, and {AGAIN}") from None


def without_value(config: Config, measured: Mapping[str, Any], images: str) -> list[str]:
    """Return the metrics of the config that have no finite value among the columns <images>/<metric>."""
    return [name for name in config.metrics if not math.isfinite(measured.get(f"{images}/{name}", math.nan))]
