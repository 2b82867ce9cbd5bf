"""Settings from a signature: the arguments of a user's own function become fields that Hydra overrides and checks."""

import inspect
from collections.abc import Callable, Collection
from dataclasses import asdict, fields, make_dataclass
from enum import Enum
from functools import partial
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.config.ranges import rounded
from hidden_subnet.config.settings import MISSING, setting

KINDS = (bool, int, float, str)
"""Types that a setting may have; also with None, and lists of them. Literal["a", "b"] is a closed choice."""

FROM_DATA: dict[str, Callable[[DataInfo], Any]] = {
    **dict.fromkeys(("classes", "num_classes", "n_classes"), lambda info: info.classes),
    **dict.fromkeys(("in_channels", "in_chans"), lambda info: info.shape[0]),
    **dict.fromkeys(("shape", "input_shape"), lambda info: info.shape),
}
"""The arguments of a network that get their values from the images where the user gives none."""

NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
Base = TypeVar("Base")


def settings_of(
    name: str,
    part: Callable[..., Any],
    base: type[Base],
    group: str,
    first: tuple[str, ...],
    free: tuple[str, ...] = (),
    *,
    named: bool = True,
    by_position: bool = False,
) -> type[Base]:
    """Return a subclass of the dataclass `base` with a field for each argument of `part` after those of `first`.

    name: the default of the setting `name`, which there is if `named`. group: as typed, for messages. free: fields of
    `base` that an argument may replace, as floats. by_position: the first arguments may have other names than `first`.
    Raises TypeError, in one line, for arguments that cannot be settings.
    """
    called = part.__name__
    arguments = inspect.signature(part).parameters
    if by_position:
        needed = [each.name for each in [*arguments.values()][len(first) :] if each.default is each.empty]
        refuse_arguments(part, first, settings=[each for each in needed if arguments[each].kind in NAMED])
    elif tuple(arguments)[: len(first)] != first:
        found = ", ".join([*arguments][: len(first)]) or "nothing"
        raise TypeError(f"{called}: its first arguments must be ({', '.join(first)}), and are ({found})")
    called_by = (
        next(vars(each)["__init__"] for each in part.__mro__ if "__init__" in vars(each))
        if isinstance(part, type)
        else part
    )
    hints = get_type_hints(called_by)
    taken = {field.name for field in fields(base)} - set(free)  # type: ignore[arg-type]
    made: list[Any] = [("name", str, setting(name, id="always"))] if named else []
    for argument in [*arguments.values()][len(first) :]:
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            raise TypeError(f"{called}: *{argument.name} cannot become settings; name each argument")
        if argument.name in taken:
            raise TypeError(f"{called}: {group}.{argument.name} is a setting already; rename the argument")
        has_default = argument.default is not argument.empty
        kind = hints.get(argument.name, type(argument.default) if has_default else None)
        if not _can_be_set(kind):
            raise TypeError(
                f"{called}: {argument.name} needs a type, as in {argument.name}: int = 3 (bool, int, float, str, a "
                "list of these, or Literal['a', 'b'])"
            )
        default = argument.default if has_default else MISSING
        if argument.name in free and kind is not float:
            raise TypeError(
                f"{called}: {group}.{argument.name} is a factor, {argument.name}: float = 1.0; rename an argument that "
                "counts, as in hidden: int = 300"
            )
        if get_origin(kind) is Literal:
            words = get_args(kind)
            choices = Enum(argument.name, {each: each for each in words})  # type: ignore[misc]
            if has_default and default not in words:
                which = f"which is none of {', '.join(words)}"
                raise TypeError(f"{called}: {argument.name} has the default {default!r}, {which}")
            made.append((argument.name, choices, setting(choices[default] if has_default else MISSING, id="always")))
            continue
        if has_default and not _fits(default, kind):
            type_name = kind.__name__ if isinstance(kind, type) else kind
            raise TypeError(
                f"{called}: {argument.name} has the default {default!r}, which is no {type_name}; change its type "
                "or its default"
            )
        if isinstance(default, list | tuple):
            made.append((argument.name, kind, setting(id="always", factory=partial(list, default))))
        else:
            made.append((argument.name, kind, setting(default, id="always")))
    return make_dataclass(f"{base.__name__}Of_{name}", made, bases=(base,), kw_only=True)


def refuse_arguments(
    part: Callable[..., Any], given: tuple[str, ...], called: str | None = None, settings: Collection[str] = ()
) -> None:
    """Raise TypeError, in one line, where `part` cannot be called with the values that it will be `given`, in order.

    called: its name in the line, where that is not the name of the function. settings: what it gets by name, too.
    """
    try:
        signature = inspect.signature(part)
    except ValueError:  # of a function written in C
        return
    try:
        signature.bind(*given, **dict.fromkeys(settings))
    except TypeError:
        found = ", ".join(map(str, signature.parameters.values())) or "nothing"
        raise TypeError(
            f"{called or part.__name__}: takes ({found}), and is called with {len(given)} values, as in: "
            f"def {part.__name__}({', '.join(given)})"
        ) from None


def arguments_in(settings: Any, names: Collection[str]) -> dict[str, Any]:
    """Return the values of the fields `names` as the user's function gets them: a closed choice as its text."""
    values = {name: value for name, value in asdict(settings).items() if name in names}
    return {name: value.name if isinstance(value, Enum) else value for name, value in values.items()}


def arguments_of(part: Callable[..., Any], first: tuple[str, ...]) -> list[str]:
    """Return the names of the arguments of `part` after those of `first`."""
    return [*inspect.signature(part).parameters][len(first) :]


def with_defaults(part: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments `given`, floats with 12 digits as in all settings, after the plain defaults of `part`.

    Without those that are taken from the images.
    """
    try:
        parameters = inspect.signature(part).parameters.values()
    except ValueError:  # of a class written in C
        parameters = {}.values()
    defaults = {each.name: each.default for each in parameters if each.name not in FROM_DATA}
    plain = {name: value for name, value in defaults.items() if value is None or isinstance(value, KINDS)}
    whole = {name for name, value in given.items() if type(value) is int and type(defaults.get(name)) is float}
    typed = {name: float(value) if name in whole else value for name, value in given.items()}
    # A default of more digits stays with the function, which gets what stands here.
    short = {name: value for name, value in plain.items() if _short(value) == value}
    return {**short, **{name: _short(value) for name, value in typed.items()}}


def _short(value: Any) -> Any:
    return rounded(value) if isinstance(value, float) else value


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a default may be one of a setting of this type."""
    inner = get_args(kind)
    if value is None:
        return type(None) in inner
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind in KINDS:
        return type(value) is kind
    if isinstance(value, list | tuple):
        item = next(each for each in inner if each is not type(None))
        return all(_fits(each, item) for each in value) if get_origin(kind) is list else _fits(value, item)
    return any(_fits(value, each) for each in inner if each is not type(None))


def _can_be_set(kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return all(isinstance(each, str) for each in get_args(kind))
    inner = [each for each in get_args(kind) if each is not type(None)]
    return kind in KINDS or (len(inner) == 1 and _can_be_set(inner[0]))
