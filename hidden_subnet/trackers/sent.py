"""What W&B has been given of a run: one small file beside the run's id, and W&B's own marks of what was uploaded."""

import json
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hidden_subnet import record
from hidden_subnet.record import WANDB_ID, write_atomically

SENT = "wandb_sent.json"


@dataclass(frozen=True)
class Sent:
    id: str
    """Of the run on W&B; what was sent under another id counts no more."""
    group: str | None = None
    rows: int = 0
    """How many rows, from epoch 0 on and without a gap, a client has taken and closed without a fault."""
    ended: bool = False
    """The result too."""


def run_id(folder: Path) -> str:
    """The run's id on W&B, made once and kept, so that a run that goes on goes on there."""
    path = folder / WANDB_ID
    if not path.exists():
        write_atomically(path, f"{secrets.token_hex(8)}\n".encode())
    return path.read_text().strip()


def read(folder: Path) -> Sent | None:
    """None where nothing was sent under the id that the run has now."""
    try:
        found = Sent(**json.loads((folder / SENT).read_text()))
        return found if found.id == (folder / WANDB_ID).read_text().strip() else None
    except (OSError, ValueError, TypeError):
        return None


def write(folder: Path, sent: Sent) -> None:
    write_atomically(folder / SENT, (json.dumps(asdict(sent)) + "\n").encode())


def is_complete(folder: Path, on_server: bool = False) -> bool:
    """Whether W&B was given all that the run has by now; what lies offline counts unless `on_server`."""
    found, rows = read(folder), record.count_rows(record.working(folder))
    done = (folder / record.RESULT).exists()
    if found is None:
        return not (rows or done)
    given = found.rows >= rows and (found.ended or not done)
    return given and not (on_server and unsent(folder))


def unsent(folder: Path) -> list[Path]:
    """The offline parts of a run, or of a sweep's summary, that `wandb sync` has not sent yet."""
    parts = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    return [path.parent for path in parts if not path.with_name(f"{path.name}.synced").exists()]


def mark_sent(folder: Path) -> None:
    """After the whole run was sent anew: else `wandb sync` would add the offline parts to it once more."""
    for part in unsent(folder):
        for path in part.glob("*.wandb"):
            path.with_name(f"{path.name}.synced").touch()


def how_to_send(runs: Sequence[Path], sweep: Path | None = None) -> list[str]:
    """Lines for the end of a sweep, or of a run: the command that sends to W&B what was tracked offline or missed.

    `runs` are folders of runs that were tracked on W&B. No line where W&B has all. Reads a few small files a run.
    """
    lines = []
    missed = [folder for folder in runs if not is_complete(folder)]
    if missed:
        what = shlex.quote(str(sweep or missed[0]))
        count = f"{len(missed)} of {len(runs)} runs" if len(runs) > 1 else "the run"
        lines.append(f"W&B has not all of {count}: python -m hidden_subnet sync {what}")
    folders = [*runs, *([sweep] if sweep else [])]
    waiting = [folder for folder in folders if folder not in missed and unsent(folder)]
    if waiting:
        lines.append(f"W&B was offline: wandb sync {' '.join(_arguments(waiting))}")
    return lines


def _arguments(folders: Sequence[Path]) -> list[str]:
    """W&B takes a folder's wandb/ and skips in it what was sent; few are named, many are a pattern for the shell."""
    by_parent: dict[Path, list[Path]] = {}
    for folder in folders:
        by_parent.setdefault(folder.parent, []).append(folder)
    named = []
    for parent, inside in by_parent.items():
        if len(inside) <= 3:
            named += [shlex.quote(str(folder / "wandb")) for folder in inside]
        else:  # other runs of the folder come along, if they have anything to send
            named.append(f"{shlex.quote(str(parent))}/*/wandb")
    return named
