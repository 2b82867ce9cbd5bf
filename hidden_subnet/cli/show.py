"""`python -m hidden_subnet show`: draw a finished run from inside, and print its layers."""

from collections.abc import Mapping
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hidden_subnet.analysis.inside import Inside, look
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.store import folders
from hidden_subnet.store.access import refuse_unwritable
from hidden_subnet.store.find import find_run
from hidden_subnet.sweep.console import make_console, say
from hidden_subnet.training.finished import Which

FORMATS = (".png", ".svg", ".pdf")


def show(out: Path, name: str, which: Which, to: Path | None) -> None:
    """Draw a checkpoint of the run `name` into the file `to`, by default figures/<run>.png beside the runs.

    Raises ConfigError for a file of another kind, and the errors of `look`.
    """
    folder = find_run(out, name)
    path = drawable(to or figure_of(folder), folder.parent)
    inside = look(folder, which)
    from hidden_subnet.report.inside import write  # loads matplotlib

    write(inside, path, root=folders.make_parent(path, folder.parent if to is None else None))
    console = make_console()
    if inside.layers:
        console.print(layers_table(inside))
        say(console, "changed: kept before training and not now, or the reverse; dead, unused: no weight is kept")
    if inside.steady is not None:
        say(console, f"{inside.steady:.1%} of the weights are kept, or removed, by every checkpoint that the run has")
    say(console, f"checkpoint {which}: {inside.accuracy:.2%} of the {len(inside.labels):,} test images are right")
    say(console, f"wrote {path.absolute()}")


def figure_of(folder: Path) -> Path:
    """Return the file in which a run is drawn."""
    return folder.parent / "figures" / f"{folder.name}.png"


def drawable(path: Path, out: Path) -> Path:
    """Return the path of a figure of runs in `out`. Raises ConfigError for a format that none has, or no permission."""
    if path.suffix not in FORMATS:
        rule = f"is drawn as one of {', '.join(FORMATS)}"
        raise ConfigError(problem(f"--to {path}", rule, "--to", str(path.with_suffix(".png")), lead="as in"))
    refuse_unwritable([path.absolute().parent], out, "name another file with --to")
    return path


def draw_runs(done: Mapping[Path, bool], console: Console) -> None:
    """Draw the last checkpoint of finished runs (report.run=true), and say where.

    done: the folder of each, and whether it was finished before; then it is drawn only where it has no figure yet.
    """
    for folder, before in done.items():
        path = figure_of(folder)
        if before and folders.is_file(path):
            continue
        try:
            inside = look(folder, "last")
            from hidden_subnet.report.inside import write  # loads matplotlib

            write(inside, path, root=folders.make_parent(path, folder.parent))
        except (OSError, ValueError) as error:  # the run is done all the same
            say(console, f"{folder.name} is not drawn: {error}", "red")
        else:
            say(console, f"wrote {path.absolute()}")


def layers_table(inside: Inside) -> Table:
    """Return a table of the masked layers."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("layer")
    for header in ("weights", "kept", "density", "changed", "dead\nunits", "unused\ninputs"):
        table.add_column(header, justify="right")
    for layer in inside.layers:
        table.add_row(
            Text(layer.path),
            f"{layer.mask.numel():,}",
            f"{int(layer.mask.sum()):,}",
            f"{layer.density:.4f}",
            "-" if layer.changed is None else f"{layer.changed:.1%}",
            str(int((layer.units == 0).sum())),
            str(int((layer.inputs == 0).sum())),
        )
    return table
