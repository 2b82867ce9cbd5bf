"""Which file `pretrained=` means, and its digest, which is what makes the run another run. Needs no torch."""

import functools
import hashlib
from pathlib import Path

from hidden_subnet.check import ConfigError
from hidden_subnet.commands.names import find_run
from hidden_subnet.record import CONFIG, LAST, RESULT
from hidden_subnet.settings import Config


def pinned(config: Config) -> Config:
    """`config` with the file's whole path and its digest written into it; raises ConfigError where there is none."""
    if config.pretrained is None:
        if config.pretrained_sha256 is not None:
            raise ConfigError(f"pretrained_sha256={config.pretrained_sha256}: name the file too, with pretrained=")
        return config
    path = _file(config.pretrained, Path(config.out))
    try:
        status = path.stat()
        digest = _digest(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise ConfigError(f"pretrained={config.pretrained}: cannot be read ({error.strerror or error})") from None
    if config.pretrained_sha256 not in (None, digest):
        raise ConfigError(
            f"pretrained={config.pretrained}: its digest is {digest}, and not "
            f"pretrained_sha256={config.pretrained_sha256}; it is another file"
        )
    config.pretrained, config.pretrained_sha256 = str(path), digest
    return config


def _file(name: str, out: Path) -> Path:
    """The file itself, or the last checkpoint of a finished run named by its folder, its name or its digits."""
    path = Path(name).expanduser()
    if path.is_file():
        return path.absolute()
    if path.exists() and not (path / CONFIG).is_file():
        raise ConfigError(f"pretrained={name}: is neither a file of weights nor the folder of a run")
    try:
        folder = path.absolute() if path.exists() else find_run(out, name)
    except ConfigError as error:
        raise ConfigError(f"pretrained={name}: there is no such file, and {error}") from None
    if not (folder / RESULT).is_file():
        raise ConfigError(f"pretrained={name}: the run {folder.name} is not finished")
    last = folder / "checkpoints" / LAST
    if not last.is_file():
        raise ConfigError(f"pretrained={name}: {folder.name} holds no checkpoint: its method trains nothing")
    return last


@functools.cache
def _digest(path: Path, changed: int, size: int) -> str:
    """Read once for a sweep of a thousand runs; again when the file has changed."""
    with path.open("rb") as file:
        state = hashlib.sha256()
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()
