"""Each public name has an example in its docstring, and each example runs."""

import contextlib
import io
import math
import shutil
from dataclasses import dataclass
from doctest import DocTestParser
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.own_parts import forgotten as forgotten
from torch import nn

import hidden_subnet as hs

NAMES = [name for name in hs.__all__ if name != "__version__"]
SLOW = ("Result", "assert_resumes", "run", "run_sweep")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/ of two finished runs."""
    folder = tmp_path_factory.mktemp("examples")
    for seed in (0, 1):
        hs.run("train.epochs=1", "model.width=0.125", seed=seed, out=str(folder / "runs"))
    return folder


def execute(name: str, folder: Path) -> int:
    """Execute the examples of a docstring, and return their number."""
    run, other = sorted(str(each) for each in (folder / "runs").glob("digits-*"))
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))
    known: dict[str, Any] = {"hs": hs, "torch": torch, "nn": nn, "math": math, "dataclass": dataclass}
    known |= {"__name__": "my_parts", "run": run, "other": other, "net": net}
    examples = DocTestParser().get_examples(hs.__getattr__(name).__doc__ or "")
    for example in examples:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(example.source, f"<{name}>", "single"), known)
        if example.want:
            assert said.getvalue() == example.want
    return len(examples)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in NAMES])
def test_example(name: str, runs: Path, tmp_path: Path, forgotten: None, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(runs, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    assert execute(name, tmp_path / "here") > 0
