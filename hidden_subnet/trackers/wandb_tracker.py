"""A run on W&B: online where it has a key, else offline in the run's folder (`wandb sync` sends it later)."""

import os
import secrets
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from hidden_subnet.config import Config, Dense, TrackerMode, as_dict
from hidden_subnet.identity import slug
from hidden_subnet.record import WANDB_ID, write_atomically

UPLOAD_SECONDS = 15.0
"""How long W&B itself tries to upload at the end of a run; what is left stays on disk for `wandb sync`."""


class WandbTracker:
    """To be made, called and ended in one thread: making it takes half a second, or as long as the server does."""

    def __init__(self, config: Config, folder: Path, sweep: str | None) -> None:
        import wandb

        quiet = {"silent": True, "console": "off", "symlink": False}
        hooks = sys.exit, sys.excepthook
        session = wandb.setup(settings=wandb.Settings(**quiet))
        sys.exit, sys.excepthook = hooks  # type: ignore[assignment]  # W&B replaces them to learn the exit code
        self._wandb = wandb
        self._run = wandb.init(
            project=config.tracker.project,
            entity=config.tracker.entity,
            id=run_id(folder),
            resume="allow",
            reinit="create_new",
            name=slug(config),
            group=sweep,
            job_type=config.method.name,
            tags=tags(config, sweep),
            config=columns(config),
            dir=str(folder),
            mode=_mode(config.tracker.mode, session.settings),
            settings=wandb.Settings(
                **quiet,
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
        )
        self._run.define_metric("epoch", hidden=True)
        self._run.define_metric("*", step_metric="epoch")

    def log(self, row: dict[str, float]) -> None:
        self._run.log(row)

    def finish(self, result: dict[str, Any]) -> None:
        self._run.summary.update(summary(result))
        self._close(0)

    def fail(self, message: str) -> None:
        self._close(1)

    def interrupt(self) -> None:
        self._run.mark_preempting()
        self._close(1)  # preempting and then a nonzero exit make W&B show `preempted`, not `finished`

    def _close(self, exit_code: int) -> None:
        try:
            self._run.finish(exit_code=exit_code)
        except TimeoutError:
            raise TimeoutError("the server is slow; `wandb sync` sends what is missing") from None
        finally:
            self._wandb.teardown()  # lets the helper write what it holds, and end


def is_disabled(mode: TrackerMode) -> bool:
    return mode is TrackerMode.auto and os.environ.get("WANDB_MODE") == "disabled"


def prepare(folder: Path) -> None:
    """What W&B's helper process can only be told by the environment: logs in the run's folder, no error reports sent.

    Here, and not in the tracker's thread, since another thread may be reading the environment.
    """
    os.environ["WANDB_CACHE_DIR"] = str(folder)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")


def run_id(folder: Path) -> str:
    """The run's id on W&B, made once and kept, so that a run that goes on goes on there."""
    path = folder / WANDB_ID
    if not path.exists():
        write_atomically(path, f"{secrets.token_hex(8)}\n".encode())
    return path.read_text().strip()


def tags(config: Config, sweep: str | None) -> list[str]:
    """Without repeats, and cut at the 64 characters that W&B allows."""
    return list(dict.fromkeys(tag[:64] for tag in [*config.tracker.tags, sweep or ""] if tag))


def columns(config: Config) -> dict[str, Any]:
    """W&B's config: what one plots by, flat, and every setting below `config`."""
    rate = 0.0 if isinstance(config.method, Dense) else config.prune_rate
    return {
        "prune_rate": rate,
        "density": round(1 - rate, 12),
        "model": config.model.name.name,
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
