"""python -m hidden_subnet: what is done with sweeps and runs that exist."""

import argparse
import sys
from pathlib import Path

RUN = "the run: its folder, its name or a beginning of it, or the 12 digits of its id"
SWEEP = "the sweep: its name or a beginning of it, or its folder"


def _number_or_auto(text: str) -> int | None:
    """None: auto."""
    try:
        return None if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is neither a number nor auto") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hidden_subnet", description=__doc__)
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--out", type=Path, default=Path("runs"), help="folder of the runs (default runs)")

    def add(name: str, about: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, description=about, parents=[common])
        command.set_defaults(command=name)
        return command

    status = add("status", "where the sweeps of a folder stand, or one sweep: its runs, workers, failures, time left")
    status.add_argument("sweep", nargs="?", help=SWEEP)
    status.add_argument("--watch", action="store_true", help="again every 2 s until nothing goes on")
    logs = add("logs", "the log of a run, or its traceback if it failed")
    logs.add_argument("run", help=RUN)
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    stop = add("stop", "let the workers of a sweep save and end, wherever they are")
    stop.add_argument("sweep", help=SWEEP)
    stop.add_argument("--no-wait", action="store_true", help="do not wait until they have")
    worker = add("worker", "add a worker to a sweep, from any shell or machine that sees its folder")
    worker.add_argument("sweep", help=SWEEP)
    worker.add_argument("--workers", type=int, help="runs at a time (default: one a GPU, or a CPU core)")
    worker.add_argument(
        "--jobs-per-gpu", type=_number_or_auto, default=1, help="runs that share a GPU, or auto (default 1)"
    )
    worker.add_argument("--requeues", type=int, default=0, help=argparse.SUPPRESS)  # given by hydra/launcher=slurm
    worker.add_argument("--tasks", type=int, default=1, help=argparse.SUPPRESS)
    results = add("results", "write results.csv and the figure anew, and print the table")
    results.add_argument("folder", nargs="?", type=Path, help="folder of the runs, as --out names it")
    results.add_argument("--published", action="store_true", help="lay what others published over the figure, in grey")
    results.add_argument("--sweep", help=f"table and figure of one only: {SWEEP.partition(': ')[2]}")
    sync = add("sync", "give W&B what it missed of runs and sweeps")
    sync.add_argument("names", nargs="*", metavar="run or sweep", help="by default all of the folder")
    rm = add("rm", "delete runs and sweeps, after it has asked")
    rm.add_argument("names", nargs="*", metavar="run or sweep", help="of a sweep only what names its runs; see --runs")
    rm.add_argument("--yes", action="store_true", help="do not ask")
    rm.add_argument("--failed", action="store_true", help="only runs that failed or were lost: of those named, or all")
    rm.add_argument("--runs", action="store_true", help="of a sweep also the runs that belong to no other")
    controls = add("controls", "what made a run's accuracy: its mask, or what else; trains small networks beside it")
    controls.add_argument("runs", nargs="+", metavar="run", help=RUN)
    controls.add_argument("--seeds", type=int, default=3, help="draws of each control that is random (default 3)")
    controls.add_argument("--workers", type=int, help="runs at a time (default: one a GPU, or a CPU core)")
    export = add("export", "write a run's subnetwork as a plain torch module")
    export.add_argument("run", help=RUN)
    export.add_argument(
        "--which", type=_which, default="last", help="checkpoint: first, best, last or an epoch (default last)"
    )
    export.add_argument("--to", type=Path, help="file to write (default: in the run's folder)")
    return parser


def _which(text: str) -> str | int:
    if text in ("first", "best", "last"):
        return text
    if text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is none of first, best, last and no epoch's number")


def main() -> None:
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.command is None:
        parser.print_help()
        return
    try:
        sys.exit(_call(arguments))
    except (OSError, ValueError) as error:
        if isinstance(error, BrokenPipeError):  # `... logs x | head`
            sys.stderr.close()
            sys.exit(1)
        sys.exit(f"error: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit(130)


def _call(arguments: argparse.Namespace) -> int:
    """The exit code. Each command loads what it needs, and only some of them torch."""
    match arguments.command:
        case "status":
            from hidden_subnet.commands.status import status

            status(arguments.out, arguments.sweep, arguments.watch)
        case "logs":
            from hidden_subnet.commands.logs import logs

            logs(arguments.out, arguments.run, arguments.follow)
        case "stop":
            from hidden_subnet.commands.stop import stop

            return stop(arguments.out, arguments.sweep, wait=not arguments.no_wait)
        case "worker":
            from hidden_subnet.commands.worker import worker

            return worker(
                arguments.out,
                arguments.sweep,
                workers=arguments.workers,
                jobs_per_gpu=arguments.jobs_per_gpu,
                requeues=arguments.requeues,
                tasks=arguments.tasks,
            )
        case "results":
            from hidden_subnet.commands.results import results

            results(arguments.folder or arguments.out, arguments.sweep, arguments.published)
        case "sync":
            from hidden_subnet.commands.sync import sync

            return sync(arguments.out, arguments.names)
        case "rm":
            from hidden_subnet.commands.rm import rm

            rm(arguments.out, arguments.names, yes=arguments.yes, failed=arguments.failed, runs=arguments.runs)
        case "controls":
            from hidden_subnet.commands.controls import controls

            return controls(arguments.out, arguments.runs, arguments.seeds, arguments.workers)
        case _:
            from hidden_subnet.commands.export import export

            export(arguments.out, arguments.run, arguments.which, arguments.to)
    return 0


if __name__ == "__main__":
    main()
