"""Refuse words of the command line that are neither an override nor a flag of Hydra, with what to type instead."""

import argparse
import contextlib
import csv
import io
import itertools
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser

from hidden_subnet.cli.help import options
from hidden_subnet.config.program import COMMANDS, LAUNCH, PROGRAM, ROOT
from hidden_subnet.config.registries import load_parts, plain
from hidden_subnet.errors import ConfigError
from hydra_plugins.hidden_subnet.errors import HELP, SWEEP, example_of_several, is_readable, not_here, suggestions
from hydra_plugins.hidden_subnet.suggestions import Suggestions, hydra_text

DASHES = "-\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}"
RULE = "settings are written name=value"
VERBS = ("fit", "train", "run", "launch", "start", "python", "launch.py")
"""Words that other programs begin with."""


def refuse_words(arguments: Sequence[str]) -> None:
    """Raise ConfigError for the first word that Hydra would not understand."""
    parser = get_args_parser()
    flags = parser._option_string_actions
    position, verb = 0, None
    while position < len(arguments):
        word, following = arguments[position], list(arguments[position + 1 :])
        flag = _flag_of_hydra(word, flags)
        if flag is not None:
            takes_value = flag.nargs != 0 and "=" not in word
            given = bool(following) and not following[0].startswith("-") and "=" not in following[0]
            if flag.dest == "package" and not any(_prints(each, flags) for each in arguments):
                raise ConfigError(_package(word, following[0] if takes_value and given else ""))
            position += 1 + (takes_value and given)
            continue
        if word in VERBS:
            verb, rest = word, [*arguments[:position], *following]
        elif problem := _problem(word, following, list(arguments[:position]), flags):
            raise ConfigError(problem)
        position += 1
    if verb:
        launch = LAUNCH.split()
        raise ConfigError(f"{verb}: {launch[-1]} needs no such word; type: {shlex.join([*launch, *rest])}")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parser.parse_args(sorted(arguments, key=lambda word: word not in SWEEP))
    except SystemExit as end:
        if not end.code:
            return  # a flag that only prints
        *_, last = said.getvalue().splitlines() or [""]
        advice = "as in: --cfg job" if "--cfg" in last else f"for Hydra's flags, type: {LAUNCH} --hydra-help"
        raise ConfigError(f"{last.partition('error: ')[2]}; {advice}") from None


def _flag_of_hydra(word: str, flags: dict[str, argparse.Action]) -> argparse.Action | None:
    """Return Hydra's flag, which may be shortened; None for another word, and where several flags begin with it."""
    name = word.partition("=")[0]
    if name in flags or not name.startswith("--"):
        return flags.get(name)
    found = [action for flag, action in flags.items() if flag.startswith(name)]
    return found[0] if len(found) == 1 and len(name) > 3 else None


def _prints(word: str, flags: dict[str, argparse.Action]) -> bool:
    flag = _flag_of_hydra(word, flags)
    return flag is not None and flag.dest in ("cfg", "info")


def _package(word: str, value: str) -> str:
    """Return the line on Hydra's -p (--package), which only --cfg heeds; -p 0.3 may be meant as a rate."""
    advice = f"type: prune_rate={value}" if re.fullmatch(r"0?[.][0-9]+", value) else f"as in: --cfg job {word} train"
    return f"{f'{word} {value}'.strip()}: is Hydra's flag for a part of --cfg, and acts on nothing else; {advice}"


def _problem(word: str, following: list[str], before: list[str], flags: dict[str, argparse.Action]) -> str | None:
    if word == "--" or (word.startswith("~") and word[1:2].isalpha()):
        return None
    if word[:1] in DASHES:
        return _flag(word, following, before, flags)
    if "=" in word and not word.startswith("=") and not _goes_on(word, following):
        return None
    load_parts()
    suggest = suggestions()
    if "=" in word:
        return _split(word, following, suggest)
    return _bare(word, following, flags, suggest)


def _goes_on(word: str, following: list[str]) -> bool:
    """Return whether the next word is the rest of this one, which the shell split at a space."""
    if not following or (following[0][:1] in DASHES and not re.match(r"-[\d.]", following[0])):
        return False
    if following[0].startswith(("=", ",", "%")) or word[-1] in ",=[(" or word.count("[") > word.count("]"):
        return "=" not in following[0][1:]
    load_parts()
    suggest = suggestions()
    name, _, value = word.partition("=")
    setting = suggest.settings.get(name)
    if name in suggest.options and "=" not in following[0] and value not in suggest.options[name]:
        return _glued(value, following[:1], suggest.options[name]) is not None
    if "=" in following[0] or following[0].strip(":") in suggest.names or setting is None:
        return False
    return setting.kind is str or setting.is_list or re.match(r"[-+]?[\d.]|percent$", following[0]) is not None


def _glued(value: str, rest: Sequence[str], known: Iterable[str]) -> str | None:
    """Return the option that begins with the words, which the shell split: edge popup is edge_popup."""
    wanted = plain("".join([value, *rest]))
    return next((each for each in sorted(known, key=len) if rest and plain(each).startswith(wanted)), None)


def _flag(word: str, following: list[str], before: list[str], flags: dict[str, argparse.Action]) -> str:
    name, equals, value = word.lstrip(DASHES).partition("=")
    has_value = not equals and following and following[0][:1] not in DASHES and "=" not in following[0]
    typed = f"{word} {following[0]}" if has_value else word
    text = value if equals else following[0] if has_value else None
    if name in COMMANDS:
        rest = [following[0]] if has_value else []
        return f"{typed}: is a command for runs that exist; type: {shlex.join([*PROGRAM.split(), name, *rest])}"
    load_parts()
    suggest = suggestions()
    if has_value:
        text = " ".join(_several(suggest.name(name, text) or "", following, suggest))
        typed = f"{word} {text}"
    for flag in (f"--{name}", f"-{name}", "--version" if name == "V" else f"-{name.lower()}"):
        if flag in flags:
            return f"{word}: is no flag; type: {flag}"
    if name == "config":
        return f"{typed}: settings are typed, or stand in a file sweeps/<name>.yaml; {_of_config_file(text or '')}"
    if why := not_here(name, [*before, *following[bool(has_value) :]]):
        return f"{typed}: {why}"
    rule = RULE
    if name.startswith("prune-rate"):
        rule += " (prune_rate is the fraction removed; in the authors' code it is the fraction kept)"
    words = suggest.override(name, text)
    if not words:
        return f"{typed}: there is no such setting; {HELP}"
    sure = text is not None or words[0].endswith("=true") or words == [suggest.name(name)]
    return f"{typed}: {rule}; {'type' if sure else 'as in'}: {shlex.join(words)}"


def _several(name: str, following: Sequence[str], suggest: Suggestions) -> list[str]:
    """Return the values of a setting at the beginning of the words, which are no flags and no settings."""
    values = [*itertools.takewhile(lambda each: each[:1] not in DASHES and "=" not in each, following)]
    setting = suggest.settings.get(name)
    if setting is not None and setting.kind == list[str]:
        return values
    is_of_numbers = setting is not None and (setting.is_list or setting.kind in (int, float))
    return values if is_of_numbers and all(re.match(r"[\d.]", each) for each in values) else values[:1]


def _of_config_file(path: str) -> str:
    """Return the authors' experiment of that file name (sweeps/reference.csv), or the preset of that name."""
    stem = Path(path).stem
    if stem in options(ROOT, "sweep"):
        return f"type: sweep={stem}"
    reference = ROOT / "sweeps" / "reference.csv"
    if stem and reference.is_file():
        with reference.open(newline="") as file:
            for row in csv.DictReader(file):
                if Path(row["experiment"]).stem == stem:
                    return f"type: {row['command']}"
    return "as in: sweep=prune_rates"


def _split(word: str, following: list[str], suggest: Suggestions) -> str:
    """Return a line on a value that continues behind a space, or on a name that does."""
    rest: list[str] = []
    while _goes_on(" ".join([word, *rest]), following[len(rest) :]):
        rest.append(following[len(rest)])
    name, _, value = word.partition("=")
    between = "" if value[-1:] in ("", ",", "[", "(", "=") or (rest[:1] and rest[0][0] in ",=") else " "
    whole = " ".join([value, *rest]).strip("= ") if between else re.sub(r"\s", "", value + "".join(rest)).strip("=")
    typed = " ".join([word, *rest])
    rule = "a space ends a word" if rest else "is no setting"
    if name in suggest.names:
        right = f"{name}={whole}"
        if (option := _glued(value, rest, suggest.options.get(name, ()))) is not None:
            return f"{typed}: {rule}; type: {name}={option}"
        words = [right] if suggest.fits(name, whole) and is_readable(right) else suggest.value(name, whole)
        if words:
            return f"{typed}: {rule}; type: {shlex.join(words)}"
    if not name:
        return f"{typed}: {RULE}; as in: prune_rate={whole if re.fullmatch(r'0?[.][0-9]+', whole) else 0.5}"
    if words := suggest.override(name, whole):
        return f"{typed}: {rule}; did you mean: {shlex.join(words)}"
    if name in suggest.settings and suggest.settings[name].kind in (int, float):
        return f"{typed}: {rule}; as in: {shlex.join(example_of_several(name))}"
    return f"{typed}: {rule}; type: {shlex.quote(f'{name}={hydra_text(whole)}')}"


def _bare(word: str, following: list[str], flags: dict[str, argparse.Action], suggest: Suggestions) -> str:
    """Return a line on a word without "="."""
    name, colon, value = word.partition(":")
    name, value = name.strip("{}"), value.strip("{}")
    if name in suggest.names or (colon and suggest.name(name)):
        rest = [value] if value else [each for each in following[:2] if each != "="][:1]
        text = rest[0].lstrip("=") if rest and ("=" not in rest[0] or rest[0].startswith("=")) else None
        typed = word if value or text is None else f"{word} {' '.join(following[: following.index(rest[0]) + 1])}"
        if not value and len(several := _several(suggest.name(name) or "", following, suggest)) > 1:
            text = " ".join(several)
            typed = f"{word} {text}"
        words = suggest.override(name, text)
        return f"{typed}: {RULE}; {'type' if text and words else 'as in'}: {shlex.join(words or suggest.example(name))}"
    if f"--{word}" in flags:
        return f"{word}: {RULE}; a flag has two dashes, type: --{word}"
    if word in COMMANDS:
        rest = [each for each in following if "=" not in each]
        command = shlex.join([*PROGRAM.split(), word, *rest])
        return f"{word}: is a command for runs that exist; type: {command}"
    stem = re.sub(r"\.ya?ml$", "", word).rpartition("/")[2]
    for group, known in suggest.options.items():
        if stem in known:
            return f"{word}: {RULE}; type: {group}={stem}"
    if Path(word).is_dir():
        return f"{word}: {RULE}; did you mean: evaluate={shlex.quote(word)}"
    text = following[0] if following and "=" not in following[0] and following[0][:1] not in DASHES else None
    typed = f"{word} {text}" if text else word
    if why := not_here(word, following[text is not None :]):
        return f"{typed}: {why}"
    if suggest.is_known(name) and (words := suggest.override(name, text)):
        return f"{typed}: {RULE}; {'type' if text else 'as in'}: {shlex.join(words)}"
    return f"{word}: {RULE}; as in: prune_rate=0.5"
