"""Own parts: networks, methods, inits, ... that a user's own files register, named by `use=my_parts.py`.

Importing a file executes it. So a file is imported only where the user names it: on the command line of `launch.py`, by
the option --use of a command, or as an argument of a function. A preset, the config.yaml of a run and the manifest of a
sweep can name files, but never cause an import.

A run on own parts has a digest of their code in its id: another code is another run.
"""

import importlib
import importlib.util
import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from hidden_subnet.config.program import LAUNCH
from hidden_subnet.config.registries import (
    METRICS,
    OWN,
    REGISTRIES,
    TARGETS,
    chosen_parts,
    load_parts,
    nearest,
    register,
)
from hidden_subnet.config.settings import Config, CustomModel, Model
from hidden_subnet.config.signature import with_defaults
from hidden_subnet.config.source_digest import source_digest, source_files
from hidden_subnet.errors import AGAIN, ConfigError

MEND = f"mend the file, and {AGAIN}"


@dataclass(frozen=True)
class OwnFile:
    """A file of own parts that has been imported."""

    module: ModuleType
    file: Path
    is_file: bool
    """False: it was named as a module, which is imported by its name."""
    texts: dict[Path, str]
    """The text of the file, and of those that it imports from its own folder, when they were imported."""
    root: Path
    """The folder from which they are imported."""
    digest: str
    """Digest of their code when they were imported."""
    parts: frozenset[tuple[str, str]]
    """The parts that it has registered, as ("model", "my_net")."""
    target: str = ""
    """The class or function that was named with it, as in my_nets.py:Net, and needs no decorator."""

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.file.name


USED: dict[str, OwnFile] = {}
"""The files that this process has imported, by absolute path or name of the module."""


def named(use: str | Iterable[str]) -> list[str]:
    """Return absolute paths for files (my_parts.py, folder/x.py), and names of modules (my_package.parts) as given.

    Either may end in a class or function of it that makes a network, as my_nets.py:Net.
    """
    found = []
    for each in [use] if isinstance(use, str) else use:
        name, target = split_target(each)
        path = str(Path(name).expanduser().absolute()) if _is_file(name) or os.sep in name else name
        found.append(f"{path}:{target}" if target else path)
    return found


def split_target(name: str) -> tuple[str, str]:
    """Return ("my_nets.py", "Net") for my_nets.py:Net; an empty text where no class is named."""
    file, _, target = name.rpartition(":")
    return (file, target) if file and target.isidentifier() else (name, "")


def import_own_parts(use: str | Iterable[str]) -> None:
    """Import each file or module that `use` names, once in a process; what they define is registered by decorators.

    Raises ConfigError for one that is not there, raises an error, or registers nothing.
    """
    load_parts()  # first, so that what is registered below is the user's own
    for name in named(use):
        if name not in USED:
            USED[name] = _imported(name)


def refuse_changed(use: Iterable[str]) -> None:
    """Raise ConfigError where the code of a file differs from what this process imported, and still executes."""
    for name in use:
        if (each := USED.get(name)) is None:
            continue
        try:
            now = source_digest(each.file, source_files(each.file, each.root), each.root)
        except (OSError, SyntaxError) as error:
            now = str(error)
        if now != each.digest:
            raise ConfigError(
                f"use={name}: has changed since this process imported it, which still has the former code; restart "
                "Python (in a notebook, its kernel), and give the command again"
            )


def _imported(named_so: str) -> OwnFile:
    before = _registered()
    name, target = split_target(named_so)
    typed = f"model.target={named_so}" if target else f"use={name}"
    try:
        file, root = _located(name, typed)
        known = sys.modules.get(file.stem if _is_file(name) else name)
        files = source_files(file, root)
        digest = source_digest(file, files, root)
        module = known or _executed(name, file)
        if target:
            _register_target(module, target, typed)
    except (Exception, SystemExit) as error:
        _forget(before)
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{typed}: {_refusal(error, name)}") from error
    # A script or notebook may have imported the file before, and another file of `use`.
    parts = frozenset((_registered() - before) | {part for part in OWN if _defined_in(part) in files})
    if not parts:
        raise ConfigError(
            f"use={name}: registers nothing; decorate what it defines, as in: @hidden_subnet.register_model('my_net')"
        )
    texts = {path: path.read_text(errors="replace") for path in files}
    return OwnFile(module, file, _is_file(name), texts, root, digest, parts, target)


def _register_target(module: ModuleType, target: str, typed: str) -> None:
    """Register what `module` has under the name. Raises ConfigError where it has nothing such."""
    own = {name: each for name, each in vars(module).items() if callable(each) and not name.startswith("_")}
    if target not in own:
        defined = [name for name, each in own.items() if each.__module__ == module.__name__]
        near = nearest(target, defined)
        there = f"it has {', '.join(defined[:8])}" if defined else "it defines no class or function"
        example = f"; did you mean: {typed.removesuffix(target)}{near}" if near else ""
        raise ConfigError(f"{typed}: there is no {target} in the file; {there}{example}")
    register(TARGETS, target)(own[target])
    OWN["model.target", target] = module.__name__


def _defined_in(part: tuple[str, str]) -> Path | None:
    """Return the file that registered an own part; None for a script, or a cell of a notebook."""
    module = sys.modules.get(OWN.get(part, ""))
    return Path(module.__file__).absolute() if module is not None and module.__file__ else None


def _is_file(name: str) -> bool:
    return name.endswith(".py")


def _located(name: str, typed: str) -> tuple[Path, Path]:
    """Return the file, and the folder from which it and its neighbours are imported.

    Raises ConfigError, with what was `typed`, use=<name> or model.target=<name>:<class>.
    """

    def instead(other: str) -> str:
        return typed.replace(name, other)

    if not _is_file(name):
        if os.sep in name:
            raise ConfigError(
                f"{typed}: is no Python file; name a .py file, or a module, as in: {instead('my_package.parts')}"
            )
        _look_in(Path.cwd())
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            near = f"did you mean: {instead(f'{name}.py')}" if Path(f"{name}.py").is_file() else ""
            advice = near or f"a file ends in .py, as in: {instead('x.py')}"
            raise ConfigError(f"{typed}: there is no such module; {advice}")
        file = Path(spec.origin)
        return file, file.parents[name.count(".") + (file.name == "__init__.py")]
    file = Path(name)
    if not file.is_file():
        found = sorted(path.name for path in file.parent.glob("*.py"))[:5] if file.parent.is_dir() else []
        there = f"its folder has {', '.join(found)}" if found else f"{file.parent} has no Python file"
        example = file.with_name(nearest(file.stem, [each.removesuffix(".py") for each in found]) or "my_parts")
        raise ConfigError(f"{typed}: there is no such file; {there}, as in: {shlex.quote(instead(f'{example}.py'))}")
    if not file.stem.isidentifier():
        rename = shlex.join(["mv", name, str(file.with_name(f"my_{re.sub(r'[^0-9A-Za-z_]', '_', file.stem)}.py"))])
        raise ConfigError(f"{typed}: the name of the file is no name of a module; rename it, type: {rename}")
    _require_free(file, typed)
    _look_in(file.parent)
    return file, file.parent


def _require_free(file: Path, typed: str) -> None:
    """Raise ConfigError where another module has the name of the file, since one would be taken for the other."""
    loaded = sys.modules.get(file.stem)
    if loaded is not None:
        origin = vars(loaded).get("__file__") or "Python itself"
    else:
        spec = importlib.util.find_spec(file.stem)
        origin = (spec.origin or "a folder") if spec is not None else str(file)
    if Path(origin).absolute() != file:
        rename = shlex.join(["mv", str(file), str(file.with_name(f"my_{file.name}"))])
        raise ConfigError(
            f"{typed}: a module named {file.stem} exists already ({origin}); rename the file, type: {rename}"
        )


def _look_in(folder: Path) -> None:
    """Let files be imported from `folder`: last, so that a file there never takes the place of an installed module."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _executed(name: str, file: Path) -> ModuleType:
    if not _is_file(name):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # before it is executed, as an import does it; dataclasses look there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[file.stem]
        raise
    return module


def _refusal(error: Exception | SystemExit, name: str) -> str:
    """Return in one line what is wrong with a file that cannot be imported, and what to do."""
    if isinstance(error, SystemExit):
        return (
            f"ends Python when it is imported, by sys.exit({error.code!r}); put what only a script does under, as in: "
            "if __name__ == '__main__'"
        )
    if isinstance(error, SyntaxError):
        where = f"{error.filename}, line {error.lineno}: " if error.filename else ""
        return f"{where}{error.msg}; {MEND}"
    advice = MEND
    if isinstance(error, ImportError) and "relative import" in str(error) and _is_file(name):
        file = Path(name)
        advice = (
            f"name a file of a package as a module, from the folder above, type: use={file.parent.name}.{file.stem}"
        )
    # The last line of the user's own folder that led to it.
    folder = str(Path(name).parent) if _is_file(name) else os.getcwd()
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename.startswith(folder)]
    where = f"{frames[-1].filename}, line {frames[-1].lineno}: " if frames else ""
    return f"{where}{type(error).__name__}: {' '.join(str(error).split())}; {advice}"


def said(error: BaseException) -> str:
    """Return an error of the user's code in one line: file and line of it that led to the error, its kind, its text."""
    frames = _own_frames(error)
    where = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}: " if frames else ""
    return f"{where}{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def led_through_own_code(error: BaseException) -> bool:
    """Return whether the user's code raised the error, or called what did."""
    return bool(_own_frames(error))


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    files = {str(path) for each in USED.values() for path in each.texts}
    return [each for each in traceback.extract_tb(error.__traceback__) if each.filename in files]


def _registered() -> set[tuple[str, str]]:
    return {(kind, name) for kind, registry in REGISTRIES.items() for name in registry}


def _forget(before: set[tuple[str, str]]) -> None:
    """Remove what a file registered before it failed."""
    for kind, name in _registered() - before:
        del REGISTRIES[kind][name]
        OWN.pop((kind, name), None)


def own_files(config: Config) -> list[OwnFile]:
    """Return the imported files whose parts the config chooses; of a part, the one that defines it, if it is named."""
    found: list[OwnFile] = []
    for part in chosen_parts(config):
        having = [each for each in USED.values() if part in each.parts]
        found += [each for each in having if each.file == _defined_in(part)] or having
    return [each for each in USED.values() if each in found]


def takes_former_code(config: Config) -> bool:
    """Return whether the user gave code_digest=ignore. Raises ConfigError for anything else that was given."""
    if config.code_digest not in (None, "ignore") or config.code is not None:
        typed = f"code={config.code}" if config.code is not None else f"code_digest={config.code_digest}"
        raise ConfigError(
            f"{typed}: the program finds the digest itself; to take runs on a former version of your own parts for "
            "these, type: code_digest=ignore"
        )
    return config.code_digest == "ignore"


def with_own_code(config: Config) -> Config:
    """Return the config with the digest of the code of the own parts that it chooses; None where it chooses none.

    Raises ConfigError where the config names a file to `use` that nobody typed, and for an own part that no file has:
    without its code two runs could not be told apart, and the processes of a sweep would not have it.
    """
    for kind, name in sorted(
        (set(chosen_parts(config)) & OWN.keys()) - {part for each in USED.values() for part in each.parts}
    ):
        raise ConfigError(
            f"{kind}={name}: is registered outside of a file that `use` names; put it into a file, and name that, as "
            "in: use=my_parts.py"
        )
    for name in named(config.use):
        if name not in USED:
            raise ConfigError(
                f"use={name}: only the command line names files to import, not a file of settings; type: use={name}"
            )
    digests = sorted({each.digest for each in own_files(config)})
    code = "-".join(digests) or None
    metric = {
        name: {**METRICS[name].defaults(), **config.metric.get(name, {})}
        for name in config.metrics
        if name in METRICS and METRICS[name].defaults()
    }
    return replace(config, code=code, code_digest=code, model=_with_defaults(config.model), metric=metric)


def _with_defaults(model: Model) -> Model:
    """Return the settings of a custom network with the defaults of its arguments: giving them is no other run."""
    if not isinstance(model, CustomModel) or model.target not in TARGETS:
        return model
    return replace(model, args=with_defaults(TARGETS[model.target], model.args))


def missing_parts(config: Config) -> list[str]:
    """Return the own parts of a run, as "model=my_net", that are not imported here: it can be read, and not built."""
    if config.code is None:
        return []
    return sorted(f"{kind}={name}" for kind, name in set(chosen_parts(config)) - _registered())


def require_own_parts(config: Config, *, metrics: bool = True) -> None:
    """Raise ConfigError where a part of the config is not imported, or has another code than the run was started on.

    metrics: whether its metrics are needed too, which a network is built without.
    """
    if config.code is None:
        return
    whole, config = config.code.split("-"), config if metrics else replace(config, metrics=[])
    files = config.use or ["my_parts.py"]
    if missing := missing_parts(config):
        options = " ".join(f"--use {each}" for each in files)
        raise ConfigError(
            f"{' and '.join(missing)}: the run is on your own parts, which must be named again; type: "
            f"'use=[{','.join(files)}]' for {LAUNCH.split()[-1]}, {options} for a command, use={files} in Python"
        )
    code = with_own_code(replace(config, use=[])).code
    if code != config.code and (metrics or (code and not {*code.split("-")} <= {*whole})):
        found = ", ".join(str(each.file) for each in own_files(config)) or ", ".join(files)
        raise ConfigError(
            f"{found}: has changed since the run was started ({config.code} then, {code} now); name the former file, "
            "or, for another run, give the command again"
        )
