"""The files that W&B keeps beside numbers, as artifacts: tracker.artifacts. What makes them is imported when needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hidden_subnet.config.convert import to_yaml
from hidden_subnet.config.settings import Artifacts, Config
from hidden_subnet.store import files, folders
from hidden_subnet.store.read import Run
from hidden_subnet.trackers import sent
from hidden_subnet.trackers.places import run_without_places, without_paths, without_places

SECONDS = 60.0
"""That sending them may take at the end of a run or sweep, and a second more for each MEGABYTE of the checkpoint."""
MEGABYTE = 1_000_000
NAME_LENGTH = 128
"""Most characters that W&B takes in the name of an artifact."""


@dataclass(frozen=True)
class Kept:
    """An artifact: files by their paths in it. Its versions on W&B are those of the same name."""

    name: str
    type: str
    description: str
    files: dict[str, Path]


def seconds(config: Config, folder: Path) -> float:
    """Return how many seconds it may take to make and send the files of a run, or of a sweep in the folder `folder`."""
    if config.tracker.artifacts is Artifacts.none:
        return 0.0
    try:
        return SECONDS + folders.status(_checkpoint(folder)).st_size / MEGABYTE
    except OSError:
        return SECONDS


def of_run(config: Config, folder: Path) -> Kept | None:
    """Return what W&B keeps of a finished run; the mask file is written for it. None if nothing is asked for.

    Raises ValueError and FileNotFoundError where the run has no such file (analysis/save_masks.py).
    """
    name = folder.name[-NAME_LENGTH:]
    if config.tracker.artifacts is Artifacts.mask:
        from hidden_subnet.analysis.save_masks import save_masks  # loads torch

        path = folder / "wandb" / f"{sent.run_id(folder)}.mask"
        if not folders.is_file(path):  # `sync` has not imported the user's own parts
            save_masks(folder, path)
        return Kept(name, "mask", 'model = hidden_subnet.load("last.mask")', {"last.mask": path})
    if config.tracker.artifacts is Artifacts.best:
        if not folders.is_file(_checkpoint(folder)):
            raise ValueError("the run has no best checkpoint: data.validation=0, or nothing is trained")
        kept = {name: folder / name for name in (files.CONFIG, files.RESULT)}
        if not config.tracker.paths:
            kept = {name: folder / "wandb" / f"{sent.run_id(folder)}.{name}" for name in kept}
            folders.write_atomically(kept[files.CONFIG], to_yaml(without_paths(files.portable(config))).encode())
            files.write_json(kept[files.RESULT], without_places(files.read_result(folder) or {}))
        kept[f"checkpoints/{files.BEST}"] = _checkpoint(folder)
        return Kept(name, "checkpoint", 'model = hidden_subnet.load(<the folder of these files>, "best")', kept)
    return None


def of_sweep(config: Config, sweep: str, folder: Path, runs: Sequence[Run], figures: Sequence[Path]) -> Kept | None:
    """Return what W&B keeps of a sweep in `folder`: results.csv and tables of its runs, and the figures (PNG).

    They are written into W&B's folder, since those of the user may change before they are sent.
    """
    if config.tracker.artifacts is Artifacts.none:
        return None
    from hidden_subnet.report.metric import METRICS
    from hidden_subnet.report.paper_tables import write_tables
    from hidden_subnet.report.results import write_results

    where = folder / "wandb"
    if not config.tracker.paths:
        runs = [run_without_places(run) for run in runs]
    written = [write_results(folder, where, runs)]
    written += write_tables(runs, where / "table", metric=METRICS[config.report.metric.name])
    for figure in figures:
        copy = where / f"figure{figure.suffix}"
        folders.write_atomically(copy, folders.read_bytes(figure, root=figure.parents[1]))
        written.append(copy)
    return Kept(sweep[-NAME_LENGTH:], "sweep", f"results of the sweep {sweep}", {path.name: path for path in written})


def _checkpoint(folder: Path) -> Path:
    return folder / "checkpoints" / files.BEST
