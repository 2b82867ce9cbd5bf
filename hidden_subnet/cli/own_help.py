"""The part of `python launch.py --help use=my_parts.py` that lists own parts and their settings."""

import inspect
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from hidden_subnet.config.own_parts import USED
from hidden_subnet.config.registries import ALLOCATIONS, DATA, METHODS, METRICS, MODELS, TARGETS
from hidden_subnet.config.settings import Data, MethodSettings, Model, Pruning, default_value


def own_parts_text() -> str:
    """Return a line for each imported part, with its settings and the first line of its docstring."""
    lines = [line for file in USED.values() for kind, name in sorted(file.parts) for line in _lines(kind, name)]
    return "\n".join(["", "", "Your own parts:", *lines])


def _lines(kind: str, name: str) -> Iterator[str]:
    settings: Any
    base: Any
    about = ""
    if kind == "model":
        settings, base = MODELS[name].settings, Model
    elif kind == "data":
        settings, base = DATA[name].settings, Data
    elif kind == "method":
        settings, base = METHODS[name].settings, MethodSettings
        about = (inspect.getdoc(METHODS[name]) or "").split("\n")[0]
    elif kind == "pruning":
        settings, base = ALLOCATIONS[name].settings, Pruning
    elif kind == "metrics":
        yield " ".join(
            [f"  metrics=[{name}]", *(f"metric.{name}.{each}={x}" for each, x in METRICS[name].defaults().items())]
        )
        return
    elif kind == "model.target":
        yield f"  model=custom model.target={name}, by model.args: {name}{inspect.signature(TARGETS[name])}"
        return
    else:
        yield f"  {name}: a plot at the end of a sweep" if kind == "plot" else f"  {kind}={name}"
        return
    known = {field.name for field in fields(base)}
    more = [f"{kind}.{field.name}={default_value(field)}" for field in fields(settings) if field.name not in known]
    yield f"  {' '.join([f'{kind}={name}', *more])}{f'  {about}' if about else ''}"
