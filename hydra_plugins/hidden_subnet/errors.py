"""Errors of Hydra and OmegaConf in one line: what was typed, the rule, the choices, and what to type instead.

The words of the command line (or the overrides of a job) are looked at first, since they say more than the exception;
an exception that none of them explains comes from a file of settings.
"""

import importlib.util
import os
import re
import shlex
import traceback
from collections.abc import Collection, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, OverrideType
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    InterpolationResolutionError,
    InterpolationValidationError,
    OmegaConfBaseException,
)

from hidden_subnet.cli.help import GROUPS, options
from hidden_subnet.config.own_parts import USED
from hidden_subnet.config.parsing import parse_yaml
from hidden_subnet.config.program import LAUNCH, ROOT
from hidden_subnet.config.registries import ALLOCATIONS, DATA, METHODS, METRICS, MODELS, nearest, plain
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError, DataError, problem
from hidden_subnet.store.access import explained
from hydra_plugins.hidden_subnet.other_words import NOT_HERE
from hydra_plugins.hidden_subnet.suggestions import NUMBER, Suggestions, hydra_text, minutes

SWEEP = ("-m", "--multirun")
HELP = f"for all settings, type: {LAUNCH} --help"
LISTED = 285
"""Most characters of the options that a line lists."""


@cache
def suggestions() -> Suggestions:
    """Return the suggestions for the groups of conf/ and sweeps/; the parts must be loaded."""
    own = [part for file in USED.values() for part in file.parts]
    return Suggestions(
        {group: [*options(ROOT, group), *sorted(name for kind, name in own if kind == group)] for group in GROUPS}
    )


def one_line(error: BaseException, words: Sequence[str] = ()) -> str:
    """Return what is wrong in one line, which ends in what to type.

    words: the command line, or the overrides of the job, that led to the error.
    """
    if isinstance(error, ConfigError | DataError):
        return str(error)
    if isinstance(error, OSError) and not isinstance(error, HydraException):  # a missing file of conf/ is both
        return explained(error)
    if isinstance(error, HydraException | OmegaConfBaseException | ValueError | AttributeError):
        missing = isinstance(error, MissingConfigException) or type(error) is ValueError
        for word in words:
            if problem := problem_of(word, words, missing):
                return problem
    chain = [error]
    while (cause := _cause(chain[-1])) is not None and cause not in chain:
        chain.append(cause)
    text = " ".join(" ".join(str(each) for each in chain).split())
    if isinstance(error, InterpolationKeyError | InterpolationResolutionError | InterpolationValidationError):
        return _interpolation(str(error).splitlines()[0], words)
    if found := re.search(r"In '([^']+)': \w+ raised .* config: Key '\w+' not in '\w+' full_key: (\S+)", text):
        return _unknown_in_file(found[1], found[2])
    if found := re.search(r"Could not override '(hydra\.(?:job\.env_set|callbacks|sweeper\.params)\.\S+)'", text):
        typed = [word for word in words if word.startswith(f"{found[1]}=")]
        right = shlex.quote(f"+{typed[-1] if typed else f'{found[1]}=...'}")
        return f"{found[1]}: is not there yet; a new entry is written with a plus, type: {right}"
    for each in chain:
        if isinstance(each, MissingConfigException) and each.missing_cfg_file:
            return _missing_file(each.missing_cfg_file, each.options or ())
        if isinstance(each, ConfigAttributeError | ConfigKeyError) and each.full_key:
            known = list(each.parent_node or ()) if each.full_key.startswith("hydra.") else ()
            typed = [word.partition("=")[2] for word in words if word.lstrip("+").startswith(f"{each.full_key}=")]
            return unknown_setting(each.full_key, typed[-1] if typed else None, known, beside=words)
        if added := re.search(r"'\w+' object has no attribute '(\w+)'", str(each)):  # with + in a file
            typed = [word.lstrip("+") for word in words if re.match(rf"\++{added[1]}[.=]", word)]
            name, _, value = typed[-1].partition("=") if typed else (added[1], "", None)
            return unknown_setting(name, value)
    last = chain[-1]
    name = last.full_key if isinstance(last, OmegaConfBaseException) else None
    if "missing mandatory value" in text:
        if name in suggestions().settings:
            return f"{name}: has no default, so it must be given; type: {name}=..."
        return f"{name}: an option must be chosen; {HELP}"
    if name == "hydra.launcher.timeout_min":
        given = next((word.partition("=")[2] for word in words if word.partition("=")[0] == name), "")
        return f"{name}={given}: must be a number of minutes; as in: {name}={minutes(given) or 240}"
    if "is not Optional" in text:
        return f"{name}=null: must not be null; {HELP}"
    return f"{f'{name}: {str(last).splitlines()[0]}' if name else text[:250]}; {HELP}"


def problem_of(word: str, words: Sequence[str], missing: bool = True) -> str | None:
    """Return a line on what is wrong with one word of a command line that Hydra refused; None if it is not this one.

    missing: whether it may be an option that does not exist; False, so may those of the user's own folders.
    """
    word = re.sub(r"=choice\(([^,()]*)\)$", r"=\1", word)  # as it was typed (options.keep_back_options)
    key, equals, value = word.partition("=")
    name = key.lstrip("+")
    if not equals or word.startswith(("-", "~")):
        return None
    if "[" in name:
        return _syntax(name, value)
    suggest = suggestions()
    try:
        override = OverridesParser.create().parse_override(word)
        if override.is_discrete_sweep() and not isinstance(override.value(), Glob):
            _elements(override)  # which range(0,1,0) does not have
    except (HydraException, ValueError):
        return _syntax(name, value)
    if name == "hydra" or name.startswith(("hydra.", "hydra/")):
        return None
    is_sweep = any(each in SWEEP or each.startswith("sweep=") for each in words)
    if suggest.is_in_mapping(name):
        return _sweep_needed(word) if override.is_sweep_override() and not is_sweep else None
    if name not in suggest.names:
        inner = [each for each in suggest.settings if each.startswith(f"{name}.")]
        if inner and name != "metric":  # which is a slip for metrics
            return _part(word, words, override, inner[0])
        return None if key.startswith("+") else unknown_setting(name, value, beside=words)
    if override.is_sweep_override():
        is_list = name in suggest.settings and suggest.settings[name].is_list
        if not is_sweep or (is_list and "[" not in value):
            return _several(override, is_list)
        if name == "sweep":
            return problem(word, "only one preset at a time", f"sweep={value.partition(',')[0]}")
        if name in suggest.options or is_list or not override.is_discrete_sweep():
            return None
        if isinstance(override.value(), Glob):
            return _wrong_value(name, value)
        return None if all(map(_converts, _elements(override))) else _wrong_value(name, value)
    if name in suggest.options:
        return (_unknown_option(name, value, suggest.options[name]) if missing else None) or _added(key, word)
    return _wrong_value(name, value) if not _converts(override) else _added(key, word)


def is_readable(word: str) -> bool:
    """Return whether Hydra 1.3 and later can read the word; to 1.4 train[lr] is train.lr."""
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return "[" not in word.partition("=")[0]


def example_of_several(name: str) -> list[str]:
    """Return an example of several values of a number; of one, where counting gives values that it does not take."""
    ranges = {"prune_rate": "range(0.1,1.0,0.1)", "seed": "range(0,10,1)"}
    return ["-m", f"{name}={ranges[name]}"] if name in ranges else suggestions().example(name)


def _syntax(name: str, value: str) -> str:
    suggest = suggestions()
    typed, name, value = f"{name}={value}", name.strip(" \"'"), value.strip()
    parts = re.split(r"[\s,;&]+(?=[A-Za-z_][\w.]*=)", f"{name}={value}")
    several = [each.partition("=") for each in parts]
    if len(several) > 1 and all(each in suggest.names for each, _, _ in several):
        words = ["=".join((each, inner.strip("\"'"))) for each, _, inner in several]
        if all(map(is_readable, words)):
            sweep = [*SWEEP[:1]] * any("," in each or "(" in each for each in words)
            return f"{typed}: is {len(words)} settings in one word; type: {shlex.join([*sweep, *words])}"
    if name not in suggest.names and (bare := re.sub(r"\W+", ".", name).strip(".")) in suggest.names:
        words = suggest.value(bare, value.strip("= \"'")) or suggest.example(bare)
        return f"{typed}: cannot be read; did you mean: {shlex.join(words)}"
    is_text = name in suggest.settings and suggest.settings[name].kind is str
    rule = "such characters need quotes of their own" if is_text else "cannot be read"
    if name in suggest.names and (words := suggest.value(name, value)):
        return f"{typed}: {rule}; type: {shlex.join(words)}"
    if name in suggest.settings and suggest.settings[name].kind in (int, float):
        return f"{typed}: {rule}; as in: {shlex.join(example_of_several(name))}"
    if name in suggest.names:
        return f"{typed}: {rule}; as in: {shlex.join(suggest.example(name))}"
    right = f"{name}={hydra_text(value)}"
    return f"{typed}: {rule}; {f'type: {shlex.quote(right)}' if is_readable(right) else HELP}"


def unknown_setting(name: str, value: str | None, known: Collection[str] = (), *, beside: Sequence[str] = ()) -> str:
    """Return a line on a setting that does not exist.

    known: the names beside it, if they are not ours. beside: the command line, which says of which part it would be.
    """
    typed = name if value is None else f"{name}={value}"
    group, _, last = name.rpartition(".")
    limit = minutes(value or "") if plain(last) in ("time", "timelimit", "walltime", "timeout", "timeoutmin") else None
    if known and group == "hydra.launcher" and limit:
        chosen = [] if "timeout_min" in known else ["hydra/launcher=slurm"]
        words = [*chosen, f"hydra.launcher.timeout_min={limit}"]
        return f"{typed}: there is no such setting, the limit is in minutes; type: {shlex.join(words)}"
    if known:
        near = nearest(last, [each for each in map(str, known) if not each.startswith("_")])
        instead = (
            f"did you mean: {typed.replace(name, f'{group}.{near}', 1)}"
            if near
            else f"for those of Hydra, type: {LAUNCH} --cfg hydra"
        )
        return f"{typed}: there is no such setting; {instead}"
    own = {plain(each.rpartition(".")[2]) for each in suggestions().names}
    if name.isupper() and value is not None and plain(name) not in own:
        return f"{typed}: is no setting; a variable goes first, type: {shlex.join([typed, *LAUNCH.split()])}"
    if name.startswith("tracker.to"):
        return f"{typed}: choose trackers by name, as in: tracker=wandb or 'tracker=[wandb,tensorboard]'"
    for kind, owners in (("method", METHODS), ("model", MODELS), ("data", DATA), ("pruning", ALLOCATIONS)):
        if has := [each for each, part in owners.items() if group == kind and last in _names_in(part.settings)]:
            return f"{typed}: is not a setting of the chosen {kind}; type: {shlex.join([f'{kind}={has[0]}', typed])}"
    if why := not_here(name, ()):
        return f"{typed}: {why}"
    suggest = suggestions()
    if value is None:
        near = suggest.name(name)
        return f"{typed}: there is no such setting; {f'did you mean: {near}' if near else HELP}"
    if words := suggest.override(name, value):
        return f"{typed}: there is no such setting; did you mean: {shlex.join(words)}"
    near = suggest.name(name, value)
    if near in suggest.settings and re.fullmatch(NUMBER, value):  # one out of its range, as prune_rat=1
        return f"{typed}: there is no such setting; as in: {shlex.join(suggest.example(near))}"
    return f"{typed}: there is no such setting; {_settings_of_part(group, beside) or HELP}"


def _settings_of_part(group: str, words: Sequence[str]) -> str:
    """Return which settings the chosen method, network, ... has, with an example; "" of another group."""
    parts: dict[str, Any] = {"method": METHODS, "model": MODELS, "data": DATA, "pruning": ALLOCATIONS}
    if group not in parts:
        return ""
    chosen = [word.partition("=")[2] for word in words if word.startswith(f"{group}=")] or [_default(group)]
    name = chosen[-1] if chosen[-1] in parts[group] else _default(group)
    names = [each for each in sorted(_names_in(parts[group][name].settings)) if each not in NOT_TYPED]
    if not names:
        return f"{group}={name} has none; {HELP}"
    listed = ", ".join(f"{group}.{each}" for each in names)
    return f"{group}={name} has {listed}; as in: {shlex.join(suggestions().example(f'{group}.{names[0]}'))}"


NOT_TYPED = ("name", "library", "found")
"""Settings of parts that follow from the choice of an option."""


def _default(group: str) -> str:
    """Return the option of a group that conf/config.yaml chooses."""
    chosen = parse_yaml((ROOT / "conf" / "config.yaml").read_text())["defaults"]
    return str(next(each[group] for each in chosen if isinstance(each, dict) and group in each))


def _interpolation(why: str, words: Sequence[str]) -> str:
    """Return a line on what stands in ${...} and has no value."""
    for word in (each for each in words if "${" in each):
        name, _, value = word.lstrip("+").partition("=")
        wrong = re.findall(r"\$\{([A-Za-z_][A-Za-z_0-9]*)\}", value)
        if any(each in os.environ for each in wrong):
            right = re.sub(r"\$\{([A-Z_a-z0-9]+)\}", r"${oc.env:\1}", word)
            return f"{word}: a variable of the environment is written oc.env; type: {shlex.quote(right)}"
        missing = re.search(r"Environment variable '(\w+)' not found", why)
        if missing and missing[1] in value:
            return f"{word}: {missing[1]} is not set in the environment; as in: {missing[1]}=... {LAUNCH}"
        if name in suggestions().names:
            return f"{word}: {why[0].lower()}{why[1:]}; as in: {shlex.join(suggestions().example(name))}"
    return f"{why}; {HELP}"


def _part(word: str, words: Sequence[str], override: Override, inner: str) -> str | None:
    """Return a line on a part that is given as a whole (train=3), where it is neither an option's name nor a mapping.

    inner: the first setting of the part.
    """
    if override.is_sweep_override():
        is_sweep = any(each in SWEEP or each.startswith("sweep=") for each in words)
        return None if is_sweep else _sweep_needed(word)
    name, value = override.key_or_group, override.value()
    has_options = isinstance(value, str) and (ROOT / "conf" / name).is_dir()
    if has_options or isinstance(value, dict) or override.type is not OverrideType.CHANGE:
        return None
    return f"{word}: {name} has several settings; as in: {shlex.join(suggestions().example(inner))}"


def _sweep_needed(word: str) -> str:
    return f"{word}: several values need a sweep; add -m, type: {shlex.join(['-m', word])}"


def not_here(name: str, others: Sequence[str]) -> str | None:
    """Return why a name of other programs is no setting here, and what to type; others: the other words of the line."""
    for each, why in NOT_HERE.items():
        if plain(each) == plain(name):
            return f"{why} {shlex.join(others)}".strip() if why.endswith(LAUNCH) else why
    return None


def _several(override: Override, is_list: bool) -> str:
    """Return a line on several values where there is no sweep."""
    name, typed = override.key_or_group, override.input_line or ""
    suggest, value = suggestions(), typed.partition("=")[2]
    words = suggest.value(name, value)
    if name == "train.devices" and words and words[0] != "-m":  # 0,1 name two devices
        return f"{typed}: is how many devices; type: {shlex.join(words)}"
    setting = suggest.settings.get(name)
    if setting is not None and (
        (setting.kind is float and re.fullmatch(r"0,\d+", value))
        or (setting.kind is int and re.fullmatch(r"[1-9]\d{0,2}(,000)+", value))
    ):
        number = value.replace(",", "." if setting.kind is float else "")
        return f"{typed}: is two values here; did you mean: {name}={number}"
    if setting is not None and setting.choices and not {*value.split(",")} <= {*setting.choices}:
        near = [nearest(each, setting.choices) for each in value.split(",")]
        if None not in near:
            return f"{typed}: several values need a sweep; add -m, type: -m {name}={','.join(map(str, near))}"
    if is_list or name == "tracker":
        words = words or suggest.example(name)
        rule = "none is no tracker beside others" if words == ["tracker=none"] else "a list is in brackets"
        return f"{typed}: {rule}; type: {shlex.join(words)}"
    if name in suggest.settings and override.is_discrete_sweep() and not all(map(_converts, _elements(override))):
        return _wrong_value(name, value)
    words = words if name in suggest.options and words[:1] == ["-m"] else ["-m", typed]
    return f"{typed}: several values need a sweep; add -m, type: {shlex.join(words)}"


def _elements(override: Override) -> list[Override]:
    parser = OverridesParser.create()
    return [parser.parse_override(f"{override.key_or_group}={each}") for each in override.sweep_string_iterator()]


def _unknown_option(group: str, name: str, known: Collection[str]) -> str | None:
    """Return None if all options that `name` lists are known."""
    names = [each.strip("\"' ") for each in name.strip("[]").split(",")]
    # A preset of the user's own is registered only.
    known_too = ConfigStore.instance().repo.get(group, {})
    if names and all(each.removesuffix(".yaml") in known or f"{each}.yaml" in known_too for each in names):
        return None
    if group == "method" and name in METHODS:
        return f"method={name}: it is registered, but conf/method/{name}.yaml is missing; write it"
    start = f"{group}={name}: there is no such {group}"
    suggest = suggestions()
    words = suggest.value(group, name) if group in suggest.options else []
    if not words and (near := nearest(name, known)):
        words = [f"{group}={near}"]
    if not words and group in suggest.options:
        return f"{start} ({_listed(known)}); as in: {shlex.join(suggest.example(group))}"
    is_certain = len(words) > 1  # it exists elsewhere, as a network of torchvision; a list would hide what to type
    listed = "" if is_certain else f" ({_listed(known)})"
    return f"{start}{listed}; did you mean: {shlex.join(words or [f'{group}={next(iter(known))}'])}"


def _listed(options: Collection[str]) -> str:
    """Return the names of options; where they do not fit a line, some, and where all are."""
    names = [*options]
    if len(text := ", ".join(names)) <= LISTED:
        return text
    count = text[: LISTED - 40].count(", ")
    return f"{', '.join(names[:count])} and {len(names) - count} more, in --help"


def _missing_file(path: str, known: Collection[str]) -> str:
    if needed := _package_of(path):
        return needed
    group, _, name = path.rpartition("/") if path.startswith("hydra/") else path.partition("/")
    if not name:
        return (
            f"--config-name {path}: there is no conf/{path}.yaml; the settings are those of conf/config.yaml, and "
            "yours are typed or stand in sweeps/<name>.yaml, as in: sweep=prune_rates"
        )
    known = known or suggestions().options.get(group, ())
    return _unknown_option(group, name, known) or f"{group}={name}: cannot be read; {HELP}"


def _wrong_value(name: str, value: str) -> str:
    suggest = suggestions()
    setting = suggest.settings[name]
    rule = {int: "a whole number", float: "a number", bool: "true or false"}.get(setting.kind, "a text")
    if setting.choices:
        rule = f"one of {', '.join(setting.choices)}"
    elif setting.is_list:
        rule = "a list" if setting.kind in (list[str], list[Any]) else "a list of numbers"
    elif setting.is_mapping:
        rule = "names with a value each, in braces"
    if words := suggest.value(name, value):
        return f"{name}={value}: must be {rule}; {'did you mean' if setting.choices else 'type'}: {shlex.join(words)}"
    return f"{name}={value}: must be {rule}; as in: {shlex.join(suggest.example(name))}"


def _added(key: str, word: str) -> str | None:
    """Return a line if a setting that exists is added with +."""
    typed = word.lstrip("+")
    return f"{word}: it is there already; type: {shlex.quote(typed)}" if key.startswith("+") and key[1] != "+" else None


@cache
def _schema(model: str, data: str, pruning: str, method: str) -> Any:
    parts: dict[str, Any] = {
        "metric": {name: entry.settings() for name, entry in METRICS.items()},
        "pruning": ALLOCATIONS[pruning].settings(),
        "model": MODELS[model].settings(),
        "data": DATA[data].settings(),
        "method": METHODS[method].settings(),
    }
    return OmegaConf.structured(Config(**parts))


def _converts(override: Override) -> bool:
    name = override.key_or_group
    owners: list[tuple[str, Any]] = [("model", MODELS), ("data", DATA), ("pruning", ALLOCATIONS), ("method", METHODS)]
    chosen = [
        next(
            (each for each in parts if name.removeprefix(f"{group}.") in _names_in(parts[each].settings)),
            next(iter(parts)),
        )
        for group, parts in owners
    ]
    try:
        schema = _schema(*chosen)
        OmegaConf.update(schema, name, override.value(), merge=True)
    except OmegaConfBaseException:
        return False
    return True


def _names_in(settings: type[Any]) -> set[str]:
    return {each.name for each in fields(settings)}


def refused_by_hydra(error: BaseException, words: Sequence[str]) -> str | None:
    """Return the line for a setting of Hydra's, of which its own code trips over the type; None for another error."""
    given = [word for word in words if re.match(r"\+*hydra[./]", word)]
    frames = traceback.extract_tb(error.__traceback__)
    if not given or not re.search(r"[/\\](?:hydra|omegaconf)[/\\]", frames[-1].filename):
        return None
    return f"{' '.join(given)}: has a value that Hydra does not take; for its settings, type: {LAUNCH} --cfg hydra"


def unset_variable(error: KeyError) -> str | None:
    """Return the line for a variable of hydra.job.env_copy that the environment lacks; None for another KeyError."""
    if "_load_configuration_impl" not in [frame.name for frame in traceback.extract_tb(error.__traceback__)[-2:]]:
        return None
    name = error.args[0]
    return f"hydra.job.env_copy: {name} is not set in the environment; as in: {name}=1 {LAUNCH}"


def _unknown_in_file(file: str, name: str) -> str:
    """Return the line for a key of an option's own file that is no setting."""
    group, _, key = name.partition(".")
    has = [each for each, method in METHODS.items() if group == "method" and key in _names_in(method.settings)]
    if file.startswith("method/") and has:
        return (
            f"{file.replace('/', '=', 1)}: its file sets {name} without the settings and learning rate of {has[0]}; "
            f"as its first line, type: defaults: [{has[0]}]"
        )
    near = suggestions().name(name)
    return f"{name}, in {file}: there is no such setting; {f'did you mean: {near}' if near else HELP}"


def _package_of(missing: str) -> str | None:
    """Return what to install, if `missing` is an option of one of Hydra's own plugins that is not installed."""
    found = re.match(r"hydra/launcher/(joblib|ray)$", missing.removesuffix(".yaml"))
    if found is None or importlib.util.find_spec(f"hydra_plugins.hydra_{found[1]}_launcher"):
        return None
    option, package = f"hydra/launcher={found[1]}", f"hydra-{found[1]}-launcher"
    return f"{option}: needs the package {package} (pip install -e '.[{found[1]}]'); type: pip install {package}"


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)
