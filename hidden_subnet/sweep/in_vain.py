"""Lines on what a command asks for in vain: files of finished runs, runs that learn nothing, former images."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from hidden_subnet.config.registries import info_of, method_traits, model_entry
from hidden_subnet.config.settings import Config
from hidden_subnet.store import files, folders
from hidden_subnet.sweep.console import count
from hidden_subnet.sweep.other_images import other_images


def in_vain(configs: Sequence[Config], runs: Sequence[Path]) -> Iterator[str]:
    """Yield a line for each thing that the runs of a command do not do, with what to type; none where there is none.

    runs: the folders of the configs.
    """
    yield from other_images(configs, runs)
    finished: list[tuple[Config, Path]] = []
    todo: list[Config] = []
    for config, run in zip(configs, runs, strict=True):
        if not config.force and _has(run, files.RESULT):
            finished.append((config, run))
        else:
            todo.append(config)
    if untraced := [run for config, run in finished if config.train.profile and not _has(run, files.PROFILE)]:
        yield (
            f"train.profile=true: no trace is written of {count(len(untraced), 'run')} finished before; add force=true "
            "to run again with a trace"
        )
    if untrained := Counter(c.method.name for c in configs if c.train.profile and not method_traits(c).is_trained()):
        yield f"train.profile=true: method={' and method='.join(untrained)} takes no training step to trace"
    if unkept := [config for config, run in finished if _lacks_epochs(config, run)]:
        yield (
            f"checkpoint.every={unkept[0].checkpoint.every}: no epoch is kept of {count(len(unkept), 'run')} finished "
            "before; add force=true to run again and keep them"
        )
    if still := [c for c in todo if _learns_nothing(c)]:
        rate, names = still[0].prune_rate, Counter(c.method.name for c in still)
        yield (
            f"prune_rate={rate:g} removes no weight, so method={' and method='.join(names)} has nothing to choose: "
            f"{count(len(still), 'run')} will only measure the random network; method=random does so without training"
        )


def _has(run: Path, name: str) -> bool:
    try:
        return folders.is_file(run / name)
    except OSError:  # a folder that cannot be read is for its own run to report
        return False


def _lacks_epochs(config: Config, run: Path) -> bool:
    every = config.checkpoint.every
    if not (0 < every <= config.train.epochs and method_traits(config).is_trained()):
        return False
    path = Path("checkpoints", files.checkpoint_name(every))
    return not any(_has(run, str(each)) for each in (path, path.with_suffix(files.MASK)))


def _learns_nothing(config: Config) -> bool:
    """Return whether only the scores are trained, and all weights are kept whatever the scores are."""
    method, entry = method_traits(config), model_entry(config.model)
    if not (method.is_trained() and method.prunes_by_rate(config.method)) or method.trains_weights() or entry is None:
        return False
    weights = entry.weights(config.model, info_of(config.data))
    largest: float = max([config.prune_rate, *config.pruning.rates.values()])
    return largest * (weights or 1e12) < 1
