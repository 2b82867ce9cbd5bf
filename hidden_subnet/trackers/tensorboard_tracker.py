"""The rows of a run as TensorBoard scalars, in the run's folder."""

from pathlib import Path
from typing import Any


class TensorboardTracker:
    """Writes `folder`/tensorboard; a run that goes on adds a file there, which TensorBoard joins to the first."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a quarter of a second

        self._writer = SummaryWriter(str(folder / "tensorboard"))  # type: ignore[no-untyped-call]

    def log(self, row: dict[str, float]) -> None:
        for key, value in row.items():
            if key != "epoch":
                self._writer.add_scalar(key, value, int(row["epoch"]))  # type: ignore[no-untyped-call]
        self._writer.flush()  # type: ignore[no-untyped-call]

    def finish(self, result: dict[str, Any]) -> None:
        self._writer.close()  # type: ignore[no-untyped-call]

    def fail(self, message: str) -> None:
        self._writer.close()  # type: ignore[no-untyped-call]

    def interrupt(self) -> None:
        self._writer.close()  # type: ignore[no-untyped-call]
