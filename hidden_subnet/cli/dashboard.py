"""`python -m hidden_subnet dashboard`: make or update a workspace of the project on W&B."""

import os
from pathlib import Path

from hidden_subnet.store.read import read_runs
from hidden_subnet.trackers.dashboard import save_dashboard
from hidden_subnet.trackers.sync import check_key


def dashboard(out: Path, project: str | None, entity: str | None) -> None:
    """Save the workspace, and print where it is. Its settings are those that vary between the runs in `out`.

    Raises ConfigError without a key or wandb-workspaces, and where W&B has no such project.
    """
    check_key("dashboard")
    runs = read_runs(out) if os.path.lexists(out) else []
    print(f"saved the workspace: {save_dashboard(runs, project, entity)}")
