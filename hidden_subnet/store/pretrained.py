"""Find the file or run that `pretrained=`, `mask=` or `extend=` means; a digest of it is part of the run's id."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hidden_subnet.config.program import PROGRAM
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.store import folders
from hidden_subnet.store.content import sha256_of
from hidden_subnet.store.files import CONFIG, LAST, RESULT
from hidden_subnet.store.find import find_run, typed

AS_IN = "pretrained=runs/digits-conv2"
NOT_THIS = {
    "pretrained": "is neither a file of weights nor the folder of a run",
    "mask": "is neither a file of masks nor the folder of a run",
    "extend": "is not the folder of a run",
}
"""The rule on a folder that is none of what a setting may name."""
NOUN = {"pretrained": "file", "mask": "mask", "extend": "run"}
"""The thing whose digest is in the id."""


@contextmanager
def errors_of(setting: str, name: str) -> Iterator[None]:
    """Raise ConfigError, a line that begins with the setting, for a file that cannot be read or does not fit."""
    try:
        yield
    except OSError as error:
        rule, as_in = f"cannot be read ({error.strerror or error})", f"{setting}=runs/digits-conv2"
        raise ConfigError(problem(f"{setting}={name}", rule, as_in, lead="as in")) from None
    except ConfigError:
        raise
    except ValueError as error:  # whose message begins with the path
        raise ConfigError(f"{setting}={error}") from None


def resolve_pretrained(config: Config) -> Config:
    """Return the config with the absolute path and the SHA-256 digest of the file; unchanged without `pretrained`.

    Raises ConfigError if the file is missing or unreadable, or if its digest is not the given pretrained_sha256.
    """
    if config.pretrained is None:
        refuse_digest_alone("pretrained", config.pretrained_sha256, "pretrained=weights.pt")
        return config
    path = file_or_run("pretrained", config.pretrained, Path(config.out))
    if path.is_dir():
        path = _last(config.pretrained, path)
    with errors_of("pretrained", config.pretrained):
        digest = sha256_of(path)
    require_digest("pretrained", config.pretrained, digest, config.pretrained_sha256)
    return replace(config, pretrained=str(path), pretrained_sha256=digest)


def refuse_digest_alone(setting: str, sha256: str | None, example: str) -> None:
    """Raise ConfigError where the digest is given and what it is of is not. example: how that is named."""
    if sha256 is not None:
        typed = f"{setting}_sha256={sha256}"
        raise ConfigError(problem(typed, f"name the {NOUN[setting]} too", example, typed, lead="as in"))


def require_digest(setting: str, name: str, digest: str, sha256: str | None) -> None:
    """Raise ConfigError where `digest`, of what `name` stands for, is not the digest that was given, if one was."""
    if sha256 not in (None, digest):
        rule = f"is another {NOUN[setting]} than that of {setting}_sha256={sha256}; to take this one"
        raise ConfigError(problem(f"{setting}={name}", rule, f"{setting}_sha256={digest}"))


def file_or_run(setting: str, name: str, out: Path) -> Path:
    """Return the file of that name, or else the folder of a finished run, named by its folder, its name or its id.

    setting: what names it. Raises ConfigError where there is neither.
    """
    path, as_in = Path(name).expanduser(), f"{setting}=runs/digits-conv2"
    if path.is_file():
        return path.absolute()
    if path.exists() and not (path / CONFIG).is_file():
        raise ConfigError(problem(f"{setting}={name}", NOT_THIS[setting], as_in, lead="as in"))
    if not path.exists() and not out.is_dir():
        raise ConfigError(
            problem(f"{setting}={name}", "there is no such file, and no run of that name", as_in, lead="as in")
        )
    try:
        run, inside, checkpoint = name.partition("/checkpoints/")
        if inside and not Path(run).exists():
            found = find_run(out, run, "out=") / "checkpoints" / checkpoint
            if folders.is_file(found):
                return found
        folder = typed(path) if path.exists() else find_run(out, name, "out=")
    except ConfigError as error:
        why = re.sub(r"(as in|did you mean): (?=[^=\s]+$)", rf"\1: {setting}=", str(error))
        raise ConfigError(f"{setting}={name}: there is no such file, and {why}") from None
    if not folders.is_file(folder / RESULT):
        rule = f"the run {folder.name} is not finished; give its command again, or for how far it is"
        words = [*PROGRAM.split(), "logs", str(folder)]
        raise ConfigError(problem(f"{setting}={name}", rule, *words))
    return folder


def _last(name: str, folder: Path) -> Path:
    last = folder / "checkpoints" / LAST
    if not folders.is_file(last):
        rule = f"{folder.name} holds no checkpoint, as its method trains nothing; give another run or file"
        raise ConfigError(problem(f"pretrained={name}", rule, AS_IN, lead="as in"))
    return last
