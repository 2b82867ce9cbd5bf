"""The command line before Hydra composes it: misleading arguments are refused, options of methods kept back."""

import itertools
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from hidden_subnet.config.program import LAUNCH
from hidden_subnet.config.registries import load_parts
from hidden_subnet.config.settings import Model, Pruning
from hidden_subnet.errors import ConfigError, problem
from hydra_plugins.hidden_subnet.errors import problem_of, suggestions, unknown_setting

GROUPS = ("data", "init", "model", "pruning", "tracker")


def refuse_names(arguments: Iterable[str]) -> None:
    """Raise ConfigError for arguments that would silently do something else than they seem to.

    data.name=cifar10 would omit the crop and flip of conf/data/cifar10.yaml, model=[conv2,conv4] would be conv4 with
    what it does not set from conv2, and ~tracker would select the default tracker. model.name is allowed with
    model=torchvision or timm, which a preset may have chosen. Hydra 1.4 alone takes train[lr]=0.1 and hydra.aliases.
    """
    arguments = list(arguments)
    names_model = any(argument.startswith(("model=torchvision", "model=timm", "sweep=")) for argument in arguments)
    for argument in arguments:
        if argument.startswith("~") and not argument.startswith("~hydra"):
            load_parts()
            suggest, name = suggestions(), argument[1:].partition("=")[0]
            if name not in suggest.names:
                raise ConfigError(unknown_setting(name, None))
            words = ["tracker=none"] if name == "tracker" else suggest.example(name)
            raise ConfigError(f"{argument}: settings cannot be removed, only changed; as in: {shlex.join(words)}")
        found = re.match(rf"\+*({'|'.join(GROUPS)})\.name=(.*)", argument)
        if found and not (found[1] == "model" and names_model):
            load_parts()
            suggest, words = suggestions(), [f"{found[1]}={found[2]}"]
            if not set(found[2].split(",")) <= set(suggest.options[found[1]]):
                words = suggest.value(found[1], found[2]) or suggest.example(found[1])
            if found[1] == "tracker" and words != [f"tracker={found[2]}"]:
                raise ConfigError(
                    f"{argument}: the name of a run on W&B is that of a variable; type: "
                    f"{shlex.join([f'WANDB_NAME={found[2]}', *LAUNCH.split()])}"
                )
            raise ConfigError(
                f"{argument}: a part is chosen with its other settings (conf/{found[1]}); type: {shlex.join(words)}"
            )
        if re.match(r"tracker=\[(?:.*,)?\s*none\s*[],]", argument) and "," in argument:
            raise ConfigError(f"{argument}: none is no tracker beside others; type: tracker=none")
        if re.match(r"[+\w.]+\[[^=]*=", argument):
            load_parts()
            raise ConfigError(problem_of(argument, arguments))
        if re.match(r"\+*hydra\.aliases\b", argument):
            others = [each for each in arguments if each != argument]
            raise ConfigError(problem(argument, "a setting has one name here", *LAUNCH.split(), *others))
        if part := re.match(r"\+*hydra\.(launcher|sweeper)=([a-z]\w*)$", argument):
            raise ConfigError(f"{argument}: a part is chosen with a slash; type: hydra/{part[1]}={part[2]}")
        if several := re.match(r"(model|data|init|method|pruning|sweep)=\[(.*)\]$", argument):
            names = "".join(several[2].split())
            words = [*(["-m"] if "," in names else []), f"{several[1]}={names}"]
            raise ConfigError(f"{argument}: a run has one {several[1]}; type: {shlex.join(words)}")


def refuse_repeated(arguments: Iterable[str]) -> None:
    """Raise ConfigError for neighbouring words that give one setting different values, as a shell makes of seed={0,1}.

    Elsewhere the last one wins, as in Hydra, so that a script may end in "$@"; so it does where a tracker is turned off
    or on again (tracker=none tracker=wandb), of which nobody means both.
    """
    for name, words in itertools.groupby(arguments, lambda word: word.partition("=")[0].lstrip("+")):
        typed = [word for word in words if "=" in word]
        values = [word.partition("=")[2] for word in typed]
        if name.startswith(("-", "~")) or len(set(values)) < 2 or (name == "tracker" and "none" in values):
            continue
        load_parts()
        setting = suggestions().settings.get(name)
        if setting is not None and setting.is_mapping and (braced := suggestions().value(name, ",".join(values))):
            rule = "is one setting in braces, which a shell takes apart without quotes"
            raise ConfigError(problem(" ".join(typed), rule, *braced))
        if setting is not None and setting.kind == list[Any]:  # {a,b} within it, of which a shell makes two words
            rule = "is one setting, which a shell takes apart without quotes"
            raise ConfigError(problem(" ".join(typed), rule, *suggestions().example(name), lead="as in"))
        swept = suggestions().is_swept(name) and not re.search(r"[\[({]", "".join(values))
        all_of_them = ",".join(dict.fromkeys(values))
        right = ["-m", f"{name}={all_of_them}"] if swept else [f"{name}={values[-1]}"]
        if name == "tracker" and "[" not in all_of_them:
            right = [f"tracker=[{all_of_them}]"]
        raise ConfigError(
            f"{' '.join(typed)}: is one setting, of which the last value alone would count; type: {shlex.join(right)}"
        )


def keep_back_options(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `method.penalty=1` as `method.penalty=choice(1)` where a sweep has several methods.

    Hydra first composes a sweep with its default method, which may not have this option, but without what is swept.
    The sweeper then gives the option to the methods that have it. The same of networks and budgets, whose own settings
    may differ.
    """
    swept = [
        group
        for group in ("method", "model", "pruning")
        if any(re.match(f"sweep=|{group}=.*,", each) for each in arguments)
    ]
    if not swept or any(argument.startswith("hydra/sweeper=") for argument in arguments):
        return list(arguments)
    of_all = {f"model.{field.name}" for field in fields(Model)} | {f"pruning.{field.name}" for field in fields(Pruning)}
    starts = tuple(f"{group}." for group in swept)
    return [
        f"{name}=choice({value})"
        if name.startswith(starts) and name not in of_all and not re.search(r"[,(]", value)
        else argument
        for argument in arguments
        for name, _, value in [argument.partition("=")]
    ]
