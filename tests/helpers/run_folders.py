"""Run folders like those of real runs, made without executing any."""

import csv
import io
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from hidden_subnet.config.convert import as_dict, to_yaml
from hidden_subnet.config.identity import folder_name, projection
from hidden_subnet.config.registries import METHODS, load_parts
from hidden_subnet.config.settings import Config, Data, Init, Model, Pruning, Tracker, Train
from hidden_subnet.report.table import Line, table
from hidden_subnet.store import claims, files, liveness
from hidden_subnet.sweep.jobs import Job

load_parts()


def config(method: str = "edge_popup", prune_rate: float = 0.5, seed: int = 0, **parts: Any) -> Config:
    made = Config(
        model=Model(name="conv2"),
        init=Init(name="signed_constant"),
        data=Data(name="digits"),
        pruning=Pruning(name="layerwise"),
        method=METHODS[method].settings(),
        train=Train(lr=0.01 if method == "dense" else 0.1),
        tracker=Tracker(),
        prune_rate=prune_rate,
        seed=seed,
    )
    return replace(made, **parts)


def job(config: Config, folder: Path, state: str = "queued", **others: Any) -> Job:
    """The run of `config` as a job of a sweep, without a manifest."""
    return Job(folder, as_dict(config), projection(config), state, **others)


def queue(out: Path, what: Config) -> Path:
    folder = out / folder_name(what)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(as_dict(what)))
    return folder


def finish(out: Path, what: Config, top1: float, **changes: Any) -> Path:
    """A run folder as a finished run leaves it, with a last test accuracy of `top1`."""
    folder = queue(out, what)
    dense = what.method.name == "dense"
    density = 1.0 if dense else 1 - what.prune_rate
    accuracy = {"loss": 0.1, "top1": top1, "top5": 1.0}
    untrained = {"loss": 2.3, "top1": 0.125, "top5": 0.5}
    random = what.method.name == "random"
    last = {
        "epoch": 0 if random else 15,
        "train": None if random else accuracy,
        "validation": accuracy,
        "test": accuracy,
    }
    result = {
        "schema": 1,
        "name": folder.name,
        "projection": projection(what),
        "chance": 0.1,
        "untrained": {"unpruned": untrained, "first_mask": None if dense else {**untrained, "top1": 0.0625}},
        "last": last,
        "best": last,
        "collapsed": False,
        "dead_layer": None,
        "weights": 1000,
        "kept": round(1000 * density),
        "parameters": 1000,
        "density": density,
        "density_all": density,
        "layers": [{"name": "linear", "shape": [10, 100], "weights": 1000, "kept": round(1000 * density)}],
        "seconds": 4.0,
        "environment": {"host": "=cmd", "device": "cpu", "torch": "2.4"},
        **changes,
    }
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def attempt(folder: Path, holder: liveness.Holder, state: str | None = None, message: str = "") -> Path:
    """Add an attempt to the run in `folder`: one that ended in `state`, or without it one that is being executed."""
    number = 1 + max([0, *files.attempts(folder)])
    made = folder / "attempts" / str(number)
    made.mkdir(parents=True)
    (made / "claim.json").write_text(json.dumps(asdict(holder)))
    if state is not None:
        claims.end(made, state, message)
    return made


def me() -> liveness.Holder:
    return liveness.this_process("test", silent_seconds=90)


def dead() -> liveness.Holder:
    """A process of this machine that has ended."""
    return replace(me(), started="0")


def fail(out: Path, what: Config, error: str) -> Path:
    folder = queue(out, what)
    failed = attempt(folder, me(), "failed", error)
    (failed / "error.txt").write_text(f"Traceback (most recent call last):\n  ...\n{error}\n\n")
    return folder


def printed(lines: list[Line], width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table(lines))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def read_csv(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def svg_texts(path: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text())
