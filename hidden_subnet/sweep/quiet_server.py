"""Loaded first by the fork server, whose children inherit it: what they print has no control characters.

Where no process can be started, the server dies without a traceback; the worker says why.
"""

import sys
from types import TracebackType

from hidden_subnet.store.printable import print_printable


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, OSError):
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _say
print_printable()
