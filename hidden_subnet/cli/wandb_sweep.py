"""`python -m hidden_subnet wandb-sweep`: write a preset as files for `wandb sweep`, whose points `wandb agent` runs."""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from hidden_subnet.cli.help import options
from hidden_subnet.config.convert import read_preset
from hidden_subnet.config.presets import START, with_own_preset
from hidden_subnet.config.program import LAUNCH, PROGRAM, ROOT
from hidden_subnet.config.registries import nearest
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.store import folders

METRIC = {"name": "validation/top1", "goal": "maximize"}
"""The number by which a search chooses, and W&B sorts."""
RUNS = Path("runs")


def wandb_sweep(out: Path, preset: str, method: str, to: Path | None) -> None:
    """Write one file for each grid of the preset, and print what to type then.

    method: of W&B's search: grid, random or bayes. out: the folder of the runs, which the agents' command names.
    Raises ConfigError for a preset that there is not, and those of `sweep_of`.
    """
    (word,), own = with_own_preset([f"{START}{preset}"])
    name = word.removeprefix(START)
    if not own and name not in (known := options(ROOT, "sweep")):
        near = nearest(name, known)
        words = (*PROGRAM.split(), "wandb-sweep", near or "prune_rates")
        rule = f"there is no such preset ({', '.join(sorted(known))})"
        raise ConfigError(problem(preset, rule, *words, lead="did you mean" if near else "as in"))
    grids = read_preset(own.get(name, ROOT / "sweeps" / f"{name}.yaml"))["grids"]
    sweeps = [sweep_of(name, grid, method, out, preset) for grid in grids]
    base = to or Path(f"wandb-{name}.yaml")
    for number, sweep in enumerate(sweeps, 1):
        path = base if len(sweeps) == 1 else base.with_stem(f"{base.stem}-{number}")
        text = yaml.safe_dump(sweep, sort_keys=False)
        folders.write_atomically(path, text.encode(), root=folders.make_parent(path, None))
        points = math.prod(len(each.get("values", [0])) for each in sweep["parameters"].values())
        print(f"wrote {path}: {points} points; type: wandb sweep --project hidden_subnet {path}")


def sweep_of(name: str, grid: dict[str, Any], method: str, out: Path = RUNS, typed: str = "") -> dict[str, Any]:
    """Return the content of a file for `wandb sweep`. The tracker of a preset is left out: W&B is to get the runs.

    typed: the preset as the user named it, by default `name`. Raises ConfigError for what W&B's parameters cannot say.
    """
    typed = typed or name
    parameters: dict[str, dict[str, Any]] = {}
    for key, value in grid.items():
        values = value if isinstance(value, list) else [value]
        if "," in key or any(isinstance(each, str) and re.search(r"[(,]", each) for each in values):
            rule = "W&B's parameters are lists of values, none tied to another"
            raise ConfigError(problem(f"{name}: {key}", rule, *LAUNCH.split(), f"sweep={typed}"))
        if key != "tracker":
            parameters[key] = {"value": values[0]} if len(values) == 1 else {"values": values}
    measured = grid.get("data.validation") not in (0, [0])
    if method == "bayes" and not measured:
        rule = f"{METRIC['name']} is what a search goes by, and no images are held out"
        raise ConfigError(problem(f"{name}: data.validation=0", rule, *PROGRAM.split(), "wandb-sweep", typed))
    return {
        "name": name,
        "program": LAUNCH.split()[-1],
        "method": method,
        **({"metric": dict(METRIC)} if measured else {}),
        "parameters": parameters,
        "command": ["${env}", *LAUNCH.split(), "${args_no_hyphens}", *([f"out={out}"] if out != RUNS else [])],
    }
