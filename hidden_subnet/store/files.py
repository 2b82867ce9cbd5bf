"""The files of a run. They are the only record: W&B, results.csv, table and figure are derived from them.

config.yaml      the settings
metrics.jsonl    one line per epoch, starting with epoch 0 (untrained)
result.json      written last and atomically: the run is done if and only if it exists
provenance.json  where the run comes from: command, code, versions, machine, and every attempt at it
checkpoints/     first, best, last: what was trained; epoch_<n> if checkpoint.every asks for them
tracked.jsonl    only with tracker.histograms or tracker.step_loss: what trackers get beside the rows, by step
log              messages of the run
profile.json     only with train.profile=true: a trace of a few steps
controls.json    only after `python -m hidden_subnet controls`: the accuracies of the run's controls
attempts/<n>/    while the run is not done: the same files, claim.json (which process holds it), resume.ckpt (the
                 checkpoint to resume from); if the attempt did not finish, ended.json, and error.txt with the traceback
                 if it failed. See hidden_subnet/store/claims.py
"""

import json
import os
import re
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from hidden_subnet.config.checks import problems
from hidden_subnet.config.convert import as_dict, parse_config, to_yaml
from hidden_subnet.config.identity import earlier_folder_name, folder_name, projection
from hidden_subnet.config.own_parts import missing_parts
from hidden_subnet.config.parsing import parse_json
from hidden_subnet.config.settings import Config, Data
from hidden_subnet.store import folders
from hidden_subnet.store.patience import patiently

CONFIG, METRICS, RESULT, ERROR, LOG = "config.yaml", "metrics.jsonl", "result.json", "error.txt", "log"
PROVENANCE, CONTROLS, PROFILE, TRACKED = "provenance.json", "controls.json", "profile.json", "tracked.jsonl"
ATTEMPTS = folders.ATTEMPTS
ROW_BYTES, METRICS_BYTES = 64 << 10, 512 << 20
"""Longest row of metrics.jsonl, and the largest of these files: a million epochs."""
ERROR_BYTES, MESSAGE = 1 << 20, 2000
"""Most bytes of a traceback that are read, from its end; most characters of a message that are shown."""
WANDB_ID = "wandb_id"
MASK = ".mask"
"""End of the name of a file of masks."""
FIRST, BEST, LAST, RESUME = "first.ckpt", "best.ckpt", "last.ckpt", "resume.ckpt"


def checkpoint_name(which: str | int) -> str:
    """Name of a file in checkpoints/; `which` is first, best, last or the number of an epoch."""
    return f"epoch_{which}.ckpt" if isinstance(which, int) else f"{which}.ckpt"


def kept_checkpoints(folder: Path) -> list[str]:
    """Names of the checkpoints that belong to a finished run: first, best, last, then the epochs in order."""
    try:
        found = [re.fullmatch(r"epoch_([0-9]+)\.ckpt", name) for name in folders.names(folder / "checkpoints")]
    except FileNotFoundError:
        found = []
    return [FIRST, BEST, LAST, *map(checkpoint_name, sorted(int(each[1]) for each in found if each))]


def kept_masks(folder: Path) -> list[str]:
    """Names of the files of masks that a finished run has in the place of its checkpoints (checkpoint.keep=mask)."""
    with suppress(FileNotFoundError):
        return sorted(name for name in folders.names(folder / "checkpoints") if name.endswith(MASK))
    return []


def folder_of(config: Config, name: str | None = None) -> Path:
    """Absolute path of the run's folder, whether it exists or not; an older version may have named it otherwise.

    name: folder_name(config), where it is known.
    """
    out, name = Path(os.path.abspath(config.out)), name or folder_name(config)
    earlier = earlier_folder_name(config)
    return out / (earlier if earlier and os.path.exists(out / earlier) else name)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file (folders.write_atomically).

    Waits for a file server that does not answer, rather than losing what a run has computed.
    """
    patiently(lambda: folders.write_atomically(path, content))


def open_folder(config: Config) -> Path:
    """Create the run's folder, or check that the existing one belongs to this run.

    Raises ValueError if the config.yaml in it describes another run (it was edited), OSError if it cannot be created.
    """
    folder = folder_of(config)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folders.make_folder(folder, root=folder.parent)
    settings = folder / CONFIG
    if folders.is_file(settings) and projection(_parse(settings)) != projection(config):
        raise ValueError(f"{settings} does not describe the run that its folder is named after; move the folder away")
    return folder


def load_config(path: Path) -> Config:
    """Read the config.yaml of a run. Raises ValueError if it is damaged or breaks a rule, and OSError.

    The rules cannot be asked of a run on own parts that are not imported.
    """
    config = _parse(path)
    for problem in problems(config) if not missing_parts(config) else ():
        raise ValueError(f"{path} is damaged ({problem}); move it away")
    return config


def _parse(path: Path) -> Config:
    return parse_config(folders.read_text(path), path)


def write_config(folder: Path, config: Config) -> None:
    """Write the settings of the execution that starts now to config.yaml."""
    write_atomically(folder / CONFIG, to_yaml(portable(config)).encode())


def portable(config: Config) -> dict[str, Any]:
    """The settings as plain values, with absolute paths of data, so that they mean the same in any directory."""
    settings = as_dict(config)
    for name in path_settings(config.data):
        settings["data"][name] = str(Path(settings["data"][name]).expanduser().absolute())
    settings["evaluate"] = None
    return settings


def path_settings(data: Data) -> list[str]:
    """Names of the settings of the images that are paths."""
    return [field.name for field in fields(data) if field.metadata.get("is_path")]


_NUMBER = re.compile("[1-9][0-9]{0,8}")


def attempts(folder: Path) -> list[int]:
    """Numbers of the attempts that have a folder, in increasing order."""
    try:
        return sorted(int(name) for name in folders.names(folder / ATTEMPTS) if _NUMBER.fullmatch(name))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def working(folder: Path) -> Path:
    """The folder with the run's current metrics, log and checkpoints: its newest attempt, or the run's when done."""
    numbers = attempts(folder)
    if not numbers:
        return folder
    if not folders.is_file(folder / RESULT):
        return folder / ATTEMPTS / str(numbers[-1])
    done = folder / ATTEMPTS / str(committed(folder) or "none")  # finalize has not moved its files up yet
    return done if folders.is_file(done / METRICS) else folder


def committed(folder: Path) -> int | None:
    """Number of the attempt whose result became the run's; None once that attempt's folder has been removed."""
    numbers = attempts(folder)
    # Compared by content on a file system without links; the seconds in a result differ between attempts.
    for same in (_same_file, _same_content):
        for number in numbers:
            with suppress(FileNotFoundError):
                if same(folder / RESULT, folder / ATTEMPTS / str(number) / RESULT):
                    return number
    return None


def _same_file(one: Path, other: Path) -> bool:
    return os.path.samestat(folders.status(one), folders.status(other))


def _same_content(one: Path, other: Path) -> bool:
    return folders.read_bytes(one) == folders.read_bytes(other)


def is_done(folder: Path) -> bool:
    """Whether the run has a result, as far as can be seen; False if its folder cannot be read."""
    try:
        return folders.is_file(folder / RESULT)
    except OSError:
        return False


def read_result(folder: Path) -> dict[str, Any] | None:
    """result.json of the run; None if the run is not done. Raises ValueError if the file is damaged."""
    try:
        result: dict[str, Any] = folders.read_json(folder / RESULT)
        # An empty object is damaged too, and so is a text where a number belongs.
        rules = result.get("projection", {}).get("schema", 1)
        if not 0 <= result["last"]["test"]["top1"] <= 1 or not isinstance(rules, int):
            raise ValueError("it holds other values than a result")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{folder / RESULT} is damaged; remove it, or run again with force=true") from None
    return result


def read_error(folder: Path) -> str:
    """The traceback of the run's newest attempt; "" if there is none, or it cannot be read."""
    try:
        return _end_of_error(folder, ERROR_BYTES)
    except OSError:
        return ""


def _end_of_error(folder: Path, count: int) -> str:
    return folders.read_end(working(folder) / ERROR, count).decode(errors="replace")


def last_error_line(folder: Path) -> str:
    """The last line of `read_error` that is not empty; "" if there is none."""
    try:
        lines = _end_of_error(folder, ROW_BYTES).strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip()[:MESSAGE] if lines else ""


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, atomically."""
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def clear(folder: Path) -> None:
    """Remove what an earlier execution left. The result goes first: without it the run counts as not done."""
    # provenance.json stays: it counts the attempts.
    for name in (RESULT, METRICS, LOG, WANDB_ID, CONTROLS, PROFILE, TRACKED):
        folders.remove(folder / name)
    for name in ("checkpoints", "tensorboard"):
        with suppress(OSError):
            folders.remove_tree(folder / name)


def read_rows(folder: Path) -> list[dict[str, float]]:
    """The rows of metrics.jsonl, without a last line that is incomplete after a kill. Raises ValueError if damaged."""
    try:
        return [_row(line) for line in _lines(folder)]
    except ValueError:
        raise ValueError(f"{folder / METRICS} is damaged; restart the run with force=true") from None


def last_row(folder: Path) -> dict[str, float]:
    """The last complete row of metrics.jsonl, of which only the end is read; {} if there is none or it is damaged."""
    try:
        return _row(folders.read_end(folder / METRICS, ROW_BYTES).decode().rpartition("\n")[0].rpartition("\n")[2])
    except (ValueError, FileNotFoundError, PermissionError):
        return {}


def _row(line: str) -> dict[str, float]:
    """Parse a row. Raises ValueError unless it holds numbers."""
    row = parse_json(line)
    if not isinstance(row, dict) or not all(isinstance(value, int | float) for value in row.values()):
        raise ValueError("it is no row of numbers")
    return row


def count_rows(folder: Path) -> int:
    """Number of complete rows in metrics.jsonl; 0 if there is no file."""
    return len(_lines(folder))


def _lines(folder: Path) -> list[str]:
    try:
        return folders.read_text(folder / METRICS, limit=METRICS_BYTES).split("\n")[:-1]
    except (FileNotFoundError, PermissionError):
        return []


def keep_rows(folder: Path, count: int) -> None:
    """Keep the first `count` rows: later ones were written after the checkpoint from which the run resumes."""
    lines = _lines(folder)[:count]
    write_atomically(folder / METRICS, "".join(line + "\n" for line in lines).encode())


def append_row(folder: Path, row: dict[str, float]) -> None:
    """Append a row to metrics.jsonl and flush it to disk; waits for a file server that does not answer."""
    patiently(lambda: append(folder / METRICS, json.dumps(row) + "\n", flush=True))


def append_tracked(folder: Path, line: dict[str, Any]) -> None:
    """Append a line to tracked.jsonl; waits for a file server that does not answer."""
    patiently(lambda: append(folder / TRACKED, json.dumps(line) + "\n"))


def read_tracked(folder: Path) -> list[dict[str, Any]]:
    """The lines of tracked.jsonl in order; without one that a kill has cut, or somebody damaged."""
    try:
        lines = folders.read_text(folder / TRACKED, limit=METRICS_BYTES).split("\n")
    except (FileNotFoundError, PermissionError):
        return []
    found = []
    for line in lines:
        with suppress(ValueError):
            parsed = parse_json(line)
            if isinstance(parsed, dict) and isinstance(parsed.get("step"), int):
                found.append(parsed)
    return found


def tracked_place(line: dict[str, Any]) -> tuple[int, bool]:
    """The place of a line in tracked.jsonl: (step, whether it is of an epoch, which is behind that of its step)."""
    return line["step"], "layers" in line


def append(path: Path, text: str, *, flush: bool = False) -> None:
    """Append all of the text to the file or, if that fails, nothing; `flush`: to disk."""
    with os.fdopen(folders.append(path), "ab", buffering=0) as file:
        size, left = os.fstat(file.fileno()).st_size, text.encode()
        try:
            while left:
                left = left[file.write(left) :]
            if flush:
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(size)
            raise
