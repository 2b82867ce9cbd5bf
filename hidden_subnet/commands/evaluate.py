"""`python launch.py evaluate=<run or checkpoint>`: the recorded accuracy beside one measured now."""

from pathlib import Path

from rich import box
from rich.table import Table

from hidden_subnet.check import ConfigError
from hidden_subnet.commands.names import find_run
from hidden_subnet.evaluation import checkpoints_of, environment, measure, rebuilt, which_of
from hidden_subnet.report.console import make_console, say
from hidden_subnet.settings import Device


def evaluate(out: Path, name: str, device: Device, root: str | None) -> int:
    """Print the table, write nothing; the exit code is 0 where all that is recorded is equal to the last bit."""
    path = Path(name).expanduser()
    if path.is_file():
        folder, one = which_of(path)
    elif path.suffix == ".ckpt":
        raise ConfigError(f"evaluate={name}: there is no such file")
    else:
        folder, one = find_run(out, name), None
    with rebuilt(folder, device, root) as (parts, result):
        found = measure(parts, result, checkpoints_of(parts, result) if one is None else [one])
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("checkpoint", "epoch", "images"):
        table.add_column(column)
    for column in ("recorded top-1", "measured top-1", "recorded loss", "measured loss"):
        table.add_column(column, justify="right")
    table.add_column("equal")
    for each in found:
        then = each.recorded
        table.add_row(
            str(each.which) if isinstance(each.which, str) else f"epoch_{each.which}",
            str(each.epoch),
            each.images,
            "-" if then is None else f"{100 * then['top1']:.2f} %",
            f"{100 * each.now['top1']:.2f} %",
            "-" if then is None else repr(then["loss"]),
            repr(each.now["loss"]),
            "not recorded" if each.equal is None else "yes" if each.equal else "no",
        )
    console = make_console()
    say(console, f"{folder.name} on {parts.device}, {result['environment']['threads']} threads")
    console.print(table)
    compared = [each.equal for each in found if each.equal is not None]
    if all(compared):
        say(console, f"equal to the last bit: loss, top-1 and top-5, {len(compared)} of {len(compared)}")
        return 0
    why = environment(parts, result)
    say(
        console,
        f"not equal: {compared.count(False)} of {len(compared)} differ "
        + (f"({why}: equal bits are promised per kind of device and torch version)" if why else "from the record"),
        "red",
    )
    return 1
