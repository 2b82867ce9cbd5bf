"""W&B's environment variables: what they say about a run, and those that a run answers in a line instead of heeding.

A setting given explicitly takes precedence over a variable, and a variable over our default. docs/configuration.md
lists all variables. Does not import wandb.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from hidden_subnet.config.identity import slug
from hidden_subnet.config.settings import Config, TrackerMode
from hidden_subnet.errors import ConfigError, problem

PROJECT = "hidden_subnet"
"""The project if neither tracker.project nor WANDB_PROJECT names one."""
MODES = {
    "online": TrackerMode.online,
    "run": TrackerMode.online,
    "offline": TrackerMode.offline,
    "dryrun": TrackerMode.offline,
}
"""Values of WANDB_MODE, and the tracker.mode that each stands for; `disabled` is the other one."""

_NO_CODE = "code and git state are recorded in the run's folder and not sent"
_QUIET = "W&B's client prints nothing here"
NOT_HEEDED: dict[str, tuple[tuple[str, ...], str]] = {
    "WANDB_ANONYMOUS": ((), "W&B has no anonymous runs any more"),
    "WANDB_CONSOLE": (("off",), "the output is in the run's log and not sent"),
    "WANDB_DESCRIPTION": ((), "W&B replaced it by WANDB_NOTES"),
    "WANDB_DIR": ((), "W&B's files lie in the run's folder, where sync looks for them"),
    "WANDB_DISABLE_CODE": (("true", "1"), _NO_CODE),
    "WANDB_DISABLE_GIT": (("true", "1"), _NO_CODE),
    "WANDB_FINISH_TIMEOUT": ((), "the end of a run waits 20 s at most, and sync sends the rest"),
    "WANDB_FINISH_TIMEOUT_RAISES": ((), "the end of a run waits 20 s at most, and sync sends the rest"),
    "WANDB_FORK_FROM": ((), "a run resumes from its own checkpoint"),
    "WANDB_GIT_COMMIT": ((), _NO_CODE),
    "WANDB_GIT_REMOTE_URL": ((), _NO_CODE),
    "WANDB_GIT_ROOT": ((), _NO_CODE),
    "WANDB_LABEL_DISABLE": (("true", "1"), _NO_CODE),
    "WANDB_QUIET": (("true", "1"), _QUIET),
    "WANDB_REINIT": ((), "each run is opened by itself"),
    "WANDB_RESUME": (("allow", "auto"), "a run resumes under the id that its folder keeps"),
    "WANDB_RESUME_FROM": ((), "a run resumes from its own checkpoint"),
    "WANDB_ROOT_DIR": ((), "W&B's files lie in the run's folder, where sync looks for them"),
    "WANDB_RUN_ID": ((), "a run's id on W&B is kept in its folder, so that it resumes there"),
    "WANDB_RUN_JOB_TYPE": ((), "use WANDB_JOB_TYPE"),
    "WANDB_RUN_NAME": ((), "use WANDB_NAME"),
    "WANDB_RUN_NOTES": ((), "use WANDB_NOTES"),
    "WANDB_RUN_TAGS": ((), "use WANDB_TAGS"),
    "WANDB_SAVE_CODE": (("false", "0"), _NO_CODE),
    "WANDB_SHOW_RUN": (("false", "0"), _QUIET),
    "WANDB_SILENT": (("true", "1"), _QUIET),
    "WANDB_SYMLINK": (("false", "0"), "W&B's files lie in the run's folder, where sync looks for them"),
}
"""Variable -> (values that ask for what is done in any case, why it is not heeded)."""


KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_CONFIG_PATHS")
"""Variables by which W&B's client finds a key."""
GIVEN = "sweep_parameters"
"""Column of the config on W&B: names of the settings that W&B's sweep gave the run; other columns come from us."""


def may_have_key() -> bool:
    """Whether there is a variable or a file in which W&B's client looks for a key; the client is not loaded for it."""
    settings = os.path.join(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb", "settings")
    files = (os.environ.get("NETRC") or "~/.netrc", "~/_netrc", settings)
    return any(map(os.environ.get, KEYS)) or any(os.path.lexists(os.path.expanduser(file)) for file in files)


def agent_parameters() -> dict[str, Any]:
    """Return name -> value of what `wandb agent` gives, from the file that it writes; empty if that is not there."""
    try:
        content = yaml.safe_load(Path(os.environ.get("WANDB_SWEEP_PARAM_PATH", "")).read_text())
        return {name: entry["value"] for name, entry in content.items() if name != "wandb_version"}
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return {}


def given_by_sweep() -> list[str] | None:
    """Return the names of the settings that W&B's sweep gives to this process.

    None without an agent, and for a run that a version without these names began.
    """
    parameters = agent_parameters() if agent_run_id() else {}
    if "_wandb" in parameters:  # the run was handed back, with its config
        return parameters.get(GIVEN)
    return sorted(parameters) or None


def agent_run_id() -> str | None:
    """Return the id of the run for which `wandb agent` started this process; None if it did not."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


def notices(config: Config, *, sweep: bool) -> list[str]:
    """Return a line for what is set and not heeded, and a line if W&B's sweep gets nothing of the run.

    `sweep`: whether several runs are started.
    """
    by_agent, lines = agent_run_id() is not None, []
    if not is_tracked(config):
        why = disabled_by(config.tracker.mode) or "wandb is not among its trackers"
        return [f"W&B's sweep gets no metric of this run: {why}"] * by_agent
    reasons = {
        name: why
        for name, (agreeing, why) in NOT_HEEDED.items()
        if (value := os.environ.get(name)) and value.lower() not in agreeing
    }
    if by_agent:
        reasons = {name: why for name, why in reasons.items() if name not in ("WANDB_DIR", "WANDB_RUN_ID")}
        for name, value in (("project", config.tracker.project), ("entity", config.tracker.entity)):
            if value:
                reasons[f"tracker.{name}"] = "the run is where W&B's sweep is"
    if sweep and os.environ.get("WANDB_NAME"):
        reasons["WANDB_NAME"] = "each run of a sweep has its own name"
    if reasons:
        lines.append("not heeded: " + "; ".join(f"{name} ({why})" for name, why in sorted(reasons.items())))
    return lines


def check_variables() -> None:
    """Raise ConfigError for a value of WANDB_MODE that is none of W&B's, or cannot be had with runs of ours."""
    mode = os.environ.get("WANDB_MODE")
    if mode and mode not in (*MODES, "disabled"):
        rule = "must be online, offline or disabled; or a setting comes before it"
        raise ConfigError(problem(f"WANDB_MODE={mode}", rule, "tracker.mode=offline", lead="as in"))


def disabled_by(mode: TrackerMode) -> str | None:
    """Return the variable that turns W&B off, as "NAME=value"; tracker.mode=online and offline take precedence."""
    if mode is not TrackerMode.auto:
        return None
    if os.environ.get("WANDB_MODE") == "disabled":
        return "WANDB_MODE=disabled"
    value = os.environ.get("WANDB_DISABLED", "")  # not W&B's own, but other libraries taught people to set it
    return f"WANDB_DISABLED={value}" if value.lower() in ("true", "1", "yes", "on") else None


def is_tracked(config: Config) -> bool:
    """Whether the run is tracked by W&B, online or offline."""
    return "wandb" in config.tracker.enabled and disabled_by(config.tracker.mode) is None


def asked_mode(mode: TrackerMode) -> TrackerMode:
    """Return tracker.mode, or what WANDB_MODE says where that is `auto`."""
    return MODES.get(os.environ.get("WANDB_MODE", ""), mode) if mode is TrackerMode.auto else mode


def init_arguments(config: Config, sweep: str | None, labels: Sequence[str] = ()) -> dict[str, Any]:
    """Return what W&B's client is given to name, group and place a run. `labels`: more tags.

    Started by `wandb agent`, a run lies where its sweep does, whatever tracker.project and tracker.entity say.
    """
    given = os.environ
    project, entity = config.tracker.project, config.tracker.entity
    if agent_run_id():
        project, entity = given.get("WANDB_PROJECT") or project, given.get("WANDB_ENTITY") or entity
    project, entity = placed(project, entity)
    return {
        "project": project,
        "entity": entity,
        "name": (None if sweep else given.get("WANDB_NAME")) or slug(config),
        "group": given.get("WANDB_RUN_GROUP") or sweep,
        "job_type": given.get("WANDB_JOB_TYPE") or config.method.name,
        "tags": tags(config, [sweep, *labels]),
        "notes": given.get("WANDB_NOTES") or None,
        "sweep_id": given.get("WANDB_SWEEP_ID") or None,
    }


def placed(project: str | None, entity: str | None) -> tuple[str, str | None]:
    """Return project and entity: those given, else by the variables, else hidden_subnet and None, the key's account."""
    return project or os.environ.get("WANDB_PROJECT") or PROJECT, entity or os.environ.get("WANDB_ENTITY") or None


def tags(config: Config, sweeps: Sequence[str | None]) -> list[str]:
    """Return tracker.tags or else WANDB_TAGS, and the sweeps' names, without duplicates, cut at W&B's 64 characters."""
    return _distinct([*(config.tracker.tags or _tags_of_variable()), *sweeps])


def tidy_variables() -> None:
    """Remove empty variables, and empty or long tags, which W&B's client refuses; to be called in the main thread."""
    for name in [name for name, value in os.environ.items() if name.startswith("WANDB_") and not value.strip(", ")]:
        del os.environ[name]
    if "WANDB_TAGS" in os.environ:
        os.environ["WANDB_TAGS"] = ",".join(_distinct(_tags_of_variable()))


def _tags_of_variable() -> list[str]:
    return [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",")]


def _distinct(tags: Sequence[str | None]) -> list[str]:
    return list(dict.fromkeys(tag[:64] for tag in tags if tag))
