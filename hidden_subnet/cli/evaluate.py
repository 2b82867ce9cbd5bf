"""`python launch.py evaluate=<run or checkpoint>`: evaluate again and compare with the recorded result."""

from pathlib import Path

from rich import box
from rich.table import Table

from hidden_subnet.analysis.evaluate import checkpoints_of, environment, measure, rebuilt, which_of
from hidden_subnet.config.settings import Device
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.store.find import find_run
from hidden_subnet.sweep.console import make_console, say


def evaluate(out: Path, name: str, device: Device, root: str | None) -> int:
    """Evaluate the checkpoints of a run, or one, and print a table; nothing is written.

    name: a run, or the path of one of its .ckpt files. root: folder of the images, if not the run's own.
    Returns the exit code: 0 if loss and accuracies equal the recorded ones to the last bit, otherwise 1.
    """
    path = Path(name).expanduser()
    if path.is_file():
        folder, one = which_of(path)
    elif path.suffix == ".ckpt":
        typed = f"evaluate={name}"
        raise ConfigError(problem(typed, "there is no such file", "evaluate=runs/digits-conv2", lead="as in"))
    else:
        folder, one = find_run(out, name, "out="), None
    with rebuilt(folder, device, root) as (parts, result):
        found = measure(parts, result, checkpoints_of(parts, result) if one is None else [one])
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("checkpoint", "epoch", "images"):
        table.add_column(column)
    for column in ("recorded top-1", "measured top-1", "recorded loss", "measured loss"):
        table.add_column(column, justify="right")
    table.add_column("equal")
    for each in found:
        recorded = each.recorded
        table.add_row(
            str(each.which) if isinstance(each.which, str) else f"epoch_{each.which}",
            str(each.epoch),
            each.images,
            "-" if recorded is None else f"{100 * recorded['top1']:.2f} %",
            f"{100 * each.now['top1']:.2f} %",
            "-" if recorded is None else repr(recorded["loss"]),
            repr(each.now["loss"]),
            "not recorded" if each.equal is None else "yes" if each.equal else "no",
        )
    console = make_console()
    say(console, f"{folder.name} on {parts.device}, {result['environment']['threads']} threads")
    console.print(table)
    compared = [each.equal for each in found if each.equal is not None]
    if all(compared):
        own = "".join(f", {name}" for name in parts.config.metrics)
        say(console, f"equal to the last bit: loss, top-1 and top-5{own}, {len(compared)} of {len(compared)}")
        return 0
    why = environment(parts, result)
    say(
        console,
        f"not equal: {compared.count(False)} of {len(compared)} differ "
        + (
            f"({why}: equal bits are only guaranteed on the same kind of device and torch version)"
            if why
            else "from the recorded result"
        ),
        "red",
    )
    return 1
