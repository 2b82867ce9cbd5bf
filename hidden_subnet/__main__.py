"""python -m hidden_subnet: what is done with runs that exist."""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hidden_subnet", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export", help="write a run's subnetwork as a plain torch module")
    export.add_argument("run", help="a run's folder, as in runs/digits-conv2-...")
    export.add_argument("--which", choices=["first", "best", "last"], default="last", help="checkpoint (default last)")
    export.add_argument("--to", type=Path, help="file to write (default: in the run's folder)")
    results = commands.add_parser("results", help="write results.csv and print the table of all runs in a folder")
    results.add_argument("out", nargs="?", type=Path, default=Path("runs"), help="folder of the runs (default runs)")
    arguments = parser.parse_args()
    try:
        if arguments.command == "export":
            _export(arguments.run, arguments.which, arguments.to)
        else:
            _results(arguments.out)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


def _export(run: str, which: str, to: Path | None) -> None:
    from hidden_subnet.config import load_config
    from hidden_subnet.data.info import INFO
    from hidden_subnet.loading import export
    from hidden_subnet.record import CONFIG

    path = export(run, which, to)  # type: ignore[arg-type]
    info = INFO[load_config(Path(run) / CONFIG).data.name.name]
    print(f"wrote {path.absolute()}")
    print(f'read it with: model = torch.load("{path}", weights_only=False)')
    print(f"it takes images of {info.shape}, (pixel / {info.white:g} - {info.mean}) / {info.std}")


def _results(out: Path) -> None:
    from hidden_subnet.report.console import make_console
    from hidden_subnet.report.results import write_results
    from hidden_subnet.report.runs import read_runs
    from hidden_subnet.report.table import summarise, table

    runs = read_runs(out)
    if not runs:
        sys.exit(f"error: {out.absolute()} holds no runs; name the folder that does")
    console = make_console()
    console.print(table(summarise(runs)))
    console.print(f"wrote {write_results(out).absolute()}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
