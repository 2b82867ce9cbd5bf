"""`python -m hidden_subnet controls`: whether a run's accuracy comes from its mask, shown by control runs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from hidden_subnet.analysis.controls import measure, measure_untrained, readout_runs, small_dense_runs
from hidden_subnet.analysis.evaluate import load_checkpoint, rebuilt
from hidden_subnet.cli.sweep import run_sweep
from hidden_subnet.config.checks import check
from hidden_subnet.config.identity import folder_name
from hidden_subnet.config.own_parts import USED, with_own_code
from hidden_subnet.config.registries import model_entry
from hidden_subnet.config.settings import Config, Device
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.report.controls import READOUT, SMALL, Study, sentence, shown, verdict
from hidden_subnet.store import files
from hidden_subnet.store.access import refuse_unwritable
from hidden_subnet.store.find import DIGITS, find_run
from hidden_subnet.sweep.console import make_console, say
from hidden_subnet.training.collapse import chance


def controls(out: Path, names: Sequence[str], draws: int, workers: int | None, to: Path | None = None) -> int:
    """Print a table for each run and write it to its controls.json. Returns the exit code: 0 if all controls are done.

    out: folder of the runs. to: folder for the controls of runs that are elsewhere (a colleague's), and for their
    tables, as <run>.controls.json. draws: number of seeds per random control. workers: number of runs at the same time.
    Controls that must be trained are ordinary runs beside the run, or in `to`, so they are not repeated the next time.
    Raises ConfigError for a run that learned no scores.
    """
    if draws < 1:
        raise ConfigError(f"--seeds {draws}: must be at least 1; as in: --seeds 3")
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers}: must be at least 1; as in: --workers 1")
    console = make_console()
    return max([_controls(find_run(out, name), draws, workers, console, to) for name in names])


def _controls(folder: Path, draws: int, workers: int | None, console: Console, to: Path | None) -> int:
    where, file = folder.parent, folder / files.CONTROLS
    if to is not None and to.resolve() != where.resolve():
        where, file = to.absolute(), to.absolute() / f"{folder.name}.{files.CONTROLS}"
    refuse_unwritable([file.parent, where], where, "write elsewhere with --out <folder>")
    with rebuilt(folder, Device.auto) as (experiment, result):
        config, entry = experiment.config, model_entry(experiment.config.model)
        if not experiment.method.has_controls:
            raise ConfigError(
                f"{folder.name}: method={config.method.name} lacks the trait has_controls (its scores do not decide by "
                "their size); choose a run of one that has it, as in: method=edge_popup"
            )
        if files.kept_masks(folder):
            rule = "keeps its masks and no scores (checkpoint.keep=mask); run it again to have them"
            raise ConfigError(problem(folder.name, rule, "checkpoint.keep=all", "force=true"))
        if entry is None or not entry.has_width:
            raise ConfigError(
                f"{folder.name}: the controls need networks of other widths and with other random weights, which "
                "those of torchvision, timm and your own do not have; choose a run of one of ours, as in: model=conv4"
            )
        load_checkpoint(experiment, result, "last")
        recorded, again = result["last"]["test"]["top1"], experiment.evaluate(experiment.test_images).top1
        found = measure_untrained(experiment, draws)
        own = measure(experiment)
        labels = experiment.test_images.labels
        level = chance(labels, experiment.run.info.classes)
    kept = result["kept"] + result["parameters"] - result["weights"]
    trained = {
        READOUT: readout_runs(config, where, draws),
        SMALL: small_dense_runs(config, where, draws, kept),
    }
    # They may choose fewer of the user's own parts than the run.
    trained = {name: [with_own_code(replace(config, use=[*USED])) for config in runs] for name, runs in trained.items()}
    configs = [config for runs in trained.values() for config in runs]
    for config in configs:
        check(config)
    _, code = run_sweep(configs, f"controls-{folder.name[-DIGITS:]}", workers, report=False)
    if code:
        return code
    measured = {name: [_measured(config) for config in runs] for name, runs in trained.items()}
    found |= {name: [top1 for top1, _ in pairs] for name, pairs in measured.items()}
    study = Study(own, level, len(labels), found)
    say(console, f"{folder.name}: last epoch, test images")
    console.print(_table(study, result, measured[SMALL][0][1]))
    say(console, verdict(study))
    if own != again:
        say(
            console,
            f"the run has {100 * again:.2f} % with its running averages of batch norm; here it and all controls have "
            "statistics from one epoch of training images",
        )
    if again != recorded:
        say(console, f"but {100 * recorded:.2f} % were recorded: try evaluate={folder}", "red")
    content = {
        "schema": 1,
        "own": own,
        "chance": study.chance,
        "images": study.images,
        "controls": [
            {
                "name": name,
                "test_top1": values,
                "runs": [folder_name(config) for config in trained.get(name, [])],
                "says": sentence(study, name),
            }
            for name, values in found.items()
        ],
        "verdict": verdict(study),
    }
    files.write_json(file, content)
    say(console, f"wrote {file}")
    return 0


def _measured(config: Config) -> tuple[float, int]:
    """Return the test accuracy of a control after its training, measured as that of the run, and its parameters."""
    with rebuilt(files.folder_of(config), Device.auto) as (experiment, result):
        load_checkpoint(experiment, result, "last")
        return measure(experiment), experiment.parameters


def _table(study: Study, result: dict[str, Any], small: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("network")
    table.add_column("test accuracy", justify="right", no_wrap=True)
    table.add_column("n", justify="right")
    table.add_column("what it shows")
    table.add_row("the run", shown([study.own]), "1", f"{result['kept']:,} of {result['weights']:,} weights kept")
    for name, values in study.controls.items():
        label = f"{name} ({small:,})" if name == SMALL else name
        table.add_row(label, shown(values), str(len(values)), sentence(study, name))
    table.add_row("chance", shown([study.chance]), "", "")
    return table
