"""The workers of a sweep that live: each keeps a file in the sweep's folder, whose time is its last sign of life."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hidden_subnet.owners import Observer, Owner
from hidden_subnet.sweep.manifest import WORKERS


@dataclass(frozen=True)
class Worker:
    file: Path
    owner: Owner
    slots: int


def workers(folder: Path, observer: Observer) -> list[Worker]:
    """Those of the sweep in `folder` that live, as far as their process, Slurm or their silence tells."""
    found = []
    for path in sorted((folder / WORKERS).glob("*.json")):
        with suppress(OSError, ValueError, TypeError, KeyError):  # it left just now, or is still writing its file
            content, silent = json.loads(path.read_text()), observer.now() - path.stat().st_mtime
            slots = int(content.pop("slots"))
            worker = Worker(path, Owner(**content), slots)
            if not observer.is_gone(worker.owner, silent):
                found.append(worker)
    return found
