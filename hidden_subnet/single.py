"""One run in this process, as `python launch.py` without -m does it, and what its user sees."""

from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hidden_subnet import record
from hidden_subnet.execute import EXIT_CODES, Display, Origin, Outcome, execute
from hidden_subnet.experiment import choose_device, require_devices
from hidden_subnet.fit import Row
from hidden_subnet.prepare import prepare
from hidden_subnet.report.console import make_console, say
from hidden_subnet.settings import Config
from hidden_subnet.tasks import tasks_of_one_run
from hidden_subnet.trackers.sent import how_to_send
from hidden_subnet.trackers.summary import is_tracked


def run_single(config: Config, sweep: str | None = None) -> int:
    """Returns the exit code: 0 done or done before, 1 failed, 130 interrupted."""
    if config.force or not (record.folder_of(config) / record.RESULT).exists():
        prepare([config])
        if not tasks_of_one_run():  # each sees what is its own
            require_devices(choose_device(config.train.device), config.train.devices)
    console = make_console()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(f"epoch 1/{config.train.epochs}", total=None)

        def on_step(epoch: int, batch: int, batches: int) -> None:
            if batch == 1 or batch % 20 == 0 or batch == batches:
                bar.update(
                    task,
                    description=f"epoch {epoch}/{config.train.epochs}",
                    completed=(epoch - 1) * batches + batch,
                    total=config.train.epochs * batches,
                )

        def on_row(row: Row) -> None:
            say(console, _line(row, config.train.epochs))

        outcome = execute(
            config,
            Display(on_row=on_row, on_step=on_step, say=partial(say, console)),
            Origin(sweep=sweep),
        )
    _tell(outcome, console, config)
    return EXIT_CODES[outcome.state]


def _line(row: Row, epochs: int) -> str:
    said = [f"epoch {row['epoch']:.0f}/{epochs}"]
    for part in ("train", "validation", "test"):
        if f"{part}/loss" in row:
            said.append(f"{part} loss {row[f'{part}/loss']:.4f} top-1 {100 * row[f'{part}/top1']:.2f} %")
    if "seconds" in row:
        said.append(f"{row['seconds']:.1f} s")
    return ", ".join(said) + (" (untrained)" if row["epoch"] == 0 else "")


def _tell(outcome: Outcome, console: Console, config: Config) -> None:
    if outcome.result is not None:
        result = outcome.result
        untrained = result["untrained"]
        if outcome.state == "skipped":
            console.print("finished before, nothing is run (force=true runs it anew)")
        say(
            console,
            f"test accuracy: untrained {100 * untrained['unpruned']['top1']:.2f} %, "
            + (
                f"under the first mask {100 * untrained['first_mask']['top1']:.2f} %, "
                if untrained["first_mask"]
                else ""
            )
            + f"last epoch {100 * result['last']['test']['top1']:.2f} %"
            + (
                f", best epoch ({result['best']['epoch']}) {100 * result['best']['test']['top1']:.2f} %"
                if result["best"]
                else ""
            )
            + f"; {result['kept']:,} of {result['weights']:,} weights kept",
        )
    elif outcome.state == "interrupted":
        console.print("the same command goes on from here" + " (without force=true)" * config.force)
    elif outcome.state == "busy":
        say(console, outcome.message)
    say(console, f"{outcome.state}: {outcome.folder}")
    if outcome.state in ("done", "skipped") and is_tracked(config):
        for line in how_to_send([outcome.folder]):
            say(console, line)
