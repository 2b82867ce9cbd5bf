"""Hydra 1.3.8 on Python 3.14, whose argparse looks for a % in each help text: https://github.com/facebook/hydra/issues/3121."""

import argparse
from typing import Any


def let_argparse_read_help() -> None:
    """Let argparse ask Hydra's help object, which becomes a text only when help is printed, whether it has a %."""
    add = argparse.ArgumentParser.add_argument

    def add_argument(parser: argparse.ArgumentParser, *names: str, **settings: Any) -> argparse.Action:
        given = settings.get("help")
        if given is not None and not hasattr(given, "__contains__"):
            type(given).__contains__ = lambda self, text: text in str(self)
        return add(parser, *names, **settings)

    argparse.ArgumentParser.add_argument = add_argument  # type: ignore[method-assign, assignment]
