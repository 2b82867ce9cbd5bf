"""Suggestions for names and values that do not exist: what to type, by near names and by the words of other programs.

A suggestion is a list of words of the command line; an empty one means that nothing comes near.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from hidden_subnet.config.convert import default_of
from hidden_subnet.config.program import LAUNCH
from hidden_subnet.config.ranges import contains, ranges_in
from hidden_subnet.config.registries import (
    ALLOCATIONS,
    DATA,
    METHODS,
    METRICS,
    MODELS,
    OPTIMIZERS,
    SCHEDULES,
    nearest,
    plain,
)
from hidden_subnet.config.settings import Config
from hydra_plugins.hidden_subnet.other_words import OTHER_NAMES, OTHER_VALUES

Options = Mapping[str, Collection[str]]
"""The options of each group of conf/: {"model": ["fc", ...], ...}."""

EXAMPLES = {
    "model": "conv4",
    "data": "digits",
    "method": "edge_popup",
    "tracker": "wandb",
    "sweep": "prune_rates",
    "evaluate": "runs/digits-conv2",
    "pretrained": "weights.pt",
    "mask": "runs/digits-conv2",
    "extend": "runs/digits-conv2",
    "tracker.tags": "[a]",
    "train.milestones": "[5,10]",
    "pruning.rates": "{conv1:0.1,fc1:0.9}",
    "data.augment": "[RandomVerticalFlip,{RandomRotation:{degrees:15}}]",
    "seeds.weights": "0",
}
"""Where the default, or the first option, is no example."""
QUOTES = "\"'\u2018\u2019\u201c\u201d"
NO = ("false", "no", "off", "0")
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


@dataclass(frozen=True)
class Setting:
    """A setting's type (without null, which some may be too) and its default."""

    kind: Any
    default: Any
    choices: Collection[str] = ()
    """The names that it may have, where they are a closed list."""

    @property
    def is_list(self) -> bool:
        """Return whether its values are lists."""
        return get_origin(self.kind) is list

    @property
    def is_mapping(self) -> bool:
        """Return whether its values map names, which may be typed behind its own, to values."""
        return get_origin(self.kind) is dict


def all_settings() -> dict[str, Setting]:
    """Return all settings by the name that is typed, those of every method, network and data set too."""
    found = _settings_in(Config, "")
    for method in METHODS.values():
        found |= _settings_in(method.settings, "method.")
    for entry in MODELS.values():
        found |= _settings_in(entry.settings, "model.")
    for images in DATA.values():
        found |= _settings_in(images.settings, "data.")
    for allocation in ALLOCATIONS.values():
        found |= _settings_in(allocation.settings, "pruning.")
    del found["metric"]  # so that metric=[a] is near metrics
    for name, metric in METRICS.items():
        found |= _settings_in(metric.settings, f"metric.{name}.")
    for name, registry in (("train.optimizer", OPTIMIZERS), ("train.schedule", SCHEDULES)):
        found[name] = Setting(str, found[name].default, list(registry))
    return found


def _settings_in(part: type[Any], prefix: str) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    hints = get_type_hints(part)
    for field in fields(part):
        kinds = get_args(hints[field.name])
        kind = kinds[0] if NoneType in kinds else hints[field.name]
        if is_dataclass(kind):
            found |= _settings_in(kind, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            closed = list(kind.__members__) if isinstance(kind, type) and issubclass(kind, Enum) else []
            found[f"{prefix}{field.name}"] = Setting(kind, default_of(field), closed)
    return found


class Suggestions:
    """Gives the words to type for a name or a value that does not exist."""

    def __init__(self, options: Options) -> None:
        self.options, self.settings = options, all_settings()
        self.names = [*options, *self.settings]

    def override(self, name: str, value: str | None) -> list[str]:
        """Return what to type for `name=value`, of which one or both do not exist. value: None where there is none."""
        *before, found = (self.name(name, value) or "").split(" ")
        if found == "evaluate" and (value or "").isdigit():  # -e 10 of other programs
            found = "train.epochs"
        group = found.removesuffix(".name")
        if group in self.options and value in self.options[group]:
            found = group
        if "=" in found and value is not None and value.lower() in NO:
            return ["tracker=none"] if found.startswith("tracker=") else []
        if not found or "=" in found:
            return [*before, found] if found else []
        if found == "hydra.launcher.timeout_min":
            limit = minutes(value or "")
            return ["hydra/launcher=slurm", f"{found}={limit}"] if limit else []
        if found.startswith("hydra."):
            return [f"{found}={value}"] if value else []
        words = self.value(found, value) or (self.example(found) if value is None else [])
        return [*before, *words] if words else []

    def name(self, name: str, value: str | None = None) -> str | None:
        """Return the setting or group that is meant, or a whole override; `value` decides between equal names."""
        wanted = plain(name.replace("/", "."))
        others = _others()
        exact = {plain(each): each for each in self.names}
        first, _, last = wanted.rpartition(".")
        for each in (wanted, f"{others.get(first)}.{last}" if first else "", last):
            if each in exact:
                return exact[each]
        for other in (others.get(wanted), others.get(last)):
            if other and (other in self.names or "=" in other or other.startswith("hydra.")):
                return other
        names = [each for each in self.names if not each.endswith(".name") and not each.startswith("data.found.")]
        same_end = [each for each in names if plain(each).endswith(f".{last}")]
        fitting = [each for each in same_end if value is not None and self.fits(each, value)]
        if value is not None and re.fullmatch(NUMBER, value):  # dropout=0.1 is not data.root=0.1
            names = [each for each in names if each not in self.settings or self.settings[each].kind is not str]
        return nearest(name, fitting or same_end) or next(iter(fitting or same_end), None) or nearest(name, names)

    def is_known(self, name: str) -> bool:
        """Return whether the word alone is the name of a setting, here (without its part) or in another program."""
        return plain(name) in _others() or any(plain(each.rpartition(".")[2]) == plain(name) for each in self.names)

    def is_in_mapping(self, name: str) -> bool:
        """Return whether it is an entry of a setting that is a mapping, as pruning.rates.conv1."""
        return any(setting.is_mapping and name.startswith(f"{each}.") for each, setting in self.settings.items())

    def is_swept(self, name: str) -> bool:
        """Return whether runs of a sweep may differ in it: a part, a number or a closed choice."""
        if name in self.options:
            return name not in ("tracker", "sweep")
        setting = self.settings.get(name)
        return setting is not None and (setting.kind in (int, float) or bool(setting.choices))

    def value(self, name: str, value: str | None) -> list[str]:
        """Return what to type for a value of a setting or group; empty if nothing is near."""
        if name in self.options:
            return self._option(name, value or "")
        setting = self.settings[name]
        if value is None:
            return [f"{name}=true"] if setting.kind is bool else []
        if setting.is_list:
            if value.lower() in ("null", "none"):
                return [f"{name}=[]"]
            if setting.kind == list[Any]:
                written = _with_arguments(value)
                return [f"{name}={written}"] if written else []
            parts = re.findall(r"[^\s,;\[\](){}\"']+", value)
            if setting.kind in (list[int], list[float]):
                parts = [each for each in parts if re.fullmatch(NUMBER, each)]
            return [f"{name}=[{','.join(map(hydra_text, parts))}]"] if parts else []
        if setting.is_mapping:
            pairs = re.findall(rf"([\w.*?/-]+)[\"']?\s*[:=]\s*({NUMBER})", value)
            return [f"{name}={{{','.join(map(':'.join, pairs))}}}"] if pairs else []
        if name in ("train.device", "train.devices") and (devices := _devices(name, value)):
            return devices
        if setting.choices:
            near = OTHER_VALUES.get(name, {}).get(plain(value)) or nearest(value, setting.choices)
            return [near if "=" in near else f"{name}={near}"] if near else []
        if setting.kind in (int, float):
            words = _numbers(name, value, setting.kind)
            return words if len(words) != 1 or _is_allowed(name, words[0]) else []
        if setting.kind is bool:
            return [f"{name}={value}"] if self.fits(name, value) else []
        inner = re.fullmatch(r"\[([^\[\],]+)\]", value)
        return [f"{name}={hydra_text(inner[1] if inner else value)}"]

    def _option(self, group: str, value: str) -> list[str]:
        value = value.strip("\"'")
        several = [nearest(each, self.options[group]) for each in re.findall(r"[^\s,;+&|\[\]]+", value)]
        if len(several) > 1 and None not in several:
            names = ",".join(map(str, several))
            if group != "tracker":
                return ["-m", f"{group}={names}"]
            return [f"tracker=[{names}]"] if "none" not in several else ["tracker=none"]
        name = re.split("[/.]", re.sub(r"\.ya?ml$", "", value))[-1]
        if group == "data" and "/" in value:
            return [f"data.root={hydra_text(value)}"]  # the folder of the images, as --data of the authors' code
        if ours := OTHER_VALUES.get(group, {}).get(plain(name)):
            return [f"{group}={ours}"]
        found = nearest(name, self.options[group])
        if group == "model" and plain(found or "") != plain(name) and (known := _of_torchvision(name)):
            return ["model=torchvision", f"model.name={known}"]
        if group == "data" and plain(found or "") != plain(name) and (known := _set_of_torchvision(name)):
            return ["data=torchvision", f"data.dataset={known}"]
        return [f"{group}={found}"] if found else []

    def fits(self, name: str, value: str) -> bool:
        """Return whether the setting or group has this value; a text fits where any text does."""
        if name in self.options:
            return value in self.options[name]
        setting = self.settings[name]
        if setting.choices:
            return value in setting.choices
        if setting.kind in (int, float):
            return _numbers(name, value, setting.kind) == [f"{name}={value}"]
        return setting.kind is str or (setting.kind is bool and value.lower() in ("true", "false"))

    def example(self, name: str) -> list[str]:
        """Return an override of the setting or group that is right."""
        if name in self.options:
            return [f"{name}={EXAMPLES.get(name, next(iter(self.options[name]), 'none'))}"]
        default = self.settings[name].default
        if isinstance(default, bool):
            default = str(default).lower()
        return [f"{name}={EXAMPLES.get(name, 'null' if default is None else default)}"]


def _with_arguments(value: str) -> str:
    """Return names with arguments, Name(argument=1), as a list of Hydra, [{Name:{argument:1}}]; "" if none is meant."""
    text = re.sub(r"(\w+)\(([^()]*)\)", lambda call: f"{{{call[1]}:{{{call[2].replace('=', ':')}}}}}", value)
    text = re.sub(r"[\s\"']|,(?=]?$)", "", text).removeprefix("[").removesuffix("]")
    text += "}" * (text.count("{") - text.count("}"))
    return f"[{text}]" if re.fullmatch(r"[\w.,:{}\[\]-]+", text) and text.count("{") == text.count("}") else ""


def _others() -> dict[str, str]:
    return {plain(other): ours for other, ours in OTHER_NAMES.items()}


def _numbers(name: str, text: str, kind: type[Any]) -> list[str]:
    """Return what to type for numbers with a unit, in a list or as a range, where one number belongs."""
    if (one := _number(name, text, kind)) is not None:
        return [f"{name}={one}"]
    if found := re.fullmatch(rf"({NUMBER})(?:\.\.+|:|-)({NUMBER})(?:(?:\.\.|:)({NUMBER}))?", text.strip("{}")):
        first, last, step = float(found[1]), float(found[2]), float(found[3] or 1)
        if found[3] and last < step:  # the step is in the middle
            last, step = step, last
        if kind is int or found[3]:
            return ["-m", f"{name}=range({first:.12g},{last + step:.12g},{step:.12g})".replace(",1)", ")")]
    parts = [part for part in re.split(r"[\s,;\[\](){}]+", text) if part]
    several = [_number(name, part, kind) for part in parts]
    if not several or None in several:
        return []
    several = [*dict.fromkeys(several)]  # [224,224] is one size
    return ["-m", f"{name}={','.join(map(str, several))}"] if len(several) > 1 else [f"{name}={several[0]}"]


def _is_allowed(name: str, word: str) -> bool:
    bounded = ranges_in(Config).get(name)
    return bounded is None or contains(bounded.range, float(word.partition("=")[2]))


def _number(name: str, text: str, kind: type[Any]) -> str | None:
    """Return the number, without its unit; None if it is no number."""
    found = re.fullmatch(rf"=?\s*({NUMBER})\s*(%|[a-zA-Z]*)", text.strip(QUOTES))
    if not found:
        return None
    number, unit = found[1], "%" if found[2] == "percent" else found[2]
    if unit in ("%", "k", "K"):
        number = f"{float(number) * (0.01 if unit == '%' else 1000):.12g}"
    elif not (name.rpartition(".")[2].startswith(unit) or unit == "x"):  # minutes=5min, width=2x
        return None
    if kind is int and not number.lstrip("+-").isdigit():
        return f"{float(number):.0f}" if float(number).is_integer() else None
    return number


def minutes(text: str) -> int | None:
    """Return a time limit as sbatch or people write it (240, 4h, 04:00:00, 1-12:00) in minutes; None if it is none."""
    units = {"": 1, "m": 1, "min": 1, "h": 60, "hours": 60, "d": 1440, "days": 1440}
    if (one := re.fullmatch(r"(\d+)\s*([a-z]*)", text.strip(QUOTES))) and one[2] in units:
        return int(one[1]) * units[one[2]] or None
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip(QUOTES))
    if not found:
        return None
    days, first, second, third = (int(each or 0) for each in found.groups())
    if found[1] is None and found[4] is None:  # minutes and seconds
        return first + (second > 0) or None
    return days * 1440 + first * 60 + second + (third > 0) or None


def _devices(name: str, value: str) -> list[str]:
    """Return what to type for the numbers of devices (cuda:0; 0,1), which one variable of the environment selects."""
    numbers = re.fullmatch(r"(?:cuda|gpu)?:?\[?(\d+(?:\s*,\s*\d+)*),?\]?", value)
    if not numbers:
        return []
    count = len(numbers[1].split(","))
    if name == "train.devices" and numbers[1] != "0":
        return [f"train.devices={count}"] if count > 1 or "[" in value else []
    several = [f"train.devices={count}"] if count > 1 else []
    visible = f"CUDA_VISIBLE_DEVICES={''.join(numbers[1].split())}"
    return [visible, *LAUNCH.split(), "train.device=cuda", *several]


def _of_torchvision(name: str) -> str | None:
    """Return the name of torchvision's network that `name` is but for its case, - and _; None if it has none."""
    try:
        from hidden_subnet.models.torchvision import names  # imports torchvision
    except ImportError:
        return None
    return next((each for each in names() if plain(each) == plain(name)), None)


def _set_of_torchvision(name: str) -> str | None:
    from hidden_subnet.data.torchvision_sets import SETS

    return next((each for each in SETS if plain(each) == plain(name)), None)


def hydra_text(text: str) -> str:
    """Return a text as a value for Hydra, in quotes where its grammar needs them."""
    if re.fullmatch(r"[\w/.+$%*@?|:-]+", text):
        return text
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text
    if text.count('"') % 2:  # one that is not closed is a slip
        text = text.replace('"', "")
    escaped = text.replace('\\"', '"').replace('"', '\\"')
    return f'"{escaped}"'
