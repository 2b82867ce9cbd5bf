# PYTHON_ARGCOMPLETE_OK: Tab completes hidden-subnet where argcomplete is active for all programs.
"""The commands of `hidden-subnet`, which are those of `python -m hidden_subnet`."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from hidden_subnet.cli.terminal import cannot_load, prepare_terminal
from hidden_subnet.config.program import COMMANDS, LAUNCH, PROGRAM
from hidden_subnet.config.registries import nearest
from hidden_subnet.config.settings import ReportMetric, ReportStyle
from hidden_subnet.signals import interrupt_held

RUN = "the run: its folder, its name or the beginning of it, or the 12 digits of its id"
WORD = "name=value"
SWEEP = "the sweep: its name or the beginning of it, or its folder"
OTHER_COMMANDS = {
    "ls": "status", "list": "status", "log": "logs", "tail": "logs", "kill": "stop", "cancel": "stop",
    "ps": "status", "top": "status", "plot": "results", "figure": "results", "table": "results",
    "delete": "rm", "remove": "rm", "inspect": "show", "view": "show", "diff": "compare", "overlap": "compare",
}  # fmt: skip
"""Names that other programs have for them."""


def main(command_line: Sequence[str] | None = None) -> None:
    """Execute a command and exit with its exit code, or with a line for a user's mistake.

    `command_line` holds the command and its arguments; by default it is that of this process.
    """
    if "_ARGCOMPLETE" in os.environ:  # Tab was pressed
        from hidden_subnet.cli.completion import complete

        complete(make_parser())
    words = list(sys.argv[1:] if command_line is None else command_line)
    if words[:1] == ["launch"]:
        from hidden_subnet.cli import launch

        sys.argv[1:] = words[1:]
        try:
            launch.main()
        except KeyboardInterrupt:  # while modules were being imported
            sys.exit(130)
        return
    prepare_terminal()
    parser = make_parser()
    _refuse_command(words)
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        used = arguments.parser
        near = nearest(unknown[0].partition("=")[0], used._option_string_actions) if unknown[0][0] == "-" else None
        advice = f"did you mean: {near}" if near else f"for what it takes, type: {used.prog} --help"
        sys.exit(f"error: {shlex.join(unknown)}: is nothing that {used.prog} takes; {advice}")
    if arguments.version:
        from hidden_subnet import __version__

        print(f"hidden_subnet {__version__}")
        return
    if arguments.command is None:
        parser.print_help()
        return
    try:
        sys.exit(call(arguments))
    except (OSError, ValueError) as error:
        if isinstance(error, BrokenPipeError):  # `... logs x | head`
            sys.stderr.close()
            sys.exit(1)
        from hidden_subnet.store.access import explained

        sys.exit(f"error: {explained(error) if isinstance(error, OSError) else ' '.join(str(error).split())}")
    except (ImportError, MemoryError) as error:
        sys.exit(f"error: {cannot_load(error)}")
    except KeyboardInterrupt:
        sys.exit(130)


def _refuse_command(words: Sequence[str]) -> None:
    """Exit with a line, which ends in what to type, if the first word is no command."""
    if not words or words[0] in (*COMMANDS, "--version", "--help", "-h"):
        return
    first, rest = words[0], list(words[1:])
    program = PROGRAM.split()
    if first.startswith("-") and (later := [each for each in rest if each in COMMANDS]):
        typed = [*program, later[0], *(each for each in words if each != later[0])]
        sys.exit(f"error: {first}: the command comes first; type: {shlex.join(typed)}")
    if first in ("resume", "continue", "restart"):
        sys.exit(f"error: {first}: the command that began it finds its checkpoint and continues; type: {LAUNCH}")
    starts = {"sweep": [f"sweep={rest[0]}"]} if rest else {}
    starts |= {each: [f"evaluate={rest[0]}"] for each in ("evaluate", "eval", "test") if rest}
    starts |= dict.fromkeys(("train", "run"), rest)
    if first in starts or "=" in first or first.startswith("-"):
        launch = LAUNCH.split()
        typed = [*launch, *starts.get(first, words)]
        sys.exit(f"error: {first}: runs are started by {launch[-1]}; type: {shlex.join(typed)}")
    near = OTHER_COMMANDS.get(first) or nearest(first, COMMANDS)
    advice = f"did you mean: {shlex.join([*program, near, *rest])}" if near else f"type: {shlex.join(program)} --help"
    sys.exit(f"error: {first}: there is no such command ({', '.join(COMMANDS)}); {advice}")


class _Parser(argparse.ArgumentParser):
    """Its errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; for what it takes, type: {self.prog} --help\n")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands. It imports none of them, so that --help is fast."""
    parser = _Parser(prog=PROGRAM, description="start sweeps and runs (launch), and look after those that exist")
    parser.set_defaults(command=None, parser=parser)
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND")
    common = _Parser(add_help=False)
    common.add_argument("--out", type=Path, help="folder that holds the runs (default: runs)")

    own = _Parser(add_help=False)
    own.add_argument(
        "--use",
        action="append",
        default=[],
        metavar="FILE",
        help="a file of your own parts that the runs were started with (use=FILE); may be repeated",
    )

    of_run = _Parser(add_help=False)
    of_run.add_argument(
        "--which", type=_checkpoint, default="last", help="checkpoint: first, best, last or an epoch (default: last)"
    )

    def add(name: str, about: str, *more: _Parser) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, description=about, parents=[common, *more])
        command.set_defaults(command=name, parser=command)
        return command

    launch = add("launch", f"start a run or a sweep; for its settings, type: {LAUNCH} --help")
    launch.add_argument("-m", "--multirun", action="store_true", help="a sweep: every combination of values")
    launch.add_argument("words", nargs="*", metavar=WORD, help="a setting, or several values of it")
    status = add("status", "show the progress of all sweeps, or of one: its runs, workers, failures and time left")
    status.add_argument("name", nargs="?", metavar="sweep", help=SWEEP)
    status.add_argument("--watch", action="store_true", help="update every 2 s until nothing runs any more")
    logs = add("logs", "print the log of a run, or its traceback if it failed")
    logs.add_argument("name", metavar="run", help=RUN)
    logs.add_argument("-f", "--follow", action="store_true", help="print new lines until the run ends")
    stop = add("stop", "ask all workers of a sweep, on any machine, to save and stop")
    stop.add_argument("name", metavar="sweep", help=SWEEP)
    stop.add_argument(
        "--no-wait", action="store_false", dest="wait", help="return at once, do not wait until they have stopped"
    )
    worker = add("worker", "add a worker to a sweep, from any shell or machine that can access its folder", own)
    worker.add_argument("name", metavar="sweep", help=SWEEP)
    worker.add_argument(
        "--workers", type=int, help="number of runs at the same time (default: one per GPU, or one per CPU core)"
    )
    worker.add_argument(
        "--jobs-per-gpu", type=_number_or_auto, default=1, help="number of runs that share a GPU, or auto (default: 1)"
    )
    worker.add_argument("--requeues", type=int, default=0, help=argparse.SUPPRESS)  # given by hydra/launcher=slurm
    worker.add_argument("--tasks", type=int, default=1, help=argparse.SUPPRESS)
    results = add("results", "print the table of results, and write results.csv and the figure again", own)
    results.add_argument(
        "folder", nargs="?", type=Path, help="folder that holds the runs (given --out too, results are written there)"
    )
    results.add_argument(
        "--published",
        action="store_true",
        help="add published accuracies to the figure, in grey, and compare runs of their recipes",
    )
    results.add_argument(
        "--sweep", metavar="SWEEP", help=f"table and figure of one sweep only: {SWEEP.partition(': ')[2]}"
    )
    results.add_argument(
        "--where",
        action="append",
        default=[],
        metavar=WORD,
        help="only runs with this setting (or one of name=value,value); may be repeated",
    )
    results.add_argument(
        "--against", metavar=WORD, help="add differences to these runs to the tables, paired by seed: method=dense"
    )
    results.add_argument("--x", metavar="NAME", help="the number along the x axis of the figure (default: chosen)")
    results.add_argument(
        "--style",
        choices=[each.name for each in ReportStyle],
        default="paper",
        help="sizes in the figure (default: paper)",
    )
    results.add_argument(
        "--metric",
        choices=[each.name for each in ReportMetric],
        default="last_test_top1",
        help="accuracy in the figure and the tables for a paper (default: last_test_top1)",
    )
    report = add(
        "report", "write a page of a sweep, or of all runs: figure, tables, curves, failures, in one HTML file"
    )
    report.add_argument("name", nargs="?", metavar="sweep", help=SWEEP)
    report.add_argument("--to", type=Path, help="file to write (default: in the folder's figures/)")
    report.add_argument("--paths", action="store_true", help="tell folders and hosts too")
    report.add_argument("--watch", action="store_true", help="write it again every 10 s until nothing runs any more")
    sync = add("sync", "send to W&B the runs and sweeps that it does not have completely")
    sync.add_argument("names", nargs="*", metavar="run or sweep", help="default: all in the folder")
    wandb_sweep = add("wandb-sweep", "write a preset as files for `wandb sweep`, whose points `wandb agent` runs")
    wandb_sweep.add_argument("preset", help="its name, as in sweep=prune_rates, or its file")
    wandb_sweep.add_argument(
        "--method", choices=["grid", "random", "bayes"], default="grid", help="how W&B chooses points (default: grid)"
    )
    wandb_sweep.add_argument("--to", type=Path, help="file to write (default: wandb-<preset>.yaml)")
    dashboard = add("dashboard", "make or update a workspace of the project on W&B: charts of all its runs")
    dashboard.add_argument("--project", help="default: where the runs in the folder are, or hidden_subnet")
    dashboard.add_argument("--entity", help="default: where the runs in the folder are, or the account of the key")
    rm = add("rm", "delete runs and sweeps, after a question")
    rm.add_argument(
        "names", nargs="*", metavar="run or sweep", help="of a sweep only its list of runs is deleted; see --runs"
    )
    rm.add_argument("--yes", action="store_true", help="do not ask")
    rm.add_argument(
        "--failed", action="store_true", help="delete only runs that failed or were lost, among the named ones or all"
    )
    rm.add_argument("--runs", action="store_true", help="delete also the sweep's runs that belong to no other sweep")
    rm.add_argument(
        "--parents",
        action="store_true",
        help="delete also runs that others start from (mask=, pretrained=, extend=, rounds of a chain)",
    )
    controls = add(
        "controls",
        "test whether a run's accuracy comes from its mask: compare it with control runs; trains small networks",
        own,
    )
    controls.add_argument("names", nargs="+", metavar="run", help=RUN)
    controls.add_argument(
        "--seeds", type=int, default=3, dest="draws", metavar="SEEDS", help="seeds of each random control (default: 3)"
    )
    controls.add_argument(
        "--workers", type=int, help="number of runs at the same time (default: one per GPU, or one per CPU core)"
    )
    show = add(
        "show", "draw a run from inside: curves, scores, masks by layer, confusion, the images most wrong", own, of_run
    )
    show.add_argument("name", metavar="run", help=RUN)
    show.add_argument("--to", type=Path, help="file to draw: png, svg or pdf (default: in the folder's figures/)")
    compare = add("compare", "tell what the masks of runs have in common, beside what random masks would", own, of_run)
    compare.add_argument("names", nargs="+", metavar="run", help=RUN)
    compare.add_argument("--to", type=Path, help="file to draw: png, svg or pdf (default: in the folder's figures/)")
    mask = add(
        "mask", "write a run's masks to a small file, from which hidden_subnet.load makes the network", own, of_run
    )
    mask.add_argument("name", metavar="run", help=RUN)
    mask.add_argument("--to", type=Path, help="file to write (default: <which>.mask in the run's folder)")
    mask.add_argument(
        "--format",
        choices=["mask", "safetensors"],
        help="safetensors: boolean tensors by layer, for other programs (default: as --to ends, or mask)",
    )
    export = add("export", "write a run's subnetwork: its weights, or a program", own, of_run)
    export.add_argument("name", metavar="run", help=RUN)
    export.add_argument("--to", type=Path, help="file to write (default: in the run's folder)")
    return parser


def _number_or_auto(text: str) -> int | None:
    """None means auto."""
    try:
        return None if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is neither a number nor auto") from None


def _checkpoint(text: str) -> str | int:
    if text in ("first", "best", "last"):
        return text
    if text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither first, best or last nor the number of an epoch")


def call(arguments: argparse.Namespace) -> int:
    """Execute the parsed command and return its exit code.

    Each command's module is imported here, since some of them import torch and the others must not wait for it.
    """
    options = {name: value for name, value in vars(arguments).items() if name not in ("command", "parser", "version")}
    if use := options.pop("use", ()):
        from hidden_subnet.config.own_parts import import_own_parts

        import_own_parts(use)
    out = options.pop("out")
    if arguments.command in ("results", "controls"):
        options["to"] = out
    out = options.pop("folder", None) or out or Path("runs")
    command: Callable[..., int | None]
    with interrupt_held():
        match arguments.command:
            case "status":
                from hidden_subnet.cli.status import status as command
            case "logs":
                from hidden_subnet.cli.logs import logs as command
            case "stop":
                from hidden_subnet.cli.stop import stop as command
            case "worker":
                from hidden_subnet.cli.worker import worker as command
            case "results":
                from hidden_subnet.cli.results import results as command
            case "report":
                from hidden_subnet.cli.report import report as command
            case "sync":
                from hidden_subnet.cli.sync import sync as command
            case "wandb-sweep":
                from hidden_subnet.cli.wandb_sweep import wandb_sweep as command
            case "dashboard":
                from hidden_subnet.cli.dashboard import dashboard as command
            case "rm":
                from hidden_subnet.cli.rm import rm as command
            case "controls":
                from hidden_subnet.cli.controls import controls as command
            case "show":
                from hidden_subnet.cli.show import show as command
            case "compare":
                from hidden_subnet.cli.compare import compare as command
            case "mask":
                from hidden_subnet.cli.mask import mask as command
            case _:
                from hidden_subnet.cli.export import export as command
    return command(out, **options) or 0
