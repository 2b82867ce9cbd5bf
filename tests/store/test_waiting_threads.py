"""Threads that wait for each other: what their library is given where the user has chosen nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hidden_subnet.store.child_processes import our_modules
from hidden_subnet.store.waiting_threads import BOUNDS, bound_spinning

ROOT = Path(__file__).parents[2]
LOADS_TORCH = "from hidden_subnet.cli.terminal import prepare_terminal; prepare_terminal(); import torch"


@pytest.mark.parametrize(
    ("given", "after"),
    [
        ({}, BOUNDS),
        ({"OMP_NUM_THREADS": "4"}, {"OMP_NUM_THREADS": "4", **BOUNDS}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"KMP_BLOCKTIME": "infinite"}, {"KMP_BLOCKTIME": "infinite"}),
        (BOUNDS, BOUNDS),
    ],
)
def test_a_choice_of_the_user_stays(given: dict[str, str], after: dict[str, str]) -> None:
    environment = dict(given)
    bound_spinning(environment)
    assert environment == after


@pytest.mark.skipif(sys.platform != "linux", reason="torch's wheels for others bring LLVM's library")
@pytest.mark.parametrize(("given", "count"), [({}, "100000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_libgomp_reads_it_in_a_command(given: dict[str, str], count: str) -> None:
    """It prints what it has read where it is loaded."""
    clean = {name: value for name, value in os.environ.items() if name not in BOUNDS}
    env = {**clean, "OMP_DISPLAY_ENV": "verbose", "OMP_NUM_THREADS": "1", **given}
    said = subprocess.run([sys.executable, "-c", LOADS_TORCH], cwd=ROOT, env=env, capture_output=True, text=True)
    assert f"GOMP_SPINCOUNT = '{count}'" in said.stderr


def test_processes_that_are_started_from_a_notebook_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*BOUNDS, "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    with our_modules():
        assert {name: os.environ.get(name) for name in BOUNDS} == BOUNDS
    assert not os.environ.keys() & BOUNDS.keys()
