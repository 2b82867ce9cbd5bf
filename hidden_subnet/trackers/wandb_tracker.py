"""A run on W&B: online where it has a key, else offline in the run's folder (`wandb sync` sends it later)."""

import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from hidden_subnet.config import as_dict
from hidden_subnet.identity import has_rate, slug
from hidden_subnet.settings import Config, Sampled, TrackerMode
from hidden_subnet.trackers import sent

UPLOAD_SECONDS = 15.0
"""How long W&B itself tries to upload at the end of a run; what is left stays on disk for `wandb sync`."""


QUIET = {"silent": True, "console": "off", "symlink": False}


class WandbTracker:
    """To be made, called and ended in one thread: making it takes half a second, or as long as the server does.

    `sweep` is the group. A run that another sweep finds done is not opened again, so W&B shows it in the group of the
    sweep that executed it; each sweep's summary run lists all of its runs. With `anew` the rows begin at epoch 0 and
    take the place of what W&B has of the run.
    """

    def __init__(
        self, config: Config, folder: Path, sweep: str | None, *, labels: Sequence[str] = (), anew: bool = False
    ) -> None:
        self._folder = folder
        before = None if anew else sent.read(folder)
        self._sent = replace(before or sent.Sent(sent.run_id(folder)), group=sweep, ended=False)
        self._session = Session(
            config,
            folder,
            id=self._sent.id,
            resume=None if anew else "allow",
            name=slug(config),
            group=sweep,
            job_type=config.method.name,
            tags=tags(config, [sweep, *labels]),
            config=columns(config),
        )
        sent.write(folder, self._sent)
        self._run = self._session.run
        self._run.define_metric("epoch", hidden=True)
        self._run.define_metric("*", step_metric="epoch")

    def log(self, row: dict[str, float]) -> None:
        self._run.log(row)
        if row["epoch"] <= self._sent.rows:  # else rows before it were lost with an attempt that was killed
            self._sent = replace(self._sent, rows=max(self._sent.rows, int(row["epoch"]) + 1))

    def finish(self, result: dict[str, Any]) -> None:
        self._run.summary.update(summary(result))
        self._close(0, ended=True)

    def fail(self, message: str) -> None:
        self._close(1)

    def interrupt(self) -> None:
        self._run.mark_preempting()
        self._close(1)  # preempting and then a nonzero exit make W&B show `preempted`, not `finished`

    def _close(self, exit_code: int, ended: bool = False) -> None:
        self._session.close(exit_code)
        sent.write(self._folder, replace(self._sent, ended=ended))


class Session:
    """A run on W&B that is open, in the settings that we have for all; nothing of it is printed."""

    def __init__(self, config: Config, folder: Path, /, **what: Any) -> None:
        import wandb

        settings = _settings()
        self.wandb = wandb
        mode = _mode(config.tracker.mode, settings)
        self.offline = mode == "offline"
        self.run = wandb.init(
            project=config.tracker.project,
            entity=config.tracker.entity,
            reinit="create_new",
            dir=str(folder),
            mode=mode,
            settings=wandb.Settings(
                **QUIET,
                finish_timeout=UPLOAD_SECONDS,
                finish_timeout_raises=True,
                # The stop button of the web page would interrupt the main thread.
                stop_fn=lambda: None,
                # A remote's address may hold a password, and the code is no business of a tracker.
                disable_git=True,
                save_code=False,
                label_disable=True,
                x_save_requirements=False,
            ),
            **what,
        )

    def close(self, exit_code: int) -> None:
        """Raises TimeoutError where the server is slow, and OSError where not all could be written offline."""
        try:
            self.run.finish(exit_code=exit_code)
        except TimeoutError:
            raise TimeoutError("the server is slow; `python -m hidden_subnet sync` sends what is missing") from None
        finally:
            self.wandb.teardown()  # lets the helper write what it holds, and end
        # The helper only notes in a log of its own that a disk is full.
        if self.offline and not _is_whole(Path(self.run.settings.sync_file)):
            raise OSError(f"{self.run.settings.sync_dir} is not whole, the disk may be full")


def _is_whole(path: Path) -> bool:
    """Whether an offline file ends as a run does: records in LevelDB's log format, behind a head of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    at, last, parts = 7, b"", list[bytes]()
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        if left < 7 or kind == 0:  # the rest of a block, too small for a record
            at += left
            continue
        if at + 7 + size > len(content):
            return False
        parts = [*(parts if kind in (3, 4) else []), content[at + 7 : at + 7 + size]]
        last = b"".join(parts) if kind in (1, 4) else last
        at += 7 + size
    return bool(Record.FromString(last).WhichOneof("record_type") == "exit")


def is_disabled(mode: TrackerMode) -> bool:
    return mode is TrackerMode.auto and os.environ.get("WANDB_MODE") == "disabled"


def stays_offline(config: Config) -> bool:
    """Told to, and not for want of a key."""
    by_variable = config.tracker.mode is TrackerMode.auto and os.environ.get("WANDB_MODE") in ("offline", "dryrun")
    return config.tracker.mode is TrackerMode.offline or by_variable


def has_key() -> bool:
    """For the server in use, by W&B's own rules. Loads W&B, which takes a second."""
    return _has_key(_settings())


def _settings() -> Any:
    """W&B's own, in which its variables and files count."""
    import wandb

    hooks = sys.exit, sys.excepthook
    session = wandb.setup(settings=wandb.Settings(**QUIET))
    sys.exit, sys.excepthook = hooks  # type: ignore[assignment]  # W&B replaces them to learn the exit code
    return session.settings


def prepare(folder: Path) -> None:
    """What W&B's helper process can only be told by the environment: logs in the run's folder, no error reports sent.

    Here, and not in the tracker's thread, since another thread may be reading the environment.
    """
    os.environ["WANDB_CACHE_DIR"] = str(folder)
    os.environ["WANDB_DATA_DIR"] = str(folder / "wandb")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")


def tags(config: Config, sweeps: Sequence[str | None]) -> list[str]:
    """Those asked for and the sweeps, without repeats, and cut at the 64 characters that W&B allows."""
    return list(dict.fromkeys(tag[:64] for tag in [*config.tracker.tags, *sweeps] if tag))


def columns(config: Config) -> dict[str, Any]:
    """W&B's config: what one plots by, flat, and every setting below `config`."""
    rate = config.prune_rate if has_rate(config.method) else 0.0
    known = {} if isinstance(config.method, Sampled) else {"prune_rate": rate, "density": round(1 - rate, 12)}
    return {
        **known,
        "model": config.model.name,
        "data": config.data.name.name,
        "method": config.method.name,
        "init": config.init.name.name,
        "seed": config.seed,
        "config": as_dict(config),
    }


def summary(result: dict[str, Any]) -> dict[str, float]:
    """The numbers of result.json, nested names joined: best/test/top1, last/epoch, density."""
    flat: dict[str, float] = {}
    for key, value in result.items():
        if key in ("projection", "environment", "schema"):
            continue
        if isinstance(value, dict):
            flat |= {f"{key}/{inner}": number for inner, number in summary(value).items()}
        elif isinstance(value, int | float):
            flat[key] = value
    return flat


def _mode(asked: TrackerMode, settings: Any) -> Literal["online", "offline", "disabled"]:
    """`settings` are W&B's own, in which WANDB_MODE and its settings files count."""
    if asked is TrackerMode.offline:
        return "offline"
    if asked is TrackerMode.auto and settings.mode in ("disabled", "offline", "dryrun"):
        return "disabled" if settings.mode == "disabled" else "offline"
    if _has_key(settings):
        return "online"
    if asked is TrackerMode.online:
        raise RuntimeError("tracker.mode=online needs a key: set WANDB_API_KEY or run `wandb login`")
    return "offline"


def _has_key(settings: Any) -> bool:
    """A key for the server in use, by W&B's own rules: the environment, netrc, or its settings file."""
    from wandb.sdk.lib import wbauth

    host = wbauth.HostUrl(settings.base_url, app_url=settings.app_url)
    found = wbauth.authenticate_session(host=host, source="", prompt=False, update_session=False)
    return found is not None


def abandon() -> None:
    """End W&B's helper process, which may hang, and outlive this one, and is waited for at the interpreter's exit."""
    if "wandb" not in sys.modules:
        return

    def end() -> None:
        import wandb
        from wandb.sdk import wandb_setup

        with suppress(AttributeError):  # no helper was started
            wandb_setup.singleton()._connection._proc._process.kill()  # type: ignore[union-attr]
        with suppress(BaseException):  # its connection is gone
            wandb.teardown()

    # In a thread again: W&B's locks may be held by the call that hangs.
    thread = threading.Thread(target=end, name="W&B abandoned", daemon=True)
    thread.start()
    thread.join(1.0)
