"""`python launch.py [-m] [name=value ...]`: compose the settings with Hydra, then run one run or a sweep.

Imports are inside the functions, so that --help and --version answer without loading Hydra and torch.
"""

import os
import sys
from pathlib import Path
from typing import Any

from hidden_subnet.cli.help import help_text
from hidden_subnet.cli.terminal import cannot_load, prepare_terminal
from hidden_subnet.config.program import LAUNCH, ROOT, TYPED, rank_in_environment
from hidden_subnet.errors import Ended

WANTS_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1"
"""Whether an error is shown with its traceback; Hydra too takes only 1 for yes."""


def main(root: Path = ROOT) -> None:
    """Do what the command line asks for; `root` holds conf/ and sweeps/. Exits with a line for a user's mistake."""
    prepare_terminal()
    let_first_rank_speak()
    arguments = sys.argv[1:]
    if {"--help", "-h"} & set(arguments):
        print_text(help_text(root) + own_help(arguments))
        return
    if "--version" in arguments:
        from hidden_subnet import __version__

        print(f"hidden_subnet {__version__}")
        return
    try:
        compose_and_run(root)
    except (ImportError, MemoryError) as error:  # e.g. a limit of memory, under which torch cannot be loaded
        if WANTS_TRACEBACK:
            raise
        sys.exit(f"error: {cannot_load(error)}")


def own_help(arguments: list[str]) -> str:
    """Return the part of the help on what `use=...` brings; "" without it. Exits with a line for a wrong file."""
    use = [each for each in arguments if each.startswith(("use=", "model.target="))]
    if not use:
        return ""
    from hidden_subnet.cli.own_help import own_parts_text
    from hydra_plugins.hidden_subnet.own_parts import with_own_parts

    try:
        with_own_parts(use)
    except ValueError as error:
        sys.exit(f"error: {error}")
    return own_parts_text()


def let_first_rank_speak() -> None:
    """Print nothing from here on where torchrun has started this process beside the rank that prints.

    All of them compose the same command, and what happens to one of them later is told by rank 0.
    """
    rank, _ = rank_in_environment()
    if rank > 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        if os.environ.get("LOCAL_RANK") != "0":  # the first of another node says why it cannot start
            os.dup2(null, 2)


def print_text(text: str) -> None:
    """Print a text; a reader that closes the pipe early (`| head`) is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def compose_and_run(root: Path) -> None:
    """Have Hydra compose the command line; it calls `run_task` for a single run, the sweeper for a sweep."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from hidden_subnet.config.convert import register
    from hidden_subnet.config.presets import with_own_preset
    from hydra_plugins.hidden_subnet.argparse_help import let_argparse_read_help
    from hydra_plugins.hidden_subnet.errors import one_line, refused_by_hydra, unset_variable
    from hydra_plugins.hidden_subnet.hydra_versions import let_files_choose_mode
    from hydra_plugins.hidden_subnet.options import keep_back_options
    from hydra_plugins.hidden_subnet.own_parts import with_own_parts
    from hydra_plugins.hidden_subnet.wandb_agent import own_arguments

    let_argparse_read_help()
    let_files_choose_mode()
    try:
        sys.argv[1:] = with_own_parts(own_arguments(sys.argv[1:]))
        typed = sys.argv[1:]
        refuse(typed)
        words, preset = with_own_preset(typed, root)
    except ValueError as error:
        sys.exit(f"error: {error}")
    from hydra_plugins.hidden_subnet.optuna_study import take_over  # after the refusals, since it loads torch

    program = Path(sys.argv[0]).name
    TYPED[:] = [*([program] if program == "launch.py" else LAUNCH.split()), *typed]
    # argparse accepts overrides on one side of -m only.
    arguments = keep_back_options(words)
    sys.argv[1:] = sorted(arguments, key=lambda argument: argument not in ("-m", "--multirun"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise, so that the error is printed below, in one line
    try:
        register(root / "sweeps", sys.argv[1:], preset)
        take_over()
        hydra.main(version_base="1.3", config_path=str(root / "conf"), config_name="config")(run_task)()
    except Ended as end:  # without our own callback: hydra.callbacks={}
        sys.exit(end.code)
    except (KeyboardInterrupt, Exception) as error:
        if is_interrupt(error):
            print("interrupted; the same command continues from what is saved", file=sys.stderr)
            sys.exit(130)
        line: str | None = None
        if isinstance(error, HydraException | OmegaConfBaseException | ValueError | TypeError | OSError):
            line = one_line(error, words)
        elif isinstance(error, AssertionError | AttributeError):
            line = refused_by_hydra(error, words)
        elif isinstance(error, KeyError):
            line = unset_variable(error)
        if WANTS_TRACEBACK or line is None:
            raise
        sys.exit(f"error: {line}")


def is_interrupt(error: BaseException | None) -> bool:
    """Return whether Ctrl-C led to the error: amid the making of a tree, OmegaConf raises one of its own in its place.

    Its trees set flags for a while, and cannot set them back where a node is made in part.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def refuse(arguments: list[str]) -> None:
    """Raise ConfigError for words that Hydra would not take, or would take for something else than they seem to be."""
    from hydra_plugins.hidden_subnet.command_line import refuse_words
    from hydra_plugins.hidden_subnet.options import refuse_names, refuse_repeated
    from hydra_plugins.hidden_subnet.secrets import refuse_secrets

    refuse_secrets(arguments)
    refuse_words(arguments)
    refuse_names(arguments)
    refuse_repeated(arguments)


def run_task(composed: Any) -> float | None:
    """Run what Hydra composed: a single run, or one job of a sweep that one of Hydra's own launchers executes.

    Returns the value for a sweeper that searches (hydra_plugins/hidden_subnet/objective.py).
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from hidden_subnet.config.unused import unused_lines
    from hidden_subnet.store.access import explained
    from hidden_subnet.store.former_code import changed_lines
    from hidden_subnet.store.printable import print_printable
    from hydra_plugins.hidden_subnet.compose import to_checked_config
    from hydra_plugins.hidden_subnet.errors import one_line
    from hydra_plugins.hidden_subnet.evaluating import evaluate_as_asked
    from hydra_plugins.hidden_subnet.objective import objective

    print_printable()  # joblib's processes share the terminal
    try:
        config = to_checked_config(composed, HydraConfig.get().overrides.task)
        if config.evaluate is not None:
            _ended(evaluate_as_asked(config, HydraConfig.get().overrides.task))
            return None
        if HydraConfig.get().mode is RunMode.RUN:  # a sweep has said it of all its runs
            for line in [*unused_lines([config], HydraConfig.get().overrides.task), *changed_lines([config])]:
                print(line)
        if config.plan:
            from hidden_subnet.report.plan import print_plan

            print_plan([config], single=True)
            return None
        from hidden_subnet.cli.run import run_single

        code = run_single(config, sweep=os.environ.get("HIDDEN_SUBNET_SWEEP"))
    except OmegaConfBaseException as error:  # of a value ${...}, which Hydra does not look up before
        given: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
        _ended(f"error: {one_line(error, given)}")
        return None
    except (ValueError, OSError) as error:
        _ended(f"error: {explained(error) if isinstance(error, OSError) else ' '.join(str(error).split())}")
        return None
    _ended(code)
    return objective(config)


def _ended(code: int | str) -> None:
    """End the command with a code, or with a line for the user; do nothing for 0.

    Raises Ended in a single run, which hydra_settings.CheckSettings turns into the exit, and for a run that failed in a
    sweep by one of Hydra's own launchers, for which it is a failed job, and the next one starts; exits after Ctrl-C.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if code and code != 130 and (HydraConfig.get().mode is RunMode.RUN or isinstance(code, int)):
        raise Ended(code)
    if code:
        sys.exit(code)
