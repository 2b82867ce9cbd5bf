"""Lines of the command line, without Hydra, which takes 0.1 s for each."""

from hidden_subnet.cli.launch import refuse
from hidden_subnet.errors import ConfigError
from hydra_plugins.hidden_subnet.errors import problem_of


def refused(words: list[str]) -> str | None:
    """The line that launch.py gives for these words; None if it takes them, and only checks of values may follow."""
    try:
        refuse(words)
    except ConfigError as error:
        return str(error)
    return next(filter(None, (problem_of(word, words) for word in words)), None)
