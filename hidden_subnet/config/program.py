"""Where conf/ and sweeps/ are, how the program is called in what it tells its user to type, and its rank."""

import os
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = (_PACKAGE / "conf").is_dir() and not all(
    (_PACKAGE.parent / name).exists() for name in ("launch.py", "conf", "sweeps")
)
"""Whether this is a package in site-packages, with copies of conf/ and sweeps/, and not a checkout."""
ROOT = _PACKAGE if _INSTALLED else _PACKAGE.parent
"""Holds conf/ and sweeps/."""

SCRIPT = "hidden-subnet"
"""The command of an installed package (setup.cfg)."""
_BY_SCRIPT = _INSTALLED or Path(*sys.argv[:1]).name == SCRIPT
LAUNCH = f"{SCRIPT} launch" if _BY_SCRIPT else "python launch.py"
PROGRAM = SCRIPT if _BY_SCRIPT else "python -m hidden_subnet"
COMMANDS = (
    "launch",
    "status",
    "logs",
    "stop",
    "worker",
    "results",
    "report",
    "sync",
    "wandb-sweep",
    "dashboard",
    "rm",
    "controls",
    "show",
    "compare",
    "mask",
    "export",
)

TYPED: list[str] = []
"""The words of a launch as they were typed, of which Hydra gets others; empty in other processes."""


def rank_in_environment() -> tuple[int, int]:
    """Return (rank, size) of the variables RANK and WORLD_SIZE, which torchrun sets; (0, 1) without them."""
    rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    return (int(rank), int(size)) if rank.isdecimal() and size.isdecimal() and int(size) > 1 else (0, 1)
