"""The surroundings of a command: standard streams that take any character, threads that share a machine well."""

import os
import sys

from hidden_subnet.store.printable import print_printable
from hidden_subnet.store.waiting_threads import bound_spinning


def prepare_terminal() -> None:
    """Prepare this process and those that it starts, whatever started it; exits on Windows."""
    if sys.platform == "win32":
        sys.exit(1)  # hidden_subnet/__init__.py has said why
    open_standard_streams()
    bound_spinning(os.environ)


def open_standard_streams() -> None:
    """Open the null device where a standard stream is closed, and print ? for characters that a terminal must not get.

    Otherwise the next file that is opened would take the number of the closed stream, and with it what is printed.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    print_printable()


def cannot_load(error: ImportError | MemoryError) -> str:
    """Return a line for a package that cannot be imported, whether it is not installed or does not fit into memory."""
    why = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "map segment" in why or "allocate memory" in why:
        return f"not enough memory{f' ({why})' if why else ''}; raise the limit (ulimit -v), or free some"
    return f"a package cannot be imported: {why} (HYDRA_FULL_ERROR=1 shows where); pip install -e . installs them"
