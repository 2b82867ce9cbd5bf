"""Where a run comes from: the command, the code, the versions, the machine."""

import os
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hidden_subnet.config.own_parts import USED
from hidden_subnet.config.program import TYPED
from hidden_subnet.store.liveness import Holder
from hidden_subnet.store.redact import redacted

PACKAGES = ("hidden_subnet", "torch", "torchvision", "timm", "numpy", "hydra-core", "omegaconf", "submitit", "wandb")
OF_ANOTHER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
"""Variables by which git takes another repository than the one that it is in; git sets them for its hooks."""
DIFF_BYTES = 200_000
"""Characters after which a longer diff is cut, with a note that it was."""
# Neither the user's own diff program nor colors nor renames, so that each file stands under its own name.
DIFF = ("diff", "--no-ext-diff", "--no-color", "--no-renames", "--src-prefix=a/", "--dst-prefix=b/", "HEAD", "--", ".")


def of_command() -> dict[str, Any]:
    """The command line, the directory it was typed in, the folder of the package, and the code's commit and diff.

    "git" is None where git does not track the package, as in site-packages, wherever the command was typed.
    With own parts also the text of their files, without what may be a secret.
    """
    root = Path(__file__).resolve().parents[2]
    own = {str(file): redacted(text) for each in USED.values() for file, text in each.texts.items()}
    return {
        "command": shlex.join(TYPED or [Path(sys.argv[0]).name, *sys.argv[1:]]),
        "directory": os.getcwd(),
        "package": str(root / "hidden_subnet"),
        "git": git_state(root),
        **({"own_parts": own} if own else {}),
    }


def of_process(command: dict[str, Any], holder: Holder, device: str) -> dict[str, Any]:
    """`command` (of_command) plus host, device, versions, ... of the process that executes the run.

    `device` is a kind: cpu, cuda or mps.
    """
    return {
        **command,
        "host": holder.host,
        "device": device,
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "slurm": holder.slurm,
        "worker": holder.worker,
        "launch": holder.launch,
        "started": holder.at,
        "versions": {"python": sys.version.split()[0], **{name: _version(name) for name in PACKAGES}},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_state(root: Path) -> dict[str, Any] | None:
    """Commit of the repository at `root` and how its tracked files differ; None if it does not track this package.

    The diff is without what may be a secret, and cut after DIFF_BYTES characters.
    """
    commit = _output(root, "rev-parse", "HEAD")
    if commit is None or not _output(root, "ls-files", "hidden_subnet/__init__.py"):
        return None  # no repository, or one that only contains the installed package
    diff = _output(root, *DIFF) or ""
    kept = diff if len(diff) <= DIFF_BYTES else diff[: diff.rfind("\n", 0, DIFF_BYTES)]
    cut = f"\n... {len(diff) - len(kept)} more characters are cut" if len(diff) > DIFF_BYTES else ""
    return {"commit": commit.strip(), "dirty": bool(diff), "diff": redacted(kept) + cut}


def _output(root: Path, *command: str) -> str | None:
    env = {name: value for name, value in os.environ.items() if name not in OF_ANOTHER}
    try:
        done = subprocess.run(
            ["git", *command], cwd=root, env=env, capture_output=True, text=True, errors="replace", timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
