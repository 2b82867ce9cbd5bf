"""The command line as `wandb agent` types it: what W&B adds is removed, and other forms are refused with a hint."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hidden_subnet.errors import ConfigError
from hidden_subnet.trackers.wandb_environment import agent_run_id
from hidden_subnet.trackers.wandb_tracker import NOT_SETTINGS

COLUMNS = ("model", "data", "method", "init")
"""Columns of wandb_tracker.columns that hold the `name` of a part: model=vit_b_16 for the option model=torchvision."""


def own_arguments(arguments: list[str]) -> list[str]:
    """Return the arguments that are ours, and print a line that names those removed; all, without `wandb agent`.

    Raises ConfigError if the sweep's command gives the parameters in another form than name=value, or several runs.
    """
    if agent_run_id() is None:
        return arguments
    _refuse_sweeps(arguments)
    parameters = _parameters(os.environ.get("WANDB_SWEEP_PARAM_PATH", ""))
    for name, value in parameters.items():
        _refuse_other_forms(name, value, arguments)
    arguments = [_with_null(argument, parameters) for argument in arguments]
    # A run that was preempted comes back with its whole config on W&B.
    if "_wandb" not in parameters:
        return arguments
    added = {name for name in parameters if name.startswith("_") or name in NOT_SETTINGS}
    kept = [argument for argument in arguments if _name(argument) not in added]
    print(f"removed what W&B adds to the config of a run that it hands back: {', '.join(sorted(added))}")
    return _without_columns(kept, parameters.get("config"))


def _name(argument: str) -> str:
    return argument.lstrip("+").partition("=")[0]


def _parameters(path: str) -> dict[str, Any]:
    """Name -> value of what the agent gives, from the file that it writes; empty if that is not there."""
    try:
        content = yaml.safe_load(Path(path).read_text())
        return {name: entry["value"] for name, entry in content.items() if name != "wandb_version"}
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return {}


def _refuse_sweeps(arguments: list[str]) -> None:
    for argument in arguments:
        if argument in ("-m", "--multirun") or _name(argument) == "sweep":
            raise ConfigError(
                f"{argument}: a point of W&B's sweep is one run; remove it from the sweep's command; the sweep's "
                "`parameters` have the values, as in: seed: {values: [0, 1, 2]}"
            )


def _refuse_other_forms(name: str, value: Any, arguments: list[str]) -> None:
    if any(argument.startswith((f"{name}=", f"++{name}=")) for argument in arguments):
        if isinstance(value, dict) and not name.startswith("_") and name not in NOT_SETTINGS:
            inner = next(iter(value), "name")
            raise ConfigError(
                f"{name}: W&B's nested parameters are no settings; in the sweep's `parameters`, type: {name}.{inner}: "
                f"{{value: {value.get(inner)}}}"
            )
        return
    forms = (f"--{name}", f"+{name}=")
    given = next((argument for argument in arguments if argument.startswith(forms)), None)
    right = f"{name}={value}"
    how = f"gives it as {given}, not as {right}" if given else f"does not give it as {right}"
    raise ConfigError(
        f"{name}: the command of W&B's sweep {how} (docs/configuration.md has a whole sweep.yaml); in it, "
        'type: command: ["${env}", "python", "${program}", "${args_no_hyphens}"]'
    )


def _with_null(argument: str, parameters: Mapping[str, Any]) -> str:
    """W&B writes null as Python does."""
    name, _, value = argument.partition("=")
    return f"{name}=null" if value == "None" and parameters.get(_name(argument), ...) is None else argument


def _without_columns(arguments: list[str], config: Any) -> list[str]:
    """Remove model=<its name> and the like where the sweep's command chooses the part too."""
    names = [_name(argument) for argument in arguments]
    kept = list(arguments)
    for part in COLUMNS:
        chosen = [argument for argument in arguments if _name(argument) == part]
        name = config.get(part, {}).get("name") if isinstance(config, dict) else None
        if names.count(part) > 1 and f"{part}={name}" in chosen:
            kept.remove(f"{part}={name}")
    return kept
