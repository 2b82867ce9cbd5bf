"""Settings of the command line that change nothing beside the others: the user is told so in a line for each."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields

from hidden_subnet.config.identity import once_but_seed, unused
from hidden_subnet.config.parents import search_of
from hidden_subnet.config.registries import ALLOCATIONS, DATA, METRICS, method_traits, model_entry
from hidden_subnet.config.settings import Config, Structure, Train

# As identity.UNUSED, of settings that are never part of the id.
NEVER_IN_ID: list[tuple[tuple[str, ...], Callable[[Config], bool], str]] = [
    (
        tuple(f"tracker.{name}" for name in ("project", "entity", "mode", "tags", "artifacts", "paths", "alerts")),
        lambda c: "wandb" not in c.tracker.enabled,
        "no metrics are sent to W&B (tracker=wandb)",
    ),
    (
        ("tracker.histograms", "tracker.step_loss"),
        lambda c: not c.tracker.enabled,
        "there is no tracker (tracker=wandb)",
    ),
    (
        ("tracker.histograms",),
        lambda c: not method_traits(c).masks,
        "method={c.method.name} has no scores",
    ),
    (
        ("tracker.step_loss",),
        lambda c: not method_traits(c).is_trained(),
        "method={c.method.name} trains nothing",
    ),
    (
        ("data.workers",),
        lambda c: not DATA[c.data.name].in_folders,
        "the images of data={c.data.name} are read at once, into memory",
    ),
    (
        ("data.root",),
        lambda c: not DATA[c.data.name].has_files,
        "data={c.data.name} comes with the installation, and reads no files",
    ),
    (
        ("data.trust_names",),
        lambda c: not DATA[c.data.name].in_folders,
        "only runs on folders of images were known by names",
    ),
    (
        ("train.mask_kernels",),
        lambda c: (
            not method_traits(c).prunes_by_rate(c.method)
            or ALLOCATIONS[c.pruning.name].make_by_kernels is None
            or c.pruning.structure is not Structure.weight
        ),
        "there are kernels for pruning=layerwise only, of single weights",
    ),
    (("pruning.n",), lambda c: c.pruning.structure is not Structure.n_m, "pruning.structure is not n_m"),
    (
        ("checkpoint.minutes", "checkpoint.every", "checkpoint.keep"),
        lambda c: not method_traits(c).is_trained(),
        "method={c.method.name} trains nothing",
    ),
    (
        ("checkpoint.every",),
        lambda c: c.checkpoint.every > c.train.epochs,
        "the last epoch is train.epochs={c.train.epochs}",
    ),
    (("stop_collapsed_epoch",), lambda c: not c.stop_collapsed, "stop_collapsed is false"),
    (
        ("stop_collapsed", "stop_collapsed_epoch"),
        lambda c: not method_traits(c).is_trained(),
        "method={c.method.name} trains nothing",
    ),
    (
        ("stop_collapsed", "stop_collapsed_epoch"),
        lambda c: c.stop_collapsed_epoch >= c.train.epochs,
        "the last epoch is train.epochs={c.train.epochs}",
    ),
    (
        ("train.sync_norm",),
        lambda c: (entry := model_entry(c.model)) is not None and not entry.has_norm,
        "model={c.model.name} has no batch norm",
    ),
    (("seed",), lambda c: _sets_every_stream(c), "each stream that the run draws from has a seed of its own (seeds.*)"),
]
EFFECT_ON_EVALUATION = {f"train.{field.name}" for field in fields(Train) if field.metadata["id"] == "never"}
"""Settings of `train` that are used where nothing is trained."""


def unused_lines(configs: Sequence[Config], typed: Iterable[str]) -> list[str]:
    """Return a line for each typed `setting=value` that changes nothing in any of the runs.

    A setting with several values is left to duplicate_runs, which counts the runs that it does not make.
    """
    names = {line.partition("=")[0].lstrip("+"): line for line in typed}
    found: list[str] = []
    without_effect: list[dict[str, str]] = []
    for name, line in names.items():
        if "," in line or "(" in line or (name == "pruning.ramp_epochs" and line.endswith("=0")):
            continue
        without_effect = without_effect or once_but_seed(
            configs, lambda config: _without_effect(config, len(configs)), lambda found, _: found
        )
        reasons = [each.get(name) or each.get(name.partition(".")[0]) for each in without_effect]
        if reasons and all(reasons):
            found.append(f"{line} changes nothing: {'; '.join(dict.fromkeys(filter(None, reasons)))}")
    return found


def _sets_every_stream(config: Config) -> bool:
    not_drawn = unused(config)
    return all(seed is not None or f"seeds.{stream}" in not_drawn for stream, seed in asdict(config.seeds).items())


def _without_effect(config: Config, runs: int) -> dict[str, str]:
    """Return what changes nothing in one run of a command of several `runs`, and why."""
    found = {"on_error": "there is one run"} if runs == 1 else {}
    found |= {name: why for name, why in unused(config).items() if name not in EFFECT_ON_EVALUATION}
    if (search := search_of(config)) is not None:
        unused_there = _without_effect(search, runs).keys() | {f"train.{name}" for name in config.mask_train}
        found = {name: why for name, why in found.items() if name in unused_there}
    others = METRICS.keys() - set(config.metrics)
    found |= {
        f"metric.{name}.{each}": f"metrics=[{name}] is not given"
        for name in others
        for each in METRICS[name].defaults()
    }
    for names, holds, why in NEVER_IN_ID:
        if holds(config):
            found |= dict.fromkeys(names, why.format(c=config))
    return found
