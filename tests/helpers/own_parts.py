"""Parts of a user's own for a test, forgotten after it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from helpers.composing import make_composer

from hidden_subnet.config import own_parts
from hidden_subnet.config import registries as registries_module
from hidden_subnet.config.registries import load_parts
from hidden_subnet.config.settings import Config
from hydra_plugins.hidden_subnet import errors

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "own_parts.py"
NET = """
import math
from torch import nn
import hidden_subnet as hs

@hs.register_model("my_net")
def my_net(shape, classes, *, hidden: int = 20):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), hidden), nn.ReLU(), nn.Linear(hidden, classes))
"""

Use = Callable[..., list[str]]
"""(text of a file, its name) -> imports it, and returns what `use` names."""


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Restore registries, modules and paths after the test."""
    load_parts()
    registries = {kind: dict(registry) for kind, registry in own_parts.REGISTRIES.items()}
    own = dict(registries_module.OWN)
    used, modules, paths = dict(own_parts.USED), set(sys.modules), list(sys.path)
    yield
    for kind, registry in own_parts.REGISTRIES.items():
        registry.clear()
        registry.update(registries[kind])
    own_parts.USED.clear()
    own_parts.USED.update(used)
    registries_module.OWN.clear()
    registries_module.OWN.update(own)
    errors.suggestions.cache_clear()
    errors._schema.cache_clear()
    for name in set(sys.modules) - modules:
        file = vars(sys.modules[name]).get("__file__") or sys.prefix
        # A module of numpy cannot be loaded a second time.
        if not name.startswith(("hidden_subnet", "hydra")) and not file.startswith((sys.prefix, sys.base_prefix)):
            del sys.modules[name]
    sys.path[:] = paths


@pytest.fixture
def use(forgotten: None, tmp_path: Path) -> Use:
    def imported(text: str, name: str = "my_own_parts.py") -> list[str]:
        path = tmp_path / name
        path.write_text(dedent(text))
        own_parts.import_own_parts([str(path)])
        return [str(path)]

    return imported


def composed(used: list[str], *arguments: str) -> Config:
    """Return the checked config of a command line with `use`."""
    return make_composer().compose([f"use=[{','.join(used)}]", "tracker=none", *arguments])
