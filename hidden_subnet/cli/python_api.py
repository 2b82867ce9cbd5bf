"""The command line as Python functions, for notebooks and scripts: `run` is `python launch.py`, `run_sweep` adds -m.

Ids, folders and results are those of the command line, so that what one has finished the other does not run again.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext, RunMode

from hidden_subnet.cli.run import run_single
from hidden_subnet.cli.sweep import run_sweep as run_here
from hidden_subnet.config.chains import ancestors
from hidden_subnet.config.convert import register
from hidden_subnet.config.identity import folder_name
from hidden_subnet.config.own_parts import import_own_parts, named, refuse_changed
from hidden_subnet.config.presets import with_own_preset
from hidden_subnet.config.program import ROOT, rank_in_environment
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError
from hidden_subnet.report.results import frame, table_of
from hidden_subnet.store import files
from hidden_subnet.store.find import run_folder
from hidden_subnet.store.posix import refuse_windows
from hidden_subnet.store.read import read_run
from hydra_plugins.hidden_subnet.compose import Composer
from hydra_plugins.hidden_subnet.grid_sweeper import expand, grids
from hydra_plugins.hidden_subnet.own_parts import without_files
from hydra_plugins.hidden_subnet.suggestions import all_settings, hydra_text

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Result:
    """A finished run. Accuracies are fractions in [0, 1], on the test images.

    >>> result = hs.run("model.width=0.125", "train.epochs=1")
    >>> gained = result.accuracy - result.untrained
    """

    folder: Path
    untrained: float
    """Accuracy of the random network under the first mask, or with all weights where nothing is removed."""
    accuracy: float
    """Accuracy at the last epoch."""
    best: float | None
    """Accuracy at the epoch that is best on the validation images; None without validation images."""
    density: float
    """Fraction of the weights that are kept."""
    record: dict[str, Any]
    """The content of the run's result.json."""

    def history(self) -> "DataFrame":
        """Return the rows of metrics.jsonl, one for each epoch; epoch 0 is the untrained network."""
        return history(self.folder)


def run(*overrides: str, use: str | Iterable[str] = (), **settings: Any) -> Result:
    """Execute one run in this process, unless it is finished, and return its result.

    >>> result = hs.run("model=conv4", "train.epochs=1", prune_rate=0.9)

    `overrides` are words of the command line, `settings` the
    same by name; no tracker gets the run unless one is named (tracker="wandb"). use: files of your own parts. Ctrl-C
    saves, and the same call resumes the run. Raises ConfigError and DataError for what cannot be run, RuntimeError
    for a run that failed, or that is stopped on purpose.
    """
    if (size := rank_in_environment()[1]) > 1:
        raise ConfigError(f"WORLD_SIZE={size}: run starts its ranks itself; type: python my_script.py")
    config = config_of(overrides, settings, use)
    with _without_main():
        code = run_single(config)
    folder = files.folder_of(config)
    if code == 130:
        raise KeyboardInterrupt
    if code:
        chain = map(files.folder_of, [*ancestors(config), config])
        folder = next((each for each in chain if not files.is_done(each)), folder)
        found = read_run(folder)
        raise RuntimeError(f"{folder.name}: {found.error or found.state}; its traceback: {files.working(folder)}")
    if (found := read_run(folder)).state == "stopped":
        raise RuntimeError(f"{folder.name}: {found.error}; as in: hidden_subnet.run(..., resume_stopped=True)")
    return result(folder)


def config_of(overrides: Sequence[str], settings: Mapping[str, Any], use: str | Iterable[str] = ()) -> Config:
    """Return the checked config of the run that `run` would execute. Raises ConfigError and DataError."""
    _refuse_several(settings)
    words, targets = without_files(_words(overrides, settings))
    words, preset = with_own_preset(words)
    with _composer(words, preset, [*named(use), *targets], RunMode.RUN) as composer:
        return composer.compose(words)


def run_sweep(
    *overrides: str, use: str | Iterable[str] = (), workers: int | None = None, **settings: Any
) -> "DataFrame":
    """Execute every combination of values on this machine, and return the runs as `results` does.

    >>> table = hs.run_sweep("model=fc", "train.epochs=1", prune_rate=[0.1, 0.9], seed=range(2))

    A list or range is several values. workers:
    number of runs at the same time, by default one per GPU or CPU core. `use` as in `run`. Prints the table at the end.
    Raises ConfigError and DataError for what cannot be run, RuntimeError where runs failed.
    """
    words, targets = without_files(_words(overrides, settings, several=True))
    words, preset = with_own_preset(words)
    with _composer(words, preset, [*named(use), *targets], RunMode.MULTIRUN) as composer:
        default = {group: composer.master.hydra.runtime.choices[group] for group in ("method", "model", "pruning")}
        jobs = expand(OverridesParser.create(), words, grids(composer.master), default)
        configs = {folder_name(config): config for config in map(composer.compose, jobs)}
    if not configs:
        raise ConfigError(f"{' '.join(words)}: one of the settings has no values; as in: seed=[0, 1]")
    with _without_main():
        _, code = run_here([*configs.values()], _label(words), workers)
    if code == 130:
        raise KeyboardInterrupt
    found = frame(read_run(files.folder_of(config)) for config in configs.values()).convert_dtypes()
    if code:
        left = int((found["state"] != "done").sum())
        raise RuntimeError(f"{left} of {len(found)} runs are not done; the lines above say why")
    return found


def result(run: str | Path) -> Result:
    """Return the result of the finished run in the folder `run`. Raises FileNotFoundError for any other."""
    folder = Path(run)
    record = files.read_result(folder)
    if record is None:
        raise FileNotFoundError(f"{folder} is not a finished run: it holds no {files.RESULT}")
    untrained = record["untrained"]["first_mask"] or record["untrained"]["unpruned"]
    best = record["best"]
    return Result(
        folder,
        untrained["top1"],
        record["last"]["test"]["top1"],
        best["test"]["top1"] if best else None,
        record["density"],
        record,
    )


def history(run: str | Path) -> "DataFrame":
    """Return the rows of metrics.jsonl of a run as a DataFrame, one for each epoch that has ended.

    >>> rows = hs.history(run)
    >>> best = rows["validation/top1"].max()

    run: its folder, or the beginning or the 12 digits of its name in runs/. Raises FileNotFoundError where none fits.
    """
    return table_of(files.read_rows(files.working(run_folder(run))))


def _refuse_several(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError where a setting that has one value is given several."""
    known = all_settings()
    one = {"model", "data", "method", "init", "pruning", *(name for name, each in known.items() if not each.is_list)}
    for name, value in settings.items():
        if name in one and isinstance(value, list | tuple | range):
            rule = "is several values, and run executes one run"
            raise ConfigError(f"{name}={value}: {rule}; as in: hidden_subnet.run_sweep({name}={value})")


def _words(overrides: Sequence[str], settings: Mapping[str, Any], several: bool = False) -> list[str]:
    """Return words of the command line, without `tracker` where none is given: a notebook asks for it by name."""
    words = [*overrides, *(f"{name}={_text(value, several)}" for name, value in settings.items())]
    names = {word.partition("=")[0] for word in words}
    if wrong := [word for word in words if "=" not in word]:
        raise ConfigError(f"{wrong[0]}: is no setting; as in: 'prune_rate=0.9'")
    if typed := [word for word in words if word.startswith("use=")]:
        raise ConfigError(f"{typed[0]}: is an argument of the function; as in: use='my_parts.py'")
    return words if names & {"tracker", "sweep"} else [*words, "tracker=none"]


def _text(value: Any, several: bool) -> str:
    if isinstance(value, list | tuple | range):
        inner = ",".join(_text(each, False) for each in value)
        return inner if several else f"[{inner}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{name}: {_text(each, False)}' for name, each in value.items())}}}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return hydra_text(value) if isinstance(value, str) else str(value)


@contextmanager
def _composer(
    words: Sequence[str], preset: Mapping[str, Path], used: Sequence[str], mode: RunMode
) -> Iterator[Composer]:
    """Give a composer of the command line; `words` may choose a preset, also one of the user's own."""
    refuse_windows()
    import_own_parts(used)
    refuse_changed(used)
    register(ROOT / "sweeps", list(words), preset)
    first = [word for word in words if word.startswith("sweep=")]
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        context = HydraContext(config_loader=loader, callbacks=None)  # type: ignore[arg-type]
        yield Composer(context, loader.load_configuration("config", [*first, f"use={json.dumps(used)}"], mode))


@contextmanager
def _without_main() -> Iterator[None]:
    """Keep processes of runs from importing the script that calls, which would call again; they need none of it."""
    main: dict[str, Any] = vars(sys.modules["__main__"])
    hidden: dict[str, Any] = {name: main[name] for name in ("__file__", "__spec__") if name in main}
    main.pop("__file__", None)
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(hidden)


def _label(words: Iterable[str]) -> str:
    swept = [word.partition("=")[0].replace("/", ".") for word in words if "," in word.partition("=")[2]]
    return "-".join(swept) or "sweep"
