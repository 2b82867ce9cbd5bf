"""Finished runs that differ from a run in nothing but the code of its own parts."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hidden_subnet.config.identity import earlier_folder_name, folder_name, projection
from hidden_subnet.config.own_parts import own_files
from hidden_subnet.config.settings import Config
from hidden_subnet.store import files, folders


def _former_codes(config: Config, names: Iterable[str]) -> list[str]:
    """Return the digests of the code of finished runs with these settings and another code, the newest last.

    names: those of all folders in `out`.
    """
    wanted = _without_code(projection(config))
    found: list[tuple[float, str]] = []
    out, own = Path(config.out), (folder_name(config), earlier_folder_name(config))
    starts = tuple(name[: name.rindex("-") + 1] for name in own if name)
    for folder in (out / name for name in names if name.startswith(starts)):
        result = _result(folder)
        what = result.get("projection") if result is not None else None
        if not isinstance(what, dict) or _without_code(what) != wanted:
            continue
        code = what.get("code_digest")
        if isinstance(code, str) and code != config.code_digest:
            found.append((folders.status(folder / files.RESULT).st_mtime, code))
    return [code for _, code in sorted(found)]


def on_former_code(config: Config) -> Config:
    """Return the config under the id of the newest finished run on another code; as it is where there is none.

    With force=true it stays as it is too, since the run is then to be computed again.
    """
    if config.code is None or config.force or _result(files.folder_of(config)) is not None:
        return config
    codes = _former_codes(config, _names(config.out))
    return replace(config, code_digest=codes[-1]) if codes else config


def changed_lines(configs: Iterable[Config]) -> list[str]:
    """Return a line for each file of own parts under whose former code some of these runs are finished.

    configs: all of one `out`.
    """
    runs: Counter[str] = Counter()
    own = [config for config in configs if config.code is not None and config.code_digest == config.code]
    names = _names(own[0].out) if own else []
    for config in own:
        if _result(files.folder_of(config)) is None and _former_codes(config, names):
            runs[" and ".join(sorted({each.name for each in own_files(config)}))] += 1
    return [
        f"{name} changed since {count} of these runs {'was' if count == 1 else 'were'} finished: other code is another "
        "run; code_digest=ignore takes the finished ones"
        for name, count in runs.items()
    ]


def _names(out: str) -> list[str]:
    try:
        return folders.names(Path(out))
    except FileNotFoundError:
        return []


def _without_code(what: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in what.items() if key != "code_digest"}


def _result(folder: Path) -> dict[str, Any] | None:
    """Return the result of a finished run; None where there is none, or a damaged one."""
    try:
        return files.read_result(folder)
    except (OSError, ValueError):
        return None
