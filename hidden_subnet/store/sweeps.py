"""A sweep: a list of runs in one file, the manifest, which every worker reads on whatever machine it is."""

import hashlib
import json
import os
import re
import secrets
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from hidden_subnet.config.chains import chained
from hidden_subnet.config.checks import check
from hidden_subnet.config.convert import from_dict
from hidden_subnet.config.identity import earlier_folder_name, folder_name, name_of, once_but_seed, projections
from hidden_subnet.config.own_parts import missing_parts
from hidden_subnet.config.settings import Config
from hidden_subnet.store import folders
from hidden_subnet.store.child_processes import cannot_start
from hidden_subnet.store.files import MESSAGE, path_settings, portable, write_atomically, write_json
from hidden_subnet.store.files import folder_of as run_folder
from hidden_subnet.store.liveness import (
    BEATS,
    Holder,
    LivenessProbe,
    beat,
    beats_of,
    holder_from,
    remove_mark,
)
from hidden_subnet.store.patience import is_passing

SWEEPS, MANIFEST, STOP = folders.SWEEPS, "manifest.json", "stop"
WORKERS, FAILURES, SLURM = "workers", "failures", "slurm"
MANIFEST_BYTES = 512 << 20
"""Largest manifest that is read; that of 20,000 runs has 70 MB."""
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*-[0-9a-f]{12}")
"""Names of run folders (identity.folder_name)."""


@dataclass(frozen=True)
class Sweep:
    """A manifest as it was read: plain values, from which `configs` are built only for those who execute runs."""

    folder: Path
    runs: list[Path]
    """Folders of the runs."""
    settings: list[dict[str, Any]]
    """All settings of each run, as its config.yaml has them."""
    projections: list[dict[str, Any] | None]
    """The settings that make up each run's identity (config/identity.py); None in manifests of older versions."""
    provenance: dict[str, Any]
    """The command that launched the sweep (provenance.of_command)."""
    parents: list[str | None]
    """Name of the run from which each starts, which is another one of the sweep; None for most."""
    launched: float
    """When, in seconds by the file system's clock."""
    launch: str | None
    """Id of the launch: runs that failed in an earlier launch are tried again. None: failures of any launch count."""
    written: list[Config] | None = None
    """The configs, where this process has just written the manifest."""

    @property
    def name(self) -> str:
        """Name of the sweep's folder."""
        return self.folder.name

    @property
    def out(self) -> Path:
        """The folder of the runs."""
        return self.folder.parents[1]

    @cached_property
    def configs(self) -> list[Config]:
        """The config of each run. Raises ValueError if the settings are not those of the run they stand for."""
        if self.written is not None:
            return self.written
        try:
            return [config_of(settings, run) for settings, run in zip(self.settings, self.runs, strict=True)]
        except ValueError as error:
            raise _damaged(self.folder / MANIFEST, error) from None


def config_of(settings: dict[str, Any], run: Path) -> Config:
    """Build the config of the run in folder `run`. Raises ValueError if these are not the settings of that run."""
    try:
        config = from_dict(settings)
        if missing_parts(config):  # the run can be shown, and is not executed
            return replace(config, out=str(run.parent))
        check(config)
        names = folder_name(config), earlier_folder_name(config)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the settings of {run.name} cannot be read: {error}") from None
    if run.name not in names:
        raise ValueError(f"the settings of {run.name} are those of another run")
    return replace(config, out=str(run.parent))


@dataclass(frozen=True)
class Planned:
    """A sweep before its manifest is written."""

    label: str
    folder: Path
    """Absolute path of the sweep's folder, whether it exists or not."""
    configs: list[Config]
    runs: list[Path]
    """Folders of the runs, likewise."""
    projections: list[dict[str, Any]]
    parents: list[str | None]


def plan(configs: list[Config], label: str) -> Planned:
    """Name the runs and the sweep: `label` and 8 hex digits of a hash of the runs' ids, the same for the same runs.

    The runs from which others start belong to it, whether they are among `configs` or not, and whether they are done.
    """
    links = chained(configs)
    configs = [link.config for link in links]
    whats = projections(configs)
    names = [name_of(config, what) for config, what in zip(configs, whats, strict=True)]
    digest = hashlib.sha256(" ".join(sorted(names)).encode()).hexdigest()
    folder = Path(os.path.abspath(configs[0].out)) / SWEEPS / f"{label[:40]}-{digest[:8]}"
    runs = [run_folder(config, name) for config, name in zip(configs, names, strict=True)]
    return Planned(label, folder, configs, runs, whats, [link.parent for link in links])


def write(planned: Planned, provenance: dict[str, Any]) -> Sweep:
    """Launch the sweep: write its manifest, so that workers may execute its runs, and withdraw an earlier stop."""
    folder = planned.folder
    folder.parents[1].mkdir(parents=True, exist_ok=True)
    for made in (folder.parent, folder):
        folders.make_folder(made, root=folder.parents[1])
    # Portable settings: workers start in other directories, perhaps on other machines.
    settings = once_but_seed(planned.configs, portable, lambda values, config: {**values, "seed": config.seed})
    entries = [
        {"name": run.name, "settings": values, "projection": what, **({"parent": parent} if parent else {})}
        for run, values, what, parent in zip(planned.runs, settings, planned.projections, planned.parents, strict=True)
    ]
    launch = secrets.token_hex(8)
    content = {"name": folder.name, "label": planned.label, "launch": launch, **provenance, "runs": entries}
    # Indented, it would be written by Python's own code, which takes ten times as long.
    write_atomically(folder / MANIFEST, json.dumps(content).encode())
    folders.remove(folder / STOP)
    for each in (WORKERS, FAILURES, SLURM):
        folders.remove_temporaries(folder / each)
    launched = folders.status(folder / MANIFEST).st_mtime
    written = [_as_in_manifest(*each) for each in zip(planned.configs, planned.runs, settings, strict=True)]
    whats: list[dict[str, Any] | None] = [*planned.projections]
    return Sweep(folder, planned.runs, settings, whats, _of(content), planned.parents, launched, launch, written)


def _as_in_manifest(config: Config, run: Path, settings: dict[str, Any]) -> Config:
    """The config as `config_of` would build it from these settings, which takes a millisecond for each run."""
    paths = {name: settings["data"][name] for name in path_settings(config.data)}
    return replace(config, out=str(run.parent), data=replace(config.data, **paths), evaluate=None, grids=[])


def read(folder: Path) -> Sweep:
    """Read the manifest in a sweep's folder. Raises FileNotFoundError, or ValueError if it is damaged.

    Whether the settings belong to their runs is checked later, by `Sweep.configs`: status needs only plain values.
    """
    path = folder / MANIFEST
    launched = folders.status(path).st_mtime
    try:
        content = folders.read_json(path, MANIFEST_BYTES)
        entries, launch = content.pop("runs"), str(content.get("launch", ""))
        if not entries:
            raise ValueError("it has no runs")
        names = [_run_name(entry["name"]) for entry in entries]
        settings = [_mapping(entry["settings"]) for entry in entries]
        parents = [_run_name(entry["parent"]) if "parent" in entry else None for entry in entries]
        projections = [_mapping(entry["projection"]) if "projection" in entry else None for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from None
    folder = folder.absolute()
    runs = [folder.parents[1] / name for name in names]
    return Sweep(folder, runs, settings, projections, _of(content), parents, launched, launch)


def _of(content: dict[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of the command that launched the sweep (provenance.of_command)."""
    given = {key: content[key] for key in ("package", "own_parts") if key in content}
    return {key: content.get(key) for key in ("command", "directory", "git")} | given


def _run_name(name: Any) -> str:
    """Check that a name is that of a run, since `rm --runs` deletes what has it: no path, and no hidden folder."""
    if not isinstance(name, str) or not RUN_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a run")
    return name


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not a mapping")
    return value


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is damaged ({error}); run the command that launched the sweep again to rewrite it")


def find(out: Path) -> list[Path]:
    """Folders of all sweeps in `out`, the one launched last first."""
    launched = {}
    try:
        names = folders.names(out / SWEEPS)
    except FileNotFoundError:
        return []
    for folder in [out / SWEEPS / name for name in names]:
        with suppress(FileNotFoundError, NotADirectoryError):
            try:
                launched[folder] = folders.status(folder / MANIFEST).st_mtime
            except folders.UnsafeError:  # to be named wherever sweeps are listed
                launched[folder] = 0.0
    return sorted(launched, key=lambda folder: launched[folder], reverse=True)


def stop(sweep: Path, reason: str) -> None:
    """Ask every worker of the sweep, on any machine, to save and stop. Keeps an earlier reason."""
    try:
        folders.create(sweep / STOP, f"{reason}\n".encode())
    except FileExistsError:
        return
    except OSError:
        if not folders.is_file(sweep / STOP):  # on a full disk the file stays empty, which asks as well
            raise


def stop_reason(sweep: Path) -> str | None:
    """Why the sweep was asked to stop; None if it was not. Raises OSError while a file server does not answer."""
    try:
        with folders.open_file(sweep / STOP) as file:
            lines = file.read(MESSAGE).decode(errors="replace").strip().splitlines()
        return lines[0] if lines else "stopped"
    except FileNotFoundError:
        return None
    except folders.UnsafeError as error:
        return str(error)
    except (OSError, ValueError) as error:
        if is_passing(error):
            raise
        return "stopped"  # by a file that cannot be read, such as that of a user with a strict umask


def record_failure(sweep: Sweep, run: str, message: str) -> None:
    """Record that a run failed before it had an attempt's folder to write to, for everyone who looks at the sweep."""
    folder = sweep.folder / FAILURES
    with suppress(OSError):  # then only its worker knows
        folders.make_folder(folder)
        write_json(folder / f"{run}.json", {"launch": sweep.launch, "message": message})


def recorded_failure(sweep: Sweep, run: str) -> str | None:
    """The message that `record_failure` wrote for the run in this launch; None if there is none.

    Raises OSError while a file server does not answer.
    """
    try:
        recorded = folders.read_json(sweep.folder / FAILURES / f"{run}.json")
        return str(recorded["message"])[:MESSAGE] if recorded["launch"] == sweep.launch else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if is_passing(error):
            raise
        return None


@dataclass(frozen=True)
class Worker:
    """A live worker of a sweep, from its heartbeat file workers/<name>.json."""

    file: Path
    holder: Holder
    slots: int
    """Runs that it executes at a time."""


class Presence:
    """Shows that a worker is alive: within the context a thread of its own sends heartbeats, whatever the worker does.

    The file workers/<name>.json says who it is.
    """

    def __init__(self, folder: Path, me: Holder, slots: int) -> None:
        self.file, self.me, self.slots = folder / WORKERS / f"{me.worker}.json", me, slots
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="presence", daemon=True)

    def __enter__(self) -> "Presence":
        self._show()
        try:
            self._thread.start()
        except RuntimeError as error:
            self.__exit__(None, None, None)
            raise cannot_start(error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(1.0)  # if it waits for a file server, its next heartbeat finds no file
        with suppress(OSError):
            folders.remove(beats_of(self.file))
            folders.remove(self.file)
        remove_mark(self.me)

    def _beat(self) -> None:
        while not self._stop.wait(self.me.silent_seconds / BEATS):
            self._show()

    def _show(self) -> None:
        with suppress(OSError):  # a full disk, or a file server that does not answer: the next heartbeat tries again
            if folders.is_file(self.file):
                beat(self.file)
            elif not self._stop.is_set():  # not yet there, or somebody removed it
                folders.make_folder(self.file.parent)
                write_json(self.file, {**asdict(self.me), "slots": self.slots})


def live_workers(folder: Path, probe: LivenessProbe) -> list[Worker]:
    """The workers of the sweep in `folder` that are alive, judged by their process, by Slurm, or by heartbeat.

    Raises OSError while a file server does not answer.
    """
    found = []
    try:
        names = sorted(name for name in folders.names(folder / WORKERS) if name.endswith(".json"))
    except (FileNotFoundError, folders.UnsafeError):
        return []
    for path in [folder / WORKERS / name for name in names]:
        try:
            content, silence = folders.read_json(path), probe.silence(path)
            worker = Worker(path, holder_from(content), int(content["slots"]))
        except (OSError, ValueError, TypeError, KeyError) as error:
            if is_passing(error):
                probe.note_unanswered(folder)
                raise
            continue  # it has just left, or the file is damaged
        if not probe.reason_dead(worker.holder, silence):
            found.append(worker)
        elif not probe.in_doubt:
            with suppress(OSError):  # another user's; a living worker would write its file again
                folders.remove(path)
                folders.remove(beats_of(path))
    return found
