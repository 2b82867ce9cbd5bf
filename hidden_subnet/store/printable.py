"""Text that somebody else may have written, for a terminal: names of runs, errors and logs."""

import io
import re
import sys

CONTROL = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters but for tab, line ends and colors, and those that turn the direction of writing. As a part of
sequences, they write to the clipboard, rename the window, and overwrite what was printed before."""


def printable(text: str) -> str:
    """Return the text with ? in place of control characters."""
    return CONTROL.sub("?", text)


def print_printable() -> None:
    """Make the standard streams of this process, and of those forked from it, print ? for control characters."""
    if isinstance(sys.stdout, io.TextIOWrapper) and not isinstance(sys.stdout, _Printable):
        sys.stdout.reconfigure(errors="replace")
        sys.stdout = _Printable(sys.stdout)
    if isinstance(sys.stderr, io.TextIOWrapper) and not isinstance(sys.stderr, _Printable):
        sys.stderr = _Printable(sys.stderr)


class _Printable(io.TextIOWrapper):
    """A standard stream that prints ? for control characters; sweep/console.py has its own way for rich."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        stream.flush()
        super().__init__(stream.buffer, stream.encoding, stream.errors, write_through=True)
        self.below = stream  # which would close the buffer if nobody had it any more
        self.flushes = stream.line_buffering or stream.write_through

    def write(self, text: str) -> int:
        """Write the text, made printable."""
        count = super().write(printable(text))
        if self.flushes:
            self.flush()
        return count

    def close(self) -> None:
        """Only flush: what is below belongs to the stream that this one stands for."""
        self.flush()
