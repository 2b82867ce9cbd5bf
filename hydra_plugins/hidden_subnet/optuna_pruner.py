"""hydra.sweeper.pruner: trials that are worse than others after as many epochs are stopped, from the sweeper's process.

It reads the validation accuracy of each epoch from the files of the runs, so every launcher can execute them.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.store import claims, files

LOOK_SECONDS = 0.5
"""How often the files of the running trials are read."""


def _none(epochs: int, first: int) -> Any:
    from optuna.pruners import NopPruner

    return NopPruner()


def _median(epochs: int, first: int) -> Any:
    from optuna.pruners import MedianPruner

    return MedianPruner(n_startup_trials=5, n_warmup_steps=first)


def _asha(epochs: int, first: int) -> Any:
    from optuna.pruners import SuccessiveHalvingPruner

    return SuccessiveHalvingPruner(min_resource=first, reduction_factor=3)


def _hyperband(epochs: int, first: int) -> Any:
    from optuna.pruners import HyperbandPruner

    return HyperbandPruner(min_resource=first, max_resource=epochs, reduction_factor=3)


PRUNERS: dict[str, Callable[[int, int], Any]] = {
    "none": _none,
    "median": _median,
    "asha": _asha,
    "hyperband": _hyperband,
}
"""Name -> a function that makes the pruner, from the epochs of a run and those after which it may be stopped first."""


def make_pruner(name: str, epochs: int) -> Any:
    """Make Optuna's pruner for runs of so many epochs; no run ends in its first 1/27, of 100 epochs after the third.

    median: below the median of the trials before, of which there are at least 5. asha, hyperband: not among the best
    third of the trials that came as far; they look after 1/27, 1/9, 1/3 of the epochs.
    """
    return PRUNERS[name](epochs, max(1, epochs // 27))


def check_pruner(name: str) -> None:
    """Raise ConfigError for a name that is none."""
    if name not in PRUNERS:
        rule = f"must be one of {', '.join(PRUNERS)}"
        raise ConfigError(problem(f"hydra.sweeper.pruner={name}", rule, "hydra.sweeper.pruner=median", lead="as in"))


def report(trial: Any, folder: Path, told: set[int]) -> bool:
    """Report each new epoch of a run to its trial; return whether the pruner would stop it at one of them.

    trial: Optuna's. told: the epochs that were reported before, to which the new ones are added.
    """
    with suppress(OSError, ValueError):  # it has just started or ended, or a file server does not answer
        for row in files.read_rows(files.working(folder)):
            epoch = int(row["epoch"])
            if epoch > 0 and epoch not in told and "validation/top1" in row:
                told.add(epoch)
                trial.report(row["validation/top1"], epoch)
                if trial.should_prune():
                    return True
    return False


@contextmanager
def pruned(trials: Mapping[Path, Any], name: str) -> Iterator[None]:
    """Within the context, watch the runs of a batch, and ask those to stop that the pruner `name` would stop.

    trials: Optuna's trial by the run's folder. At the end each trial has the accuracy of every epoch.
    """
    told = {folder: {*trial.study.trials[trial.number].intermediate_values} for folder, trial in trials.items()}
    stop, asked = threading.Event(), set[Path]()

    def look() -> None:
        for folder, trial in trials.items():
            if folder not in asked and report(trial, folder, told[folder]):
                asked.add(folder)
                epoch = max(told[folder])
                with suppress(OSError):
                    claims.ask_to_stop(folder, f"pruned by {name} after epoch {epoch}")

    def watch() -> None:
        while not stop.wait(LOOK_SECONDS):
            look()

    thread = threading.Thread(target=watch, name="pruner", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for folder, trial in trials.items():
            while folder not in asked and report(trial, folder, told[folder]):
                pass  # it was done before it could be stopped
