"""A folder of many finished runs: what status, results and the same sweep again take."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from benchmarks.runs import ROOT
from benchmarks.timing import Row
from hidden_subnet.config.identity import folder_name, projection
from hidden_subnet.config.registries import load_parts
from hidden_subnet.store import files

load_parts()

RATES = [0.1, 0.3, 0.5, 0.7, 0.9]
SETTINGS = ["model=fc", "model.width=0.1", "train.epochs=3", "train.threads=1", "tracker=none"]


def many_rows(runs: int, rounds: int) -> list[Row]:
    """Commands on a folder of `runs` finished runs of one sweep, wall clock; a multiple of the 5 prune rates."""
    with tempfile.TemporaryDirectory() as folder:
        sweep = _sweep(runs // len(RATES))
        _run(folder, "launch.py", "-m", *_sweep(1))
        copy_runs(Path(folder) / "runs", runs // len(RATES))
        commands = {  # the first writes the manifest that status reads
            "the same sweep again": (["launch.py", "-m", *sweep], 15.0),
            "status": (["-m", "hidden_subnet", "status"], 10.0),
            "results": (["-m", "hidden_subnet", "results"], 40.0),
        }
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, (command, _) in commands.items():
                start = perf_counter()
                _run(folder, *command)
                taken[name].append(perf_counter() - start)
    topic = f"a folder of {runs:,} finished runs, wall clock"
    return [
        Row(topic=topic, name=name, unit="s", samples=taken[name], goal=goal) for name, (_, goal) in commands.items()
    ]


def copy_runs(out: Path, seeds: int) -> None:
    """Make of each run in `out`, of seed 0, one for every seed below `seeds`, file by file as a run writes it."""
    for first in [*out.glob("*-*/")]:
        config, result = files.load_config(first / files.CONFIG), files.read_result(first)
        assert result is not None
        settings = (first / files.CONFIG).read_text()
        for seed in range(1, seeds):
            copied = replace(config, seed=seed)
            folder = out / folder_name(copied)
            (folder / "checkpoints").mkdir(parents=True)
            for path in first.glob("checkpoints/*"):
                os.link(path, folder / "checkpoints" / path.name)
            for name in (files.METRICS, files.LOG, files.PROVENANCE):
                (folder / name).write_bytes((first / name).read_bytes())
            (folder / files.CONFIG).write_text(settings.replace("\nseed: 0\n", f"\nseed: {seed}\n"))
            last = {**result["last"], "test": {**result["last"]["test"], "top1": 0.8 + 0.1 * seed / seeds}}
            content = {**result, "name": folder.name, "projection": projection(copied), "last": last}
            (folder / files.RESULT).write_text(json.dumps(content, indent=1) + "\n")


def _sweep(seeds: int) -> list[str]:
    return [f"prune_rate={','.join(map(str, RATES))}", f"seed=range({seeds})", *SETTINGS]


def _run(folder: str, *command: str) -> None:
    script = [str(ROOT / command[0]), *command[1:]] if command[0] == "launch.py" else list(command)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *script], check=True, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
