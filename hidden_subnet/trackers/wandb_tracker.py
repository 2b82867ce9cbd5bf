"""A run on W&B: online if a key is found, otherwise offline in the run's folder (`sync` sends it later)."""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hidden_subnet.config.convert import as_dict
from hidden_subnet.config.differences import flat
from hidden_subnet.config.identity import id_of, settings_in_use, slug
from hidden_subnet.config.program import PROGRAM
from hidden_subnet.config.registries import TRACKERS, method_traits, register
from hidden_subnet.config.settings import Config, TrackerMode
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.store import files, folders
from hidden_subnet.store.read import dig, has_collapsed
from hidden_subnet.store.redact import without_folders
from hidden_subnet.trackers import artifacts, sent
from hidden_subnet.trackers.artifacts import Kept
from hidden_subnet.trackers.entry import TrackerEntry
from hidden_subnet.trackers.places import without_paths, without_places
from hidden_subnet.trackers.wandb_environment import (
    GIVEN,
    agent_run_id,
    asked_mode,
    disabled_by,
    given_by_sweep,
    init_arguments,
    is_tracked,
    may_have_key,
    tidy_variables,
)

INIT_SECONDS, UPLOAD_SECONDS = 20.0, 15.0
"""How long W&B tries to open a run, and to upload at its end; `sync` sends the rest. Python's exit waits for it."""

KILLED = 255
"""Exit code with which W&B shows a run that it was asked to stop as `killed`; it does not give it to an agent again."""
STOPPED = threading.Event()
"""Set once W&B has asked the single run of this process to stop: the stop button, or early termination of its sweep."""
TITLE = 63
"""Most characters in the title of an alert."""
PROBE_BYTES = 65536
"""More than W&B's client writes at once."""

QUIET = {"silent": True, "console": "off", "symlink": False}


class WandbTracker:
    """A run on W&B. Construct, call and end it in one thread; constructing takes 0.5 s, or as long as the server does.

    `sweep` becomes W&B's group. A run that is already done when another sweep needs it is not opened again, so W&B
    shows it in the group of the sweep that executed it; the summary run of each sweep lists all of its runs. Rows that
    the run's files have and W&B does not are sent first. With `overwrite` these are all rows, under the name and in
    the project that the run was sent to before. `mode` replaces tracker.mode.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        sweep: str | None,
        *,
        labels: Sequence[str] = (),
        mode: TrackerMode | None = None,
        overwrite: bool = False,
    ) -> None:
        before, arguments = sent.read(folder), init_arguments(config, sweep, labels)
        if before is not None and overwrite:
            tags = [*before.arguments.get("tags", arguments["tags"]), *labels]
            arguments |= {**before.arguments, "tags": list(dict.fromkeys(tags))}
        resumes = before is not None and not overwrite and before.is_in(arguments["project"], arguments["entity"])
        self._folder, self._config = folder, config
        self._sent = sent.Sent(sent.run_id(folder), arguments, before.rows if before is not None and resumes else 0)
        self._session = Session(
            mode or config.tracker.mode,
            folder,
            arguments,
            # A run of a sweep would be taken up again by the next worker.
            stop_fn=STOPPED.set if sweep is None else lambda: None,
            id=self._sent.id,
            resume="allow" if resumes else None,
            paths=config.tracker.paths,
            config={**columns(config), **origin(config, folder)},
        )
        sent.write(folder, self._sent)
        self._run = self._session.run
        self._run.define_metric("epoch", hidden=True)
        self._run.define_metric("*", step_metric="epoch")
        if config.tracker.step_loss:
            self._run.define_metric("train/step_loss", step_metric="step")
        self._has, self._noted = self._sent.rows, (-1, False)
        self._inside: dict[float, dict[str, Any]] = {}
        """By epoch, what its row is sent with."""
        if not resumes:
            self._send_all(files.working(folder))

    def _send_all(self, working: Path) -> None:
        """Send the rows that the files have, each behind the lines of tracked.jsonl up to its step."""
        rows, lines = files.read_rows(working), files.read_tracked(working)
        for row in rows:
            for line in lines:
                if line["step"] <= row.get("step", 0):
                    self.note(line)
            self.log(row)
            self._has = int(row["epoch"]) + 1

    def note(self, line: dict[str, Any]) -> None:
        if (place := files.tracked_place(line)) <= self._noted:  # as of rows, it was in the file
            return
        self._noted = place
        if "layers" in line:
            self._inside = {line["epoch"]: inside(self._session.wandb, line["layers"])}
        else:
            self._run.log({"step": line["step"], "train/step_loss": line["loss"]})

    def log(self, row: dict[str, float]) -> None:
        if row["epoch"] < self._has:  # it was written to the file while this tracker was starting
            return
        self._run.log({**row, **self._inside.pop(row["epoch"], {})})
        if row["epoch"] <= self._sent.rows:  # otherwise earlier rows were lost with a killed attempt
            self._sent = replace(self._sent, rows=max(self._sent.rows, int(row["epoch"]) + 1))

    def finish(self, result: dict[str, Any]) -> None:
        def last(run: Any) -> None:
            run.summary.update({**summary(result), "failed": 0})
            run.config.update(outcome(result, self._config.tracker.paths), allow_val_change=True)
            if self._config.tracker.alerts and has_collapsed(result):
                layer = result.get("dead_layer")
                why = f"no better than chance on the test images{f'; {layer} is dead' if layer else ''}"
                self._alert("collapsed", why, "WARN")
            try:
                kept = artifacts.of_run(self._config, self._folder)
            except (ValueError, FileNotFoundError) as error:
                run.summary["no_artifact"] = self._told(str(error))
            else:
                if kept is not None:
                    self._session.keep(kept, artifacts.seconds(self._config, self._folder))

        self._close(0, last, ended=True)

    def fail(self, message: str) -> None:
        if self._config.tracker.alerts:
            self._alert("failed", message, "ERROR")
        self._close(1, lambda run: run.summary.update({"failed": 1}))

    def _alert(self, what: str, why: str, level: str) -> None:
        self._run.alert(f"{what}: {slug(self._config)}"[:TITLE], self._told(why), level)

    def _told(self, text: str) -> str:
        return text if self._config.tracker.paths else without_folders(text)

    def interrupt(self, collapsed: str = "") -> None:
        if STOPPED.is_set() or (agent_run_id() and self._session.stop_requested()):
            STOPPED.set()
            self._close(KILLED, stopped=True)
        elif collapsed:
            if self._config.tracker.alerts:
                self._alert("collapsed", collapsed, "WARN")
            self._close(0, lambda run: run.summary.update({"collapsed": 1, "failed": 0}))
        else:
            # W&B shows `preempted`, and gives the run to an agent again.
            self._close(1, lambda run: run.mark_preempting())

    def _close(
        self,
        exit_code: int,
        last: Callable[[Any], None] = lambda run: None,
        *,
        ended: bool = False,
        stopped: bool = False,
    ) -> None:
        self._session.close(exit_code, last)
        sent.write(self._folder, replace(self._sent, ended=ended, stopped=stopped))


class Session:
    """An open run on W&B with the settings that all our runs share. It prints nothing."""

    def __init__(
        self,
        mode: TrackerMode,
        folder: Path,
        arguments: dict[str, Any],
        /,
        stop_fn: Callable[[], None] = lambda: None,
        paths: bool = False,
        **more: Any,
    ) -> None:
        """`arguments` are those of wandb_environment.init_arguments, `more` other ones of wandb.init.

        `stop_fn` is called in a thread of W&B's when somebody stops the run there. paths: tracker.paths.
        """
        import wandb

        chosen, settings = mode_of(mode), _settings()
        # What the variables say is in `arguments`; with a sweep_id here W&B would not take the run's own id.
        for name in ("sweep_id", "resume", "resume_from", "fork_from", "run_group", "run_notes"):
            setattr(settings, name, None)
        folders.make_folder(folder / "wandb")  # W&B itself would follow a link
        self.wandb, self._folder = wandb, folder / "wandb"
        self._offline_files = folder / "wandb" if chosen == "offline" else None
        self._is_online = chosen == "online"
        arguments = dict(arguments)
        self.run = wandb.init(
            reinit="create_new",
            dir=str(folder),
            mode=chosen,
            settings=wandb.Settings(
                **QUIET,
                sweep_id=arguments.pop("sweep_id", None),
                finish_timeout=UPLOAD_SECONDS,
                finish_timeout_raises=True,
                stop_fn=stop_fn,
                # The address of a git remote may contain a password, and the code is not sent to trackers.
                disable_git=True,
                save_code=False,
                label_disable=True,
                x_save_requirements=False,
                **({} if paths else _without_machine()),
            ),
            **arguments,
            **more,
        )

    def stop_requested(self) -> bool:
        """Whether W&B wants the run to stop. Asked here: the agent's TERM may come before the client's own question.

        The call is not in W&B's documentation, which is one reason for the pinned version.
        """
        from wandb.sdk.launch.api import LaunchApi

        if self._offline_files is not None:
            return False
        with suppress(Exception):  # a server that does not answer: the run counts as preempted
            asked = LaunchApi(timeout=5).check_stop_requested(self.run.project, self.run.entity, self.run.id)
            return bool(asked)
        return False

    def keep(self, kept: Kept, seconds: float) -> None:
        """Have W&B keep files as an artifact of the run; what it has under that name already is not uploaded again.

        Online, raises TimeoutError if they have not arrived in time. Offline, W&B's files say where these lie.
        """
        from wandb.sdk.artifacts.exceptions import WaitTimeoutError

        artifact = self.wandb.Artifact(kept.name, type=kept.type, description=kept.description)
        for inner, path in kept.files.items():
            artifact.add_file(str(path), name=inner, policy="immutable", skip_cache=True)
        logged = self.run.log_artifact(artifact)
        if self._is_online:
            try:
                logged.wait(timeout=round(seconds))
            except WaitTimeoutError:
                raise TimeoutError from None

    def close(self, exit_code: int, last: Callable[[Any], None] = lambda run: None) -> None:
        """Make a last call on the run, upload the rest and close it.

        Raises TimeoutError if the server is too slow, OSError if there is no room for W&B's offline files.
        """
        try:
            try:
                last(self.run)
            finally:  # W&B's threads would go on, and print errors
                self.run.finish(exit_code=exit_code)
        except TimeoutError:
            raise TimeoutError(f"the server is slow; `{PROGRAM} sync` sends the rest") from None
        finally:
            self.wandb.teardown()  # W&B's service process writes what it holds, and ends
            folders.remove_empty_folders(self._folder)
        # If the disk is full, W&B's service process only writes that to a log of its own.
        if self._offline_files is not None:
            probe = self._offline_files / f"{self.run.id}.probe"
            try:
                folders.write_atomically(probe, bytes(PROBE_BYTES))
            finally:
                folders.remove(probe)


def open_run(config: Config, folder: Path, sweep: str | None, overwrite: bool = False) -> WandbTracker:
    """Open the run on W&B; if `wandb agent` started this process, as the agent's run."""
    if run := agent_run_id():
        sent.adopt(folder, run)
    elif (before := sent.read(folder)) is not None and before.stopped:
        # What was stopped on W&B stays so, and its client would be told to stop again (wandb/wandb issue 663).
        sent.adopt(folder, sent.new_id())
    return WandbTracker(config, folder, sweep, overwrite=overwrite)


def _without_machine() -> dict[str, Any]:
    """Return settings with which W&B's client sends neither names of the host and its folders nor the command line.

    The user's own WANDB_HOST and WANDB_PROGRAM are sent. The loads of processor, memory and GPU are sent in any case.
    """
    own = {"host": os.environ.get("WANDB_HOST", ""), "program": os.environ.get("WANDB_PROGRAM", "")}
    return {**own, "x_disable_meta": True}


def where_it_goes(config: Config) -> str:
    """Return "W&B: online, <entity>/<project>" if runs of the config go to W&B's server; else "".

    Asks no server. W&B's client is loaded only where it may find a key.
    """
    if not is_tracked(config) or not may_have_key():
        return ""
    prepare(None)
    try:
        if mode_of(config.tracker.mode) != "online":
            return ""
    except (RuntimeError, ValueError):  # the run says so in its own line
        return ""
    settings, arguments = _settings(), init_arguments(config, None)
    entity, project = arguments["entity"] or settings.entity, arguments["project"]
    where = f"{entity}/{project}" if entity else f"{project}, in the account of the key"
    usual = type(settings).model_fields["base_url"].default
    server = "" if settings.base_url == usual else f", at {settings.base_url}"
    return f"W&B: online, {where}{server}"


def has_key() -> bool:
    """Whether W&B finds a key for its server: in the environment, netrc, or its settings file."""
    import wandb

    _settings(mode="online")
    return wandb.login(prompt=False, verify=False)


@contextmanager
def answering() -> Iterator[None]:
    """Raise ConfigError, a line, for an error of W&B's client within the context, such as a server that is away."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # W&B's client raises many kinds
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"W&B does not answer: {lines[0]}") from None


def default_entity() -> str:
    """Return the account or team in which W&B puts a run that names none; asks the server.

    Raises ConfigError where there is none.
    """
    import wandb

    entity = wandb.Api(timeout=int(INIT_SECONDS)).default_entity
    if not entity:
        raise ConfigError(problem("--entity", "W&B names no account for the key", "--entity my_team", lead="as in"))
    return str(entity)


def _settings(**more: Any) -> Any:
    """W&B's own settings, from its environment variables and files, with `more` changed for this process."""
    import wandb
    from pydantic import ValidationError

    hooks = sys.exit, sys.excepthook
    try:
        session = wandb.setup(settings=wandb.Settings(**QUIET, **more))
    except ValidationError as error:  # whose text has several lines, and the value, which may be a key
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "settings"
        raise ValueError(f"W&B's client refuses its variables or settings: {where}: {first['msg']}") from None
    finally:
        sys.exit, sys.excepthook = hooks  # type: ignore[assignment]  # W&B replaces them to learn the exit code
    return session.settings


def prepare(folder: Path | None) -> None:
    """Set what W&B reads from the environment, unless the user did: folders, no error reports, how long it may start.

    folder: that of the run; None before there is one. Called in the main thread and not in the tracker's, since another
    thread may be reading the environment.
    """
    tidy_variables()
    places = [] if folder is None else [("WANDB_CACHE_DIR", folder), ("WANDB_DATA_DIR", folder / "wandb")]
    for name, where in places:
        if os.environ.get(name, "") in ("", _prepared.get(name)):
            os.environ[name] = _prepared[name] = str(where)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_INIT_TIMEOUT", str(INIT_SECONDS))


_prepared: dict[str, str] = {}
"""The variables that `prepare` set for an earlier run of this process; others are the user's."""


NOT_SETTINGS = ("config", "density", "id", "folder", "commit", "environment", GIVEN)
"""Columns of a run's config on W&B that are no settings."""
PARTS = ("model", "data", "method", "init", "pruning")
"""Groups of settings that are a column by the name of the part, as model for model.name."""
COUNTS = ("weights", "parameters", "trained_parameters", "dense_flops")
"""Numbers of result.json that follow from the settings: they become columns of the config when a run is done."""


def columns(config: Config) -> dict[str, Any]:
    """Return the settings in W&B's config of a run: those that act on its result flat, and all of them in `config`.

    Without tracker.paths, absolute paths are cut to their last names.
    """
    acting, every = settings_in_use(config), as_dict(config)
    if not config.tracker.paths:
        acting, every = without_paths(acting), without_paths(every)
    parts = {part: acting[part]["name"] for part in PARTS if "name" in acting.get(part, {})}
    without = ("schema", *(f"{part}.name" for part in parts))
    used = {name: value for name, value in flat(acting).items() if name not in without and name[:11] != "data.found."}
    traits = method_traits(config)
    has_rate = traits.prunes_by_rate(config.method)
    rate = config.prune_rate if has_rate else 0.0
    density = {} if has_rate and config.pruning.rates else {"density": round(1 - rate, 12)}
    # Masks without a prune rate: how many weights are kept is an outcome of the training.
    is_outcome = traits.masks and not has_rate
    return {
        **used,
        **parts,
        **({} if is_outcome else {"prune_rate": rate, **density}),
        "seed": config.seed,
        "config": every,
    }


def origin(config: Config, folder: Path) -> dict[str, Any]:
    """Return columns by which a run on W&B is found on disk: its id, its folder's name, the commit of the code.

    With `wandb agent` also the names of the settings that W&B's sweep gave.
    """
    try:
        commit = dig(folders.read_json(files.working(folder) / files.PROVENANCE), "git.commit")
    except (OSError, ValueError):  # a run that was not executed by `execute`
        commit = None
    given = given_by_sweep()
    return {
        "id": id_of(config),
        "folder": folder.name,
        **({"commit": commit} if commit else {}),
        **({GIVEN: given} if given else {}),
    }


def outcome(result: dict[str, Any], paths: bool) -> dict[str, Any]:
    """Return the columns of a finished run: counts of its network, and the device and versions that computed it."""
    known = result if paths else without_places(result)
    return {name: known[name] for name in (*COUNTS, "environment") if known.get(name) is not None}


def inside(wandb: Any, layers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what a row of W&B has of the layers in a line of tracked.jsonl: histograms of the scores, and a table."""
    columns, cells, sent = ["layer", "weights", "kept", "density", "score_mean", "score_std"], [], {}
    for path, layer in layers.items():
        edges, kept = np.array(layer["edges"]), np.array(layer["kept"])
        every = kept + np.array(layer["removed"])
        sent[f"scores/{path}"] = wandb.Histogram(np_histogram=(every, edges))
        sent[f"scores_kept/{path}"] = wandb.Histogram(np_histogram=(kept, edges))
        weights, count = int(every.sum()), int(kept.sum())
        cells.append([path, weights, count, count / weights, layer["mean"], layer["std"]])
    return {**sent, "layers": wandb.Table(columns=columns, data=cells)}


def summary(result: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of result.json; nested names are joined: best/test/top1, last/epoch, density."""
    found: dict[str, float] = {}
    for key, value in result.items():
        if key in ("projection", "environment", "schema"):
            continue
        if isinstance(value, dict):
            found |= {f"{key}/{inner}": number for inner, number in summary(value).items()}
        elif isinstance(value, int | float):
            found[key] = int(value) if isinstance(value, bool) else value
    return found


def mode_of(mode: TrackerMode) -> Literal["online", "offline", "disabled"]:
    """Return the mode for wandb.init, from tracker.mode, W&B's own settings, and whether there is a key.

    Raises RuntimeError if `online` was asked for and there is no key.
    """
    asked = asked_mode(mode)
    if asked is TrackerMode.offline:
        return "offline"
    own = _settings().mode
    if asked is TrackerMode.auto and own in ("disabled", "offline", "dryrun"):
        return "disabled" if own == "disabled" else "offline"
    if has_key():
        return "online"
    if asked is TrackerMode.online:
        raise RuntimeError("online (tracker.mode or WANDB_MODE) needs a key: set WANDB_API_KEY or run `wandb login`")
    return "offline"


register(TRACKERS, "wandb")(
    TrackerEntry(
        "W&B",
        open_run,
        prepare=prepare,
        is_enabled=lambda config: disabled_by(config.tracker.mode) is None,
        files_seconds=artifacts.seconds,
        at_the_start=where_it_goes,
    )
)
