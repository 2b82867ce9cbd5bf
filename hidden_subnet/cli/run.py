"""`python launch.py` without -m: one run in this process, with a progress bar and a line per epoch."""

from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hidden_subnet.cli.time_left import TimeLeft
from hidden_subnet.config.program import rank_in_environment
from hidden_subnet.config.registries import method_traits
from hidden_subnet.config.settings import Config
from hidden_subnet.signals import stop_signals
from hidden_subnet.store import files
from hidden_subnet.sweep.busy_cores import say_if_busy
from hidden_subnet.sweep.console import make_console, say
from hidden_subnet.sweep.execute import EXIT_CODES, LaunchInfo, Outcome, RunObserver, execute, missing_before
from hidden_subnet.sweep.in_vain import in_vain
from hidden_subnet.sweep.preflight import preflight
from hidden_subnet.trackers import first_lines, last_lines, open_trackers
from hidden_subnet.trackers.sent import how_to_send
from hidden_subnet.trackers.sync import replay
from hidden_subnet.trackers.wandb_environment import agent_run_id, is_tracked
from hidden_subnet.trackers.wandb_tracker import STOPPED
from hidden_subnet.training.callbacks import Row
from hidden_subnet.training.devices import choose_device, require_devices
from hidden_subnet.training.rendezvous import is_one_of_several


def run_single(config: Config, sweep: str | None = None) -> int:
    """Execute one run and print its progress. Returns the exit code.

    It is 0 if the run is done, was done before, is stopped on purpose, or is an agent's that W&B stopped; 1 if it
    failed; 130 if it was interrupted.
    `sweep` is the name of the sweep that it belongs to, if one of Hydra's own launchers executes it.
    Raises ConfigError, DataError and OSError, before anything has started.
    """
    console = make_console()
    if config.force or not files.is_done(files.folder_of(config)):
        preflight([*missing_before(config), config])
        if not is_one_of_several():  # otherwise each may see its own devices only
            require_devices(choose_device(config.train.device), config.train.devices)
            say_if_busy([config], console)
    starts = config.force or agent_run_id() or not files.is_done(files.folder_of(config))
    notes = first_lines(config, sweep=False) if sweep is None and starts and rank_in_environment()[0] == 0 else []
    for line in [*notes, *in_vain([config], [files.folder_of(config)])]:
        say(console, line)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar, stop_signals(insist=not is_one_of_several()) as signalled:  # what starts them may signal twice
        task = bar.add_task(f"epoch 1/{config.train.epochs}", total=None)

        time_left = TimeLeft(config.train.epochs)

        def on_step(epoch: int, batch: int, batches: int) -> None:
            if bar.disable and (line := time_left.line(epoch, batch, batches)):
                say(console, line)
            if batch == 1 or batch % 20 == 0 or batch == batches:
                bar.update(
                    task,
                    description=f"epoch {epoch}/{config.train.epochs}",
                    completed=(epoch - 1) * batches + batch,
                    total=config.train.epochs * batches,
                )

        def on_row(row: Row) -> None:
            say(console, epoch_line(row, config.train.epochs, masked=method_traits(config).masks))

        outcome = execute(
            config,
            RunObserver(on_row=on_row, on_step=on_step, say=partial(say, console)),
            LaunchInfo(sweep=sweep),
            lambda: signalled() or STOPPED.is_set(),
            open_trackers=open_trackers,
        )
    if outcome.state == "skipped" and agent_run_id() and is_tracked(config):
        replay(config, outcome.folder, partial(say, console))
    _print_outcome(outcome, console, config)
    if outcome.state == "interrupted" and STOPPED.is_set():
        say(console, "W&B asked it to stop (early termination, or the stop button)")
        if agent_run_id():
            return 0  # a few failures in a row end the agent
    return EXIT_CODES[outcome.state]


def epoch_line(row: Row, epochs: int, *, masked: bool) -> str:
    """Return the line printed after an epoch, from its row of metrics.jsonl. masked: the method removes weights."""
    parts = [f"epoch {row['epoch']:.0f}/{epochs}"]
    for split in ("train", "validation", "test"):
        if f"{split}/loss" in row:
            own = _own_metrics({key.partition("/")[2]: row[key] for key in row if key.startswith(f"{split}/")})
            parts.append(f"{split} loss {row[f'{split}/loss']:.4f} top-1 {100 * row[f'{split}/top1']:.2f} %{own}")
    if "seconds" in row:
        parts.append(f"{row['seconds']:.1f} s")
    first = f" (untrained, {'under the first mask' if masked else 'all weights'})" if row["epoch"] == 0 else ""
    return ", ".join(parts) + first


def _own_metrics(measured: dict[str, float]) -> str:
    """Return the metrics of the user's own among those of one evaluation, as " calibration 0.0123"."""
    return "".join(f" {name} {value:.4g}" for name, value in measured.items() if name not in ("loss", "top1", "top5"))


def _print_outcome(outcome: Outcome, console: Console, config: Config) -> None:
    if outcome.result is not None:
        result = outcome.result
        untrained = result["untrained"]
        if outcome.state == "skipped":
            console.print("finished before, so nothing is run (force=true runs it again)")
        say(
            console,
            f"test accuracy: untrained with all weights {100 * untrained['unpruned']['top1']:.2f} %, "
            + (
                f"under the first mask {100 * untrained['first_mask']['top1']:.2f} %, "
                if untrained["first_mask"]
                else ""
            )
            + (
                f"at prune_rate {100 * untrained['at_prune_rate']['top1']:.2f} %, "
                if "at_prune_rate" in untrained
                else ""
            )
            + f"last epoch {100 * result['last']['test']['top1']:.2f} %{_own_metrics(result['last']['test'])}"
            + (
                f", best epoch ({result['best']['epoch']}) {100 * result['best']['test']['top1']:.2f} %"
                if result["best"]
                else ""
            )
            + f"; {result['kept']:,} of {result['weights']:,} weights kept",
        )
    elif outcome.state == "interrupted":
        console.print("the same command continues from here" + " (without force=true)" * config.force)
    elif outcome.state == "stopped":
        say(console, f"{outcome.message}; to continue, add resume_stopped=true")
    elif outcome.state == "busy" or outcome.folder != files.folder_of(config):
        say(console, outcome.message)
    say(console, f"{outcome.state}: {outcome.folder}")
    if outcome.state in ("done", "skipped"):
        if config.report.run:
            from hidden_subnet.cli.show import draw_runs

            draw_runs({outcome.folder: outcome.state == "skipped"}, console)
        for line in [*last_lines(config), *(how_to_send([outcome.folder]) if is_tracked(config) else [])]:
            say(console, line)
