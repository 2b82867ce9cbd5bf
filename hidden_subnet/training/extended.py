"""The run that `extend=` names, and how another run goes further from where it ended.

Its scores and weights are taken, as its last checkpoint has them; schedule, momentum and the method's own state begin
as those of any run.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from hidden_subnet.config.differences import flat, shown
from hidden_subnet.config.identity import projection
from hidden_subnet.config.registries import method_traits
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.masks.state import load_trained
from hidden_subnet.store import checkpoints, files, folders
from hidden_subnet.store.content import remembered
from hidden_subnet.store.pretrained import errors_of, file_or_run, refuse_digest_alone, require_digest
from hidden_subnet.training.finished import config_to_build, read_checkpoint, require_its_weights
from hidden_subnet.training.given_mask import settings_of_weights


def resolve_extended(config: Config) -> Config:
    """Return the config with the folder of the run and a digest of its end; unchanged without `extend`.

    Raises ConfigError if it is not a finished run that was trained, has another network, other random weights or
    another method, or if its digest is not the given extend_sha256.
    """
    if config.extend is None:
        refuse_digest_alone("extend", config.extend_sha256, "extend=runs/digits-conv2")
        return config
    name = config.extend
    folder = file_or_run("extend", name, Path(config.out))
    if not os.path.isdir(folder):
        rule = "is a file; the folder of a finished run can be extended"
        raise ConfigError(problem(f"extend={name}", rule, "extend=runs/digits-conv2", lead="as in"))
    with errors_of("extend", name):
        before = files.load_config(folder / files.CONFIG)
        there = _settings((files.read_result(folder) or {}).get("projection", {}))
    here = _settings(projection(config))
    if differing := [key for key in {**there, **here} if there.get(key) != here.get(key)]:
        pairs = "; ".join(f"{key} {shown(there.get(key))} there, {shown(here.get(key))} here" for key in differing)
        typed = {**{key: shown(value) for key, value in there.items()}, "pretrained": str(before.pretrained or "null")}
        right = [f"{key.removesuffix('.name')}={typed[key]}" for key in differing if key in typed]
        rule = f"has another network, method or random weights ({pairs}), and what is trained would not fit"
        raise ConfigError(problem(f"extend={name}", rule, f"extend={name}", *right, lead="as in"))
    last = folder / "checkpoints" / files.LAST
    if not folders.is_file(last):
        rule = f"{folder.name} keeps its masks alone (checkpoint.keep=mask), or was not trained; to start from its mask"
        raise ConfigError(problem(f"extend={name}", rule, f"mask={name}"))
    with errors_of("extend", name):
        digest = remembered(
            "extend 1", [str(last)], lambda sizes: checkpoints.digest(checkpoints.load(last)["trained"])
        )
    require_digest("extend", name, digest, config.extend_sha256)
    return replace(config, extend=str(folder), extend_sha256=digest)


def _settings(what: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that decide which tensors a run trains, and under which random weights."""
    method = {name: value for name, value in flat(what).items() if name.startswith("method.")}
    return settings_of_weights(what) | method


def _digest(state: dict[str, Any]) -> str:
    return checkpoints.digest(state["trained"])


def go_on(network: nn.Module, config: Config, weights_sha256: str) -> str:
    """Load the end of the run that `config.extend` names into the masked network, in place; return a line on it.

    weights_sha256: digest of the random weights. Raises ValueError where the run's checkpoint has changed since the
    config was composed, or where its random weights were others.
    """
    assert config.extend is not None
    folder, train = Path(config.extend), config.train
    before, result = config_to_build(folder), files.read_result(folder)
    assert result is not None
    require_its_weights(folder.name, result, weights_sha256)
    state = read_checkpoint(folder, "last", before, method_traits(before))
    assert state is not None
    if _digest(state) != config.extend_sha256:
        raise ValueError(
            f"{folder} ended otherwise when this run was composed: its checkpoint has changed; give the command again"
        )
    load_trained(network, state["trained"])
    return (
        f"extend={folder.name}: starts from its scores and weights after epoch {state['epoch']}; "
        f"train.schedule={train.schedule} begins again at train.lr={train.lr:g}, for {train.epochs} more"
    )
