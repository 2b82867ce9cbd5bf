"""model=custom: a network of the user's own that no decorator registers, as in model.target=my_nets.py:Net.

The class or function is called with model.args, and with what it asks of the images by the names in
signature.FROM_DATA: Net(num_classes=10) gets the number of classes. Otherwise it is as one of models/own_network.py.
"""

import inspect
from collections.abc import Iterator

from torch import nn

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.config.registries import MODELS, TARGETS, ModelEntry, nearest, register
from hidden_subnet.config.settings import Config, CustomModel, Model, Norm
from hidden_subnet.config.signature import FROM_DATA
from hidden_subnet.errors import problem
from hidden_subnet.models.own_network import probed
from hidden_subnet.seeding import derive, torch_seeded


def _build(model: Model, info: DataInfo, seed: int) -> nn.Module:
    assert isinstance(model, CustomModel)
    asked = {name: value(info) for name, value in FROM_DATA.items() if name in _parameters(model.target)}
    with torch_seeded(derive(seed, "weights", "torchvision")):
        network: nn.Module = TARGETS[model.target](**{**asked, **model.args})
    return network


def _parameters(target: str) -> dict[str, inspect.Parameter]:
    """Return the arguments of a class or function by name; none of one written in C."""
    try:
        return dict(inspect.signature(TARGETS[target]).parameters)
    except ValueError:
        return {}


def _problems(config: Config, info: DataInfo) -> Iterator[str]:
    """Yield the broken rules that need no network; `_probe` tries the others before the first run."""
    model = config.model
    assert isinstance(model, CustomModel)
    if model.width != 1:
        yield problem(f"model.width={model.width:g}", "is for our own networks", f"model.args.width={model.width:g}")
    if model.norm is not Norm.batch_fixed:
        rule = "is for our own residual networks"
        yield problem(f"model.norm={model.norm.name}", rule, "model.norm=batch_fixed")
    found = _parameters(model.target)
    named = [name for name, each in found.items() if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    takes_any = not found or any(each.kind is each.VAR_KEYWORD for each in found.values())
    for name in [] if takes_any else sorted(model.args.keys() - set(named)):
        rule = f"{model.target} has no such argument ({', '.join(named) or 'it has none'})"
        near = nearest(name, named)
        right = f"model.args.{near}={model.args[name]}" if near else "model.args={}"
        yield problem(f"model.args.{name}={model.args[name]}", rule, right)
    for name in named:
        if found[name].default is inspect.Parameter.empty and name not in model.args and name not in FROM_DATA:
            rule = f"its argument {name} has no default, and is none of those that the images give ({GIVEN})"
            yield problem(f"model.target={model.target}", rule, f"model.args.{name}=1", lead="as in")


GIVEN = ", ".join(FROM_DATA)


def _probe(model: Model, info: DataInfo, last_batch: int) -> nn.Module:
    assert isinstance(model, CustomModel)
    return probed(f"model.target={model.target}", lambda: _build(model, info, 0), info, last_batch)


register(MODELS, "custom")(
    ModelEntry(
        _build,
        _problems,
        weights=lambda model, info: None,
        has_norm=True,
        has_width=False,
        draws_in_steps=True,
        masks_parameters=True,
        settings=CustomModel,
        probe=_probe,
    )
)
