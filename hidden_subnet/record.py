"""The files of a run, which are the truth: everything else (W&B, results.csv, table, figure) is derived from them.

config.yaml      the settings
metrics.jsonl    one line an epoch, from epoch 0 (untrained) on
result.json      committed last and atomically: it exists = the run is done
provenance.json  where it comes from: command, code, versions, machine, and every attempt at it
checkpoints/     first, best, last: what was trained; epoch_<n> where checkpoint.every asks for them
log              what was said meanwhile
profile.json     only with train.profile=true: a trace of a few steps
controls.json    only after `python -m hidden_subnet controls`: what its controls reached
attempts/<n>/    while it is not done: the same files, claim.json (whose attempt it is), resume.ckpt (what going on
                 needs), and after a bad end ended.json and error.txt (the traceback); hidden_subnet/claims.py
"""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from hidden_subnet.config import as_dict, load_config, to_yaml
from hidden_subnet.identity import folder_name, projection
from hidden_subnet.settings import Config

CONFIG, METRICS, RESULT, ERROR, LOG = "config.yaml", "metrics.jsonl", "result.json", "error.txt", "log"
PROVENANCE, ATTEMPTS, CONTROLS, PROFILE = "provenance.json", "attempts", "controls.json", "profile.json"
WANDB_ID = "wandb_id"
FIRST, BEST, LAST, RESUME = "first.ckpt", "best.ckpt", "last.ckpt", "resume.ckpt"


def checkpoint_name(which: str | int) -> str:
    """Of the file in checkpoints/: first, best, last, or an epoch's number."""
    return f"epoch_{which}.ckpt" if isinstance(which, int) else f"{which}.ckpt"


def kept_checkpoints(folder: Path) -> list[str]:
    """The files in checkpoints/ that are a part of the finished run: the three, and epochs in their order."""
    epochs = [path.stem.removeprefix("epoch_") for path in (folder / "checkpoints").glob("epoch_*.ckpt")]
    return [FIRST, BEST, LAST, *map(checkpoint_name, sorted(int(epoch) for epoch in epochs if epoch.isdigit()))]


def folder_of(config: Config) -> Path:
    return Path(os.path.abspath(config.out)) / folder_name(config)


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
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in it durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_folder(config: Config) -> Path:
    """The run's folder; a config.yaml that is there must be of the very same run.

    Raises ValueError where its settings differ (an edited config.yaml), OSError where it cannot be written.
    """
    folder = folder_of(config)
    if folder.is_symlink():
        raise ValueError(f"{folder} is a symbolic link, and would lead the run's files elsewhere; remove it")
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / CONFIG
    if settings.exists() and projection(load_config(settings)) != projection(config):
        raise ValueError(f"{settings} does not describe the run that its folder is named after; move the folder away")
    return folder


def write_config(folder: Path, config: Config) -> None:
    """The settings of the execution that begins."""
    write_atomically(folder / CONFIG, to_yaml(portable(config)).encode())


def portable(config: Config) -> dict[str, Any]:
    """The settings as plain values, with a data root that means the same from any directory."""
    settings = as_dict(config)
    settings["data"]["root"] = str(Path(config.data.root).expanduser().absolute())
    settings["evaluate"] = None
    return settings


def attempts(folder: Path) -> list[int]:
    """The numbers of the attempts that have a folder, rising."""
    try:
        return sorted(int(name) for name in os.listdir(folder / ATTEMPTS) if name.isdigit())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def working(folder: Path) -> Path:
    """Where metrics, log and checkpoints of a run lie now: in its newest attempt, or in its folder when it is done."""
    numbers = attempts(folder)
    if not numbers:
        return folder
    if not (folder / RESULT).exists():
        return folder / ATTEMPTS / str(numbers[-1])
    done = folder / ATTEMPTS / str(committed(folder) or "none")  # its files are on their way up
    return done if (done / METRICS).exists() else folder


def committed(folder: Path) -> int | None:
    """The attempt whose result is the run's, while its folder is still there."""
    numbers = attempts(folder)
    # By content where the file system has no links; the seconds in it tell one attempt's from another's.
    for same in (os.path.samefile, _same_content):
        for number in numbers:
            with suppress(FileNotFoundError):
                if same(folder / RESULT, folder / ATTEMPTS / str(number) / RESULT):
                    return number
    return None


def _same_content(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def read_result(folder: Path) -> dict[str, Any] | None:
    try:
        result: dict[str, Any] = json.loads((folder / RESULT).read_text())
        result["last"]["test"]["top1"]  # an empty object is no result either
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{folder / RESULT} is damaged; remove it, or run again with force=true") from None
    return result


def write_json(path: Path, content: Any) -> None:
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def clear(folder: Path) -> None:
    """Forget what an earlier execution left, its result first: without it the run counts as not done."""
    for name in (RESULT, METRICS, LOG, WANDB_ID, CONTROLS, PROFILE):  # the provenance stays: it counts the attempts
        (folder / name).unlink(missing_ok=True)
    for name in ("checkpoints", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)


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
    except (FileNotFoundError, PermissionError):
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
