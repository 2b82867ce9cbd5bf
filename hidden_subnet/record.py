"""The files of a run, which are the truth: everything else (W&B, results.csv, table, figure) is derived from them.

config.yaml      the settings
metrics.jsonl    one line an epoch, from epoch 0 (untrained) on
result.json      written last and atomically: it exists = the run is done
error.txt        the traceback of a run that failed
checkpoints/     first, best, last: what was trained; resume: what going on needs, gone when the run is done
log              what was said meanwhile
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hidden_subnet.config import Config, as_dict, load_config, to_yaml
from hidden_subnet.identity import folder_name, projection

CONFIG, METRICS, RESULT, ERROR, LOG = "config.yaml", "metrics.jsonl", "result.json", "error.txt", "log"
WANDB_ID = "wandb_id"
FIRST, BEST, LAST, RESUME = "first.ckpt", "best.ckpt", "last.ckpt", "resume.ckpt"


class BusyError(RuntimeError):
    """Another process is executing this run."""


def folder_of(config: Config) -> Path:
    return Path(config.out).absolute() / folder_name(config)


def write_atomically(path: Path, content: bytes) -> None:
    """A reader sees the old file or the new one, whole, whenever the power fails."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def open_folder(config: Config) -> Path:
    """The run's folder; a config.yaml that is there must be of the very same run.

    Raises ValueError where its settings differ (an edited config.yaml), OSError where it cannot be written.
    """
    folder = folder_of(config)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    settings = folder / CONFIG
    if settings.exists() and projection(load_config(settings)) != projection(config):
        raise ValueError(f"{settings} does not describe the run that its folder is named after; move the folder away")
    return folder


def write_config(folder: Path, config: Config) -> None:
    """The settings of the execution that begins, with a data root that means the same from any directory."""
    settings = as_dict(config)
    settings["data"]["root"] = str(Path(config.data.root).expanduser().absolute())
    write_atomically(folder / CONFIG, to_yaml(settings).encode())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run for this process; the kernel lets go when the process dies. Raises BusyError if another holds it."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BusyError(f"{folder.name} is being executed by another process") from None
        yield


def read_result(folder: Path) -> dict[str, Any] | None:
    try:
        result: dict[str, Any] = json.loads((folder / RESULT).read_text())
        result["last"]["test"]["top1"]  # an empty object is no result either
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{folder / RESULT} is damaged; remove it, or run again with force=true") from None
    return result


def write_result(folder: Path, result: dict[str, Any]) -> None:
    write_atomically(folder / RESULT, (json.dumps(result, indent=1) + "\n").encode())


def clear(folder: Path) -> None:
    """Forget what an earlier execution left, its result first: without it the run counts as not done."""
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    for name in (
        RESULT,
        METRICS,
        ERROR,
        WANDB_ID,
        *(f"checkpoints/{c}" for c in (FIRST, BEST, LAST, RESUME, f"{RESUME}.old")),
    ):
        (folder / name).unlink(missing_ok=True)


def read_rows(folder: Path) -> list[dict[str, float]]:
    """The rows of metrics.jsonl; a last line that a kill tore is left out."""
    try:
        return [json.loads(line) for line in _lines(folder)]
    except ValueError:
        raise ValueError(f"{folder / METRICS} is damaged; force=true runs the run anew") from None


def count_rows(folder: Path) -> int:
    return len(_lines(folder))


def _lines(folder: Path) -> list[str]:
    try:
        return (folder / METRICS).read_text().split("\n")[:-1]
    except FileNotFoundError:
        return []


def keep_rows(folder: Path, count: int) -> None:
    """Drop the rows that were written after the checkpoint from which the run goes on."""
    lines = _lines(folder)[:count]
    write_atomically(folder / METRICS, "".join(line + "\n" for line in lines).encode())


def append_row(folder: Path, row: dict[str, float]) -> None:
    with (folder / METRICS).open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
