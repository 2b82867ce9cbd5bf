"""Where text goes."""

import sys

from rich.console import Console


def make_console() -> Console:
    """As wide as the terminal; 160 columns in a file or pipe, where rich would squeeze a table into 80."""
    return Console(width=None if sys.stdout.isatty() else 160)
