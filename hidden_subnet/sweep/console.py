"""Output to the terminal."""

import os
import sys
from collections.abc import Iterator
from io import TextIOWrapper
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from hidden_subnet.store.printable import printable


class _Console(Console):
    """Prints as long as somebody can read it; the runs continue where rich would exit, or raise."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Render, with ? for control characters in text; rich's own, as of a moving display, stay."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def print(self, *objects: Any, **settings: Any) -> None:
        """Print, unless the output is closed or on a full disk."""
        try:
            sys.stdout.flush()  # for the order of lines, where this console has the stream below it
            super().print(*objects, **settings)
        except OSError as error:
            self._print_no_more()
            print(f"nothing more is printed, since the output cannot be written ({error.strerror})", file=sys.stderr)

    def on_broken_pipe(self) -> None:
        """Print no more if the reader has gone (`| head`)."""
        self._print_no_more()

    def _print_no_more(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_console() -> Console:
    """A console as wide as the terminal, or 160 columns for a file or pipe, where rich would use 80."""
    below = sys.__stdout__  # sys.stdout itself prints no control characters (store/printable.py), but rich has to
    same = isinstance(sys.stdout, TextIOWrapper) and below is not None and sys.stdout.buffer is below.buffer
    return _Console(file=below if same else None, width=None if sys.stdout.isatty() else 160)


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print one line unchanged: not wrapped, and without markup, as the text of an exception may look like markup."""
    console.print(text, highlight=False, soft_wrap=True, markup=False, style=style)


def count(number: int, what: str) -> str:
    """A number with its noun, as in "1 run", "2 runs"."""
    return f"{number} {what}{'s' * (number != 1)}"


def clock(seconds: float) -> str:
    """Return a duration as "4.2 s", "1:05" (minutes and seconds) or "2:01:05" (with hours)."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def added_line(added: int) -> str:
    """Return the line on runs of a sweep that nobody has asked for."""
    return f"adds {count(added, 'run')} that others start from"
