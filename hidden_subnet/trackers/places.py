"""Host names and absolute paths, which W&B gets only with tracker.paths=true."""

from dataclasses import replace
from pathlib import PurePath
from typing import Any

from hidden_subnet.store.read import Run
from hidden_subnet.store.redact import without_folders


def without_paths(value: Any) -> Any:
    """Return a plain value, nested or not, with …/name in place of each text that is an absolute path or one from ~."""
    if isinstance(value, dict):
        return {key: without_paths(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_paths(inner) for inner in value]
    is_path = isinstance(value, str) and value.startswith(("/", "~"))
    return f"…/{PurePath(value).name}" if is_path else value


def without_places(result: dict[str, Any]) -> dict[str, Any]:
    """Return the content of result.json without the host's name and absolute paths."""
    environment = result.get("environment")
    kept = {name: value for name, value in environment.items() if name != "host"} if environment else environment
    return dict(without_paths({**result, "environment": kept}))


def run_without_places(run: Run) -> Run:
    """Return the run without the host's name, absolute paths in its settings, and folders in its error."""
    return replace(
        run,
        settings=without_paths(run.settings),
        projection=without_paths(run.projection),
        result=run.result and without_places(run.result),
        error=without_folders(run.error),
    )
