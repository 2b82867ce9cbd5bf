"""A run whose ranks torchrun starts: TERM saves it, and it ends in the bits of one that starts its ranks itself."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LAUNCH = [str(ROOT / "launch.py"), "train.device=cpu", "train.devices=2", "train.threads=1", "tracker=none"]
LAUNCH += ["model.width=0.125", "data.fraction=0.5", "train.epochs=12"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def result_in(out: Path) -> dict[str, Any]:
    [path] = out.glob("*/result.json")
    result: dict[str, Any] = json.loads(path.read_text())
    return result


@pytest.mark.slow
def test_ranks_of_torchrun(tmp_path: Path) -> None:
    ours, own = tmp_path / "torchrun", tmp_path / "own"
    command = [*TORCHRUN, *LAUNCH, f"out={ours}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 1/"):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stdout.read()
    assert "the same command continues from here" in rest
    assert not list(ours.glob("*/result.json"))

    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "epoch 1/12" not in said.stdout  # it was resumed
    assert said.stdout.count("epoch 12/12") == 1  # one rank prints
    subprocess.run([sys.executable, *LAUNCH, f"out={own}"], check=True, capture_output=True)
    for part in ("last", "best", "untrained"):
        assert result_in(ours)[part] == result_in(own)[part]
