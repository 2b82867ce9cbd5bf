"""The command line as `wandb agent` types it: what W&B adds is removed, and other forms are refused with a hint."""

from collections.abc import Mapping
from typing import Any

from hidden_subnet.errors import ConfigError
from hidden_subnet.trackers.wandb_environment import agent_parameters, agent_run_id, given_by_sweep
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
    parameters, given = agent_parameters(), given_by_sweep()
    for name, value in parameters.items():
        if given is None or name in given:
            _refuse_other_forms(name, value, arguments)
    arguments = [_with_null(argument, parameters) for argument in arguments]
    # A run that was preempted comes back with its whole config on W&B.
    if "_wandb" not in parameters:
        return arguments
    if given is None:  # begun by a version that did not keep these names
        added = {name for name in parameters if name.startswith("_") or name in NOT_SETTINGS}
        kept = [argument for argument in arguments if _name(argument) not in added]
        kept = _without_columns(kept, parameters.get("config"))
    else:
        added, kept = parameters.keys() - set(given), arguments
        for name in added:
            _remove_one(name, parameters[name], kept)
    shown = sorted(name for name in added if "." not in name)
    print(f"removed what W&B adds to the config of a run that it hands back: {', '.join(shown)}")
    return kept


def _name(argument: str) -> str:
    return argument.lstrip("+").partition("=")[0]


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


def _remove_one(name: str, value: Any, arguments: list[str]) -> None:
    """Remove the argument that W&B makes of a column, and not the same setting in the sweep's command."""
    named = [argument for argument in arguments if _name(argument) == name]
    spelled = "null" if value is None else str(value)
    for argument in ([each for each in named if each.partition("=")[2] == spelled] or named)[:1]:
        arguments.remove(argument)


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
