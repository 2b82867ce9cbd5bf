"""The metrics of a run as TensorBoard scalars, and at its end settings and result (HPARAMS), in the run's folder."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hidden_subnet.config.differences import flat
from hidden_subnet.config.registries import TRACKERS, register
from hidden_subnet.store import folders
from hidden_subnet.store.read import dig, number
from hidden_subnet.trackers.entry import TrackerEntry

PLAIN = (bool, int, float, str)
"""Types of TensorBoard's hyperparameters."""
MEASURED = ("last.test.top1", "last.test.loss", "best.test.top1", "untrained.first_mask.top1", "density")
"""Values of result.json by which the HPARAMS tab compares runs."""


class TensorboardTracker:
    """Writes `folder`/tensorboard. A resumed run adds a second file there; TensorBoard shows both as one run."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a quarter of a second

        folders.make_folder(folder / "tensorboard")  # TensorBoard itself would follow a link
        self._writer: Any = SummaryWriter(str(folder / "tensorboard"))  # type: ignore[no-untyped-call]

    def log(self, row: dict[str, float]) -> None:
        for key, value in row.items():
            if key != "epoch":
                self._writer.add_scalar(key, value, int(row["epoch"]))
        self._writer.flush()

    def note(self, line: dict[str, Any]) -> None:
        if "loss" in line:
            self._writer.add_scalar("train/step_loss", line["loss"], line["step"])
            self._writer.flush()
        for path, layer in line.get("layers", {}).items():
            kept, edges = np.array(layer["kept"]), np.array(layer["edges"])
            for name, counts in (("scores", kept + np.array(layer["removed"])), ("scores_kept", kept)):
                self._add_histogram(f"{name}/{path}", counts, edges, int(line["epoch"]))

        if line.get("layers"):
            self._add_figure(line["layers"], int(line["epoch"]))
            self._writer.flush()

    def _add_figure(self, layers: dict[str, dict[str, Any]], epoch: int) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        from hidden_subnet.report.score_figure import score_figure  # loads matplotlib

        canvas = FigureCanvasAgg(score_figure(layers, f"scores after epoch {epoch}"))
        canvas.draw()
        self._writer.add_image("scores", np.asarray(canvas.buffer_rgba())[..., :3], epoch, dataformats="HWC")

    def _add_histogram(self, tag: str, counts: NDArray[Any], edges: NDArray[Any], epoch: int) -> None:
        middles = (edges[1:] + edges[:-1]) / 2  # the scores themselves are not in tracked.jsonl
        self._writer.add_histogram_raw(
            tag,
            min=edges[0],
            max=edges[-1],
            num=counts.sum(),
            sum=(counts * middles).sum(),
            sum_squares=(counts * middles**2).sum(),
            bucket_limits=edges[1:].tolist(),
            bucket_counts=counts.tolist(),
            global_step=epoch,
        )

    def finish(self, result: dict[str, Any]) -> None:
        from torch.utils.tensorboard.summary import hparams

        found = flat(result.get("projection", {}))
        settings = {
            name: value if isinstance(value, PLAIN) and value != "" else str(value or "none")
            for name, value in found.items()
        }
        values = {name: value for name in MEASURED if (value := number(dig(result, name))) is not None}
        # add_hparams would write them to a folder of their own, as another run.
        metrics = {f"result/{name}": value for name, value in values.items()}
        for summary in hparams(settings, metrics):  # type: ignore[no-untyped-call]
            self._writer.file_writer.add_summary(summary)
        for name, value in values.items():
            self._writer.add_scalar(f"result/{name}", value, int(result["last"]["epoch"]))
        self._writer.close()

    def fail(self, message: str) -> None:
        self._writer.close()

    def interrupt(self, collapsed: str = "") -> None:
        self._writer.close()


register(TRACKERS, "tensorboard")(
    TrackerEntry(
        "TensorBoard",
        lambda config, folder, sweep: TensorboardTracker(folder),
        at_the_end=lambda out: f"to see the runs, type: tensorboard --logdir {shlex.quote(out)}",
    )
)
