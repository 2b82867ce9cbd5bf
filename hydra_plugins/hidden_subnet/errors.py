"""Hydra's and OmegaConf's complaints in one line: the value, the rule, the choices, what to do."""

import difflib
import importlib.util
import re
from collections.abc import Iterable
from dataclasses import fields

from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from hidden_subnet.check import ConfigError
from hidden_subnet.data.info import DataError
from hidden_subnet.settings import METHODS, Config


def one_line(error: BaseException) -> str:
    """The innermost cause said shortly, with the nearest name that exists."""
    if isinstance(error, ConfigError | DataError):
        return str(error)
    chain = [error]
    while (cause := _cause(chain[-1])) is not None and cause not in chain:
        chain.append(cause)
    for each in chain:
        if isinstance(each, MissingConfigException) and (needed := _package_of(each.missing_cfg_file or "")):
            return needed
        if isinstance(each, MissingConfigException) and each.missing_cfg_file and each.options is not None:
            path = each.missing_cfg_file
            group, _, name = path.rpartition("/") if path.startswith("hydra/") else path.partition("/")
            options = each.options
            return (
                f"{group}={name}: there is no such {group}{_nearest(name, options)}; choose one of {', '.join(options)}"
            )
    text = " ".join(" ".join(str(each) for each in chain).split())
    for unknown in (
        r"Could not override .*full_key: (\S+)",  # a key inside a value: train={epoch:1}
        r"Could not override '([^']+)'",
        r"'\w+' object has no attribute '(\w+)'",
    ):
        if found := re.search(unknown, text):
            if has := _methods_with(found[1]):
                return (
                    f"{found[1]}: is no setting of the method that was chosen, but of method={' or method='.join(has)}"
                )
            return f"{found[1]}: there is no such setting{_nearest(found[1], setting_names())}; --help lists them"
    if found := re.search(r"missing mandatory value: \w+ full_key: (\w+)", text):
        return f"{found[1]}: one must be chosen; --help lists them"
    if found := re.search(r"((?:Value|Invalid value) .*?) full_key: (\S+)", text):
        return f"{found[2]}: {found[1][0].lower()}{found[1][1:]}"
    if "override_grammar" in text or "mismatched input" in text or "LexerNoViableAlt" in text:
        found = re.search(r"Error parsing override '(.*?)'|LexerNoViableAltException: (.*?) \^", text)
        said = f"{found[1] or found[2]}: cannot be read" if found else re.sub(r" See https?://\S+.*", "", text)[:200]
        return f"{said}; a value with other than letters, digits and -._/ is quoted, as in 'out=\"my runs\"'"
    if found := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{found[1]}: several values make a sweep: add -m (a list is written key=[value,value])"
    if found := re.search(r"Sweep parameters '([^']+)' requires --multirun", text):
        return f"{found[1]}: several values make a sweep: add -m"
    if found := re.search(r"field '([\w.]+)' is not Optional", text):
        return f"{found[1]}: null is no value for it"
    return text[:300]


def _package_of(missing: str) -> str | None:
    """What to install for an option that a plugin of Hydra's brings."""
    if missing.startswith("hydra/sweeper/sampler"):
        option, package, extra = "hydra/sweeper=optuna", "hydra-optuna-sweeper", "optuna"
    elif missing.startswith("hydra/launcher/joblib"):
        option, package, extra = "hydra/launcher=joblib", "hydra-joblib-launcher", "joblib"
    else:
        return None
    if importlib.util.find_spec(f"hydra_plugins.{package.replace('-', '_')}"):
        return None
    return f"{option}: needs the package {package}: pip install {package} (or pip install -e '.[{extra}]')"


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def setting_names() -> list[str]:
    """Every setting as it is typed, and the groups."""
    names = ["model", "init", "data", "pruning", "method", "train", "tracker", "sweep"]
    for method in METHODS.values():
        settings = OmegaConf.to_container(OmegaConf.structured(Config(method=method())))
        assert isinstance(settings, dict)
        for key, value in settings.items():
            top = str(key)
            names += [f"{top}.{inner}" for inner in map(str, value)] if isinstance(value, dict) else [top]
    return list(dict.fromkeys(names))


def _methods_with(setting: str) -> list[str]:
    group, _, key = setting.partition(".")
    return [name for name, method in METHODS.items() if group == "method" and key in {f.name for f in fields(method)}]


def _nearest(name: str, names: Iterable[str]) -> str:
    names = list(names)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5) or [
        full for full in names if full.endswith(f".{name}")
    ]
    return f" (did you mean {near[0]}?)" if near else ""
