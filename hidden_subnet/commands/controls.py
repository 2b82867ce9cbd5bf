"""What made a run's accuracy: a table of controls that take away one thing each, and a sentence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from hidden_subnet import record
from hidden_subnet.check import ConfigError, check
from hidden_subnet.commands.names import DIGITS, find_run
from hidden_subnet.controls import measure_untrained, readout_runs, small_dense_runs
from hidden_subnet.evaluation import load_checkpoint, rebuilt
from hidden_subnet.identity import folder_name
from hidden_subnet.report.console import make_console, say
from hidden_subnet.report.controls import READOUT, SMALL, Study, sentence, shown, verdict
from hidden_subnet.settings import Config, Device, EdgePopup, Library
from hidden_subnet.sweep.sweep import run_sweep
from hidden_subnet.training import evaluate


def controls(out: Path, names: Sequence[str], draws: int, workers: int | None) -> int:
    """Print a table for each run and write it to its controls.json; the exit code: 0 if every control is done.

    What must be trained are runs like any other, beside the run: they are found done by the next command.
    Raises ConfigError for a run that learned no scores.
    """
    if draws < 1:
        raise ConfigError(f"--seeds {draws}: at least one")
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers}: must be at least 1")
    console = make_console()
    return max([_controls(find_run(out, name), draws, workers, console) for name in names])


def _controls(folder: Path, draws: int, workers: int | None, console: Console) -> int:
    with rebuilt(folder, Device.auto) as (parts, result):
        if not isinstance(parts.config.method, EdgePopup):
            raise ConfigError(
                f"{folder.name}: the controls are those of a mask that edge_popup found; method="
                f"{parts.config.method.name} finds none by the size of its scores: name a run of method=edge_popup"
            )
        if parts.config.model.library is Library.torchvision:
            raise ConfigError(
                f"{folder.name}: the controls need networks of other widths and other random weights, which "
                "torchvision's are not made for: name a run of one of our own networks"
            )
        load_checkpoint(parts, result, "last")
        own = evaluate(parts.model, parts.test, parts.device).top1
        found = measure_untrained(parts, draws)
    kept = result["kept"] + result["parameters"] - result["weights"]
    trained = {
        READOUT: readout_runs(parts.config, folder.parent, draws),
        SMALL: small_dense_runs(parts.config, folder.parent, draws, kept),
    }
    configs = [config for some in trained.values() for config in some]
    for config in configs:
        check(config)
    _, code = run_sweep(configs, f"controls-{folder.name[-DIGITS:]}", workers, report=False)
    if code:
        return code
    results = {name: [_result_of(config) for config in some] for name, some in trained.items()}
    found |= {name: [float(each["last"]["test"]["top1"]) for each in some] for name, some in results.items()}
    study = Study(own, float(result["chance"]), len(parts.test.labels), found)
    say(console, f"{folder.name}: last epoch, test images")
    console.print(_table(study, result, results[SMALL][0]))
    say(console, verdict(study))
    if own != result["last"]["test"]["top1"]:
        say(console, f"recorded were {100 * result['last']['test']['top1']:.2f} %: see evaluate={folder}", "red")
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
    record.write_json(folder / record.CONTROLS, content)
    say(console, f"wrote {folder / record.CONTROLS}")
    return 0


def _result_of(config: Config) -> dict[str, Any]:
    result = record.read_result(record.folder_of(config))
    assert result is not None
    return result


def _table(study: Study, result: dict[str, Any], small: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("network")
    table.add_column("test accuracy", justify="right", no_wrap=True)
    table.add_column("n", justify="right")
    table.add_column("what it says")
    table.add_row("the run", shown([study.own]), "1", f"{result['kept']:,} of {result['weights']:,} weights kept")
    for name, values in study.controls.items():
        label = f"{name} ({small['parameters']:,})" if name == SMALL else name
        table.add_row(label, shown(values), str(len(values)), sentence(study, name))
    table.add_row("chance", shown([study.chance]), "", "")
    return table
