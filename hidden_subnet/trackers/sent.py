"""Record of what was sent to W&B: a small file in the run's folder; and W&B's own marks of what was uploaded."""

import json
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hidden_subnet.config.program import PROGRAM
from hidden_subnet.store import files, folders
from hidden_subnet.store.files import WANDB_ID
from hidden_subnet.store.folders import write_atomically

SENT = "wandb_sent.json"


@dataclass(frozen=True)
class Sent:
    """Content of wandb_sent.json."""

    id: str
    """The run's id on W&B; a record with another id is not used."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """How the run is named, grouped and placed there (wandb_environment.init_arguments): `sync` keeps to it."""
    rows: int = 0
    """Number of rows, from epoch 0 without a gap, that W&B's client accepted and closed without an error."""
    ended: bool = False
    """Whether it accepted the result too."""
    stopped: bool = False
    """Whether it was stopped there."""

    def is_in(self, project: str, entity: str | None) -> bool:
        """Whether the run was sent to that project of that account; true for records of 0.1.0, which do not say."""
        where = {"project": project, "entity": entity}
        return where == {key: self.arguments.get(key, value) for key, value in where.items()}


def run_id(folder: Path) -> str:
    """Return the run's id on W&B. It is drawn once and kept, so that a resumed run continues there."""
    path = folder / WANDB_ID
    if not folders.is_file(path):
        write_atomically(path, f"{new_id()}\n".encode())
    return folders.read_text(path).strip()


def new_id() -> str:
    """Draw the id of a run on W&B."""
    return secrets.token_hex(8)


def adopt(folder: Path, run: str) -> None:
    """Give the run that id on W&B. What was sent under another one counts as not sent."""
    if not folders.is_file(folder / WANDB_ID) or run_id(folder) != run:
        write_atomically(folder / WANDB_ID, f"{run}\n".encode())


def read(folder: Path) -> Sent | None:
    """Return the record, or None if nothing was sent under the run's present id."""
    try:
        content = folders.read_json(folder / SENT)
        if "group" in content:  # written by 0.1.0
            content["arguments"] = {"group": content.pop("group")}
        found = Sent(**content)
        return found if found.id == folders.read_text(folder / WANDB_ID).strip() else None
    except (OSError, ValueError, TypeError):
        return None


def write(folder: Path, sent: Sent) -> None:
    """Replace the record."""
    write_atomically(folder / SENT, (json.dumps(asdict(sent)) + "\n").encode())


def is_complete(folder: Path) -> bool:
    """Whether W&B's client got all that the run has now, for its server or for offline files."""
    found, rows = read(folder), files.count_rows(files.working(folder))
    done = folders.is_file(folder / files.RESULT)
    if found is None:
        return not (rows or done)
    return found.rows >= rows and (found.ended or not done)


def unsent(folder: Path) -> list[Path]:
    """Return the offline folders of a run, or of a sweep's summary, that `wandb sync` has not uploaded yet."""
    return [part for part in _offline(folder) if any(f"{each}.synced" not in names for each, names in _records(part))]


def mark_sent(folder: Path) -> None:
    """Mark the offline folders as uploaded, after the whole run was sent: `wandb sync` would send them again."""
    for part in unsent(folder):
        for name, names in _records(part):
            if f"{name}.synced" not in names:
                folders.create(part / f"{name}.synced")


def _offline(folder: Path) -> list[Path]:
    """W&B's offline folders."""
    try:
        names = folders.names(folder / "wandb")
    except FileNotFoundError:
        return []
    return [folder / "wandb" / name for name in sorted(names) if name.startswith("offline-run-")]


def _records(part: Path) -> list[tuple[str, list[str]]]:
    """W&B's files of records in an offline folder, each with all names in that folder."""
    try:
        names = folders.names(part)
    except NotADirectoryError:
        return []
    return [(name, names) for name in names if name.endswith(".wandb")]


def how_to_send(runs: Sequence[Path], sweep: Path | None = None) -> list[str]:
    """Return the line printed after a run or sweep: the command that sends what W&B does not have; none if it has all.

    `runs` are folders of runs that were tracked on W&B. Reads a few small files per run.
    """
    incomplete = [folder for folder in runs if not is_complete(folder)]
    offline = [folder for folder in (*runs, *([sweep] if sweep else [])) if unsent(folder)]
    if not incomplete and not offline:
        return []
    count = f"{len(incomplete)} of {len(runs)} runs" if len(runs) > 1 else "the run"
    why = f"W&B does not have all of {count}" if incomplete else "W&B was offline"
    return [f"{why}: {PROGRAM} sync {shlex.quote(str(sweep or (incomplete + offline)[0]))}"]
