"""Errors that a user reads are one line."""

from collections.abc import Sequence

from hydra_plugins.hidden_subnet.errors import one_line


def assert_one_line(error: BaseException, words: list[str], typed: Sequence[str] = ()) -> None:
    """Assert that a user, who typed this, is shown one short line of `error`, with these words in it."""
    line = one_line(error, typed)
    assert "\n" not in line
    assert len(line) <= 350
    for word in words:
        assert word in line
