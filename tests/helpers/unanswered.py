"""A file server that does not answer for some names: every look at such a file fails, as with ESTALE or EIO."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def unanswered(code: int, *names: str) -> Iterator[None]:
    """Within the context this process cannot read, list or find files and folders of these names."""

    def refuse(call: Any) -> Any:
        def answer(path: Any, *arguments: Any, **others: Any) -> Any:
            if isinstance(path, str | os.PathLike) and Path(path).name in names:
                raise OSError(code, os.strerror(code), str(path))
            return call(path, *arguments, **others)

        return answer

    with pytest.MonkeyPatch.context() as patch:
        for name in ("open", "stat"):
            patch.setattr(os, name, refuse(vars(os)[name]))
        yield
