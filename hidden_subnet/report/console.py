"""Where text goes."""

import os
import sys

from rich.console import Console


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Nobody reads any more (`| head`); what is being run goes on without a word, where rich would exit."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_console() -> Console:
    """As wide as the terminal; 160 columns in a file or pipe, where rich would squeeze a table into 80."""
    return _Console(width=None if sys.stdout.isatty() else 160)


def say(console: Console, text: str, style: str | None = None) -> None:
    """A line as it is, however long: no markup, since what an exception says may look like it."""
    console.print(text, highlight=False, soft_wrap=True, markup=False, style=style)


def count(number: int, what: str) -> str:
    """As in "1 run", "2 runs"."""
    return f"{number} {what}{'s' * (number != 1)}"
