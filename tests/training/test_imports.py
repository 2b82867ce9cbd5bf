"""A process that trains loads nothing that it does not need: each run of a sweep may start one."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LATER = (
    "torchvision", "PIL", "triton", "sklearn", "scipy", "matplotlib", "wandb", "tensorboard", "rich", "submitit",
    "torch._dynamo", "torch._inductor",
)  # fmt: skip
"""Packages that some runs need and others do not: most take as long to import as torch."""


def test_training_loads_no_package_that_it_may_not_need() -> None:
    code = "import sys, hidden_subnet.training.run; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert {"torch", "hidden_subnet.training.trainer", "hidden_subnet.data.image_folders"} <= set(loaded)
    assert [name for name in loaded if any(f"{name}.".startswith(f"{each}.") for each in LATER)] == []
