"""Completion by Tab after `hidden-subnet`: names of runs and sweeps, and the settings of a launch."""

import argparse
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import argcomplete
from argcomplete.completers import BaseCompleter, FilesCompleter

from hidden_subnet.cli.help import GROUPS, options, setting_lines
from hidden_subnet.config.program import ROOT
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError
from hidden_subnet.store import sweeps
from hidden_subnet.store.find import output_folder, run_folders


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell, which asks in argcomplete's way, and exit."""
    argcomplete.autocomplete(parser, "long", default_completer=_Completer())


class _Completer(BaseCompleter):
    def __call__(self, *, prefix: str, action: argparse.Action, **others: Any) -> Iterable[str]:
        """Return what may take the place of an argument that begins with `prefix`; its metavar says what it names."""
        what = str(action.metavar or action.dest).lower()
        if action.type is Path or what == "file":
            return FilesCompleter()(prefix)
        if "=" in what:
            return _words(prefix)
        # What is parsed so far lacks it, as long as the run is missing.
        typed = re.search(r"--out[= ]+(\S+)", os.environ["COMP_LINE"])
        try:
            out = output_folder(Path(typed[1] if typed else "runs"))
        except ConfigError:
            return []
        runs = run_folders(out) if "run" in what else []
        return [folder.name for folder in [*runs, *(sweeps.find(out) if "sweep" in what else [])]]


def _words(prefix: str) -> Iterable[str]:
    """Return the words of a launch."""
    name, is_given, value = prefix.partition("=")
    if is_given and name in ("evaluate", "use", "out"):
        return [f"{name}={file}" for file in FilesCompleter()(value)]
    parts = [f"{group}={option}" for group in GROUPS for option in options(ROOT, group)]
    return [*parts, *(f"{line.partition('=')[0]}=" for line, _ in setting_lines(Config))]
