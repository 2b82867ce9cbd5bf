"""A sweep is a list of runs: one file in the sweep's folder, which every worker reads, wherever it is."""

import hashlib
import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hidden_subnet.config import from_dict
from hidden_subnet.identity import folder_name
from hidden_subnet.record import portable, write_json
from hidden_subnet.settings import Config

SWEEPS, MANIFEST, STOP, WORKERS, FAILURES = ".sweeps", "manifest.json", "stop", "workers", "failures"


@dataclass(frozen=True)
class Sweep:
    folder: Path
    configs: list[Config]
    provenance: dict[str, Any]
    """Of the command that launched it (provenance.of_command)."""
    launched: float
    """When, by the clock of the file system."""
    launch: str | None
    """An id: what failed under another is tried again, what fails under this one is not. None: under any."""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def out(self) -> Path:
        return self.folder.parents[1]

    @cached_property
    def runs(self) -> list[Path]:
        return [self.out / folder_name(config) for config in self.configs]


def sweep_name(label: str, configs: list[Config]) -> str:
    """`label` and 8 hex digits of the ids of its runs: the same runs are the same sweep."""
    ids = sorted(folder_name(config) for config in configs)
    return f"{label[:40]}-{hashlib.sha256(' '.join(ids).encode()).hexdigest()[:8]}"


def folder_of(label: str, configs: list[Config]) -> Path:
    return Path(os.path.abspath(configs[0].out)) / SWEEPS / sweep_name(label, configs)


def write(configs: list[Config], label: str, provenance: dict[str, Any]) -> Sweep:
    """Launch: from now on workers may execute the runs, and an earlier `stop` counts no more."""
    folder = folder_of(label, configs)
    folder.mkdir(parents=True, exist_ok=True)
    # Workers start in other directories, perhaps on other machines.
    runs = [{"name": folder_name(config), "settings": portable(config)} for config in configs]
    write_json(
        folder / MANIFEST,
        {"name": folder.name, "label": label, "launch": secrets.token_hex(8), **provenance, "runs": runs},
    )
    (folder / STOP).unlink(missing_ok=True)
    return read(folder)


def read(folder: Path) -> Sweep:
    """Raises FileNotFoundError, or ValueError where the file is no manifest or of other runs than it says."""
    path = folder / MANIFEST
    launched = path.stat().st_mtime
    try:
        content = json.loads(path.read_text())
        runs, launch = content.pop("runs"), str(content.get("launch", ""))
        configs = [from_dict(run["settings"]) for run in runs]
        if not configs:
            raise ValueError("it has no runs")
        for config, run in zip(configs, runs, strict=True):
            if folder_name(config) != run["name"]:
                raise ValueError(f"the settings of {run['name']} are those of another run")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); the command that launched the sweep writes it anew") from None
    folder = folder.absolute()
    for config in configs:
        config.out = str(folder.parents[1])
    return Sweep(folder, configs, {key: content.get(key) for key in ("command", "directory", "git")}, launched, launch)


def find(out: Path) -> list[Path]:
    """The folders of all sweeps of `out`, the one launched last first."""
    manifests = (out / SWEEPS).glob(f"*/{MANIFEST}")
    return [path.parent for path in sorted(manifests, key=lambda path: path.stat().st_mtime, reverse=True)]


def stop(sweep: Path, reason: str) -> None:
    """Ask every worker of the sweep, wherever it is, to save and end. The first reason stays."""
    try:
        file = os.open(sweep / STOP, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return
    with suppress(OSError):  # on a full disk the empty file says it as well
        os.write(file, f"{reason}\n".encode())
    os.close(file)


def note_failure(sweep: Sweep, run: str, message: str) -> None:
    """A run that failed before it had an attempt to write to; those who look at the sweep see it here."""
    folder = sweep.folder / FAILURES
    with suppress(OSError):  # then only its worker knows
        folder.mkdir(exist_ok=True)
        write_json(folder / f"{run}.json", {"launch": sweep.launch, "message": message})


def noted_failure(sweep: Sweep, run: str) -> str | None:
    """What `note_failure` said of it in this launch."""
    try:
        said = json.loads((sweep.folder / FAILURES / f"{run}.json").read_text())
        return str(said["message"]) if said["launch"] == sweep.launch else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stop_reason(sweep: Path) -> str | None:
    try:
        return (sweep / STOP).read_text().strip() or "stopped"
    except FileNotFoundError:
        return None
