"""Where a run comes from: the command, the code, the versions, the machine."""

import os
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hidden_subnet.owners import Owner
from hidden_subnet.redact import redacted

PACKAGES = ("hidden_subnet", "torch", "torchvision", "numpy", "hydra-core", "omegaconf", "submitit", "wandb")
DIFF_BYTES = 200_000
"""A longer diff is cut there, and said to be."""


def of_command() -> dict[str, Any]:
    """The command line, where it was typed, and the commit of the code with what differs from it (null: no git)."""
    return {"command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]), "directory": os.getcwd(), "git": _git()}


def of_process(command: dict[str, Any], owner: Owner, device: str) -> dict[str, Any]:
    """`command` and all that only the process of the run knows. `device` is a kind: cpu, cuda or mps."""
    return {
        **command,
        "host": owner.host,
        "device": device,
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "slurm": owner.slurm,
        "worker": owner.worker,
        "launch": owner.launch,
        "started": owner.at,
        "versions": {"python": sys.version.split()[0], **{name: _version(name) for name in PACKAGES}},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Of the folder that holds the package; only files that git knows are compared."""
    root = Path(__file__).resolve().parents[1]
    commit = _output(root, "rev-parse", "HEAD")
    if commit is None or not _output(root, "ls-files", "hidden_subnet/__init__.py"):
        return None  # no repository, or one in which this package merely lies installed
    diff = redacted(_output(root, "diff", "HEAD", "--", ".") or "")
    cut = f"\n... {len(diff) - DIFF_BYTES} more characters are cut" if len(diff) > DIFF_BYTES else ""
    return {"commit": commit.strip(), "dirty": bool(diff), "diff": diff[:DIFF_BYTES] + cut}


def _output(root: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, errors="replace", timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
