"""Errors that a user can correct. Their text is one line: the value, the rule, the choices and what to type."""

import shlex

AGAIN = "give the command again"


class ConfigError(ValueError):
    """A setting, or a combination of settings, that cannot be run."""


class DataError(ValueError):
    """Data that is missing or cannot be read."""


class Ended(Exception):
    """The end of a single run: Hydra calls the callbacks on_job_end and on_run_end after an exception, not an exit."""

    def __init__(self, code: int | str) -> None:
        super().__init__(code)
        self.code = code


def problem(typed: str, rule: str, *words: str, lead: str = "type") -> str:
    """Return the line on a broken rule: what was typed, the rule, and the words of the command line to type instead.

    lead: `type` where the words are what was meant or is the same in effect, `did you mean`, or `as in` for an example.
    """
    return f"{typed}: {rule}; {lead}: {shlex.join(words)}"
