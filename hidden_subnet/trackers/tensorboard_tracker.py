"""The metrics of a run as TensorBoard scalars, in the run's folder."""

from pathlib import Path
from typing import Any

from hidden_subnet.config.registries import TRACKERS, register
from hidden_subnet.store import folders
from hidden_subnet.trackers.entry import TrackerEntry


class TensorboardTracker:
    """Writes `folder`/tensorboard. A resumed run adds a second file there; TensorBoard shows both as one run."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a quarter of a second

        folders.make_folder(folder / "tensorboard")  # TensorBoard itself would follow a link
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


register(TRACKERS, "tensorboard")(TrackerEntry("TensorBoard", lambda config, folder, sweep: TensorboardTracker(folder)))
