"""`status` and `logs` answer without loading torch, which takes seconds."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.run_folders import attempt, config, finish, me, queue

from hidden_subnet.store import sweeps

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from hidden_subnet.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("torch" in sys.modules, file=sys.stderr)
"""
"""Runs the command of its arguments and then prints whether torch was loaded."""
COUNTS = "1 done, 1 running, 1 failed, 1 to go"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A sweep with a finished run, a failed one, a running one, and one that is not started."""
    out = tmp_path / "runs"
    out.mkdir()
    configs = [config(prune_rate=rate, seed=seed, out=str(out)) for rate in (0.3, 0.6) for seed in (0, 1)]
    sweep = sweeps.write(sweeps.plan(configs, "four"), {"command": "launch.py -m ...", "directory": "/", "git": None})
    here = replace(me(), launch=str(sweep.launch))
    (finish(out, configs[0], 0.9) / "log").write_text("log of the finished run\n")
    failed = attempt(queue(out, configs[1]), here, "failed", "RuntimeError: it failed")
    (failed / "error.txt").write_text("Traceback (most recent call last):\nRuntimeError: it failed\n")
    attempt(queue(out, configs[2]), here)
    return out


def answer(out: Path, *command: str) -> str:
    """Output of a command that succeeds without having loaded torch."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *command],
        cwd=out.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "False"
    return done.stdout


def test_status_and_logs_load_no_torch(out: Path) -> None:
    finished, failed, *_ = sweeps.read(sweeps.find(out)[0]).runs
    assert COUNTS in answer(out, "status")
    said = answer(out, "status", "four")
    assert COUNTS in said
    assert "rate  seed" in said
    assert "log of the finished run" in answer(out, "logs", finished.name)
    assert "RuntimeError: it failed" in answer(out, "logs", failed.name)


def test_status_builds_no_config(out: Path) -> None:
    """Settings that this version does not know, as of a method that was removed, do not prevent a look at the sweep."""
    manifest = sweeps.find(out)[0] / sweeps.MANIFEST
    content = json.loads(manifest.read_text())
    for run in content["runs"]:
        run["settings"]["method"] = {"name": "a_method_of_another_version"}
    manifest.write_text(json.dumps(content))
    assert COUNTS in answer(out, "status", "four")
