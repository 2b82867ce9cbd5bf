"""What a run tells a tracker."""

from typing import Any, Protocol


class Tracker(Protocol):
    """One of finish, fail and interrupt is called, once, and last."""

    def log(self, row: dict[str, float]) -> None:
        """One row of metrics.jsonl; its `epoch` is the x axis."""

    def finish(self, result: dict[str, Any]) -> None:
        """The run is done; `result` is what result.json holds."""

    def fail(self, message: str) -> None:
        """The run ended in an exception."""

    def interrupt(self) -> None:
        """The run was told to stop and will go on later."""
