"""Draws a run from inside: curves, scores, masks and filters by layer, confusion, and the images most wrongly taken."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from hidden_subnet.analysis.inside import Inside, look
from hidden_subnet.analysis.layers import LayerInside
from hidden_subnet.report.overlaps import draw_matrix
from hidden_subnet.report.style import COLOURS, GREY, Style, settings_of
from hidden_subnet.signals import interrupt_held
from hidden_subnet.store import folders
from hidden_subnet.training.finished import Which

with interrupt_held():
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from hidden_subnet.report.drawn import drawn

PANEL = Style(width=3.3, height=3.1, font=8.5, line=1.6, marker=5, dpi=150)
KEPT, REMOVED = COLOURS[0], "0.7"
FILTERS, WORST, NAMED = 64, 20, 12
"""Most filters and images that are drawn, and most classes or layers that are named one by one."""


def show(run: str | Path, which: Which = "last", *, use: str | Sequence[str] = ()) -> Figure:
    """Return a figure of a finished run from inside, which a notebook shows.

    >>> figure = hs.show(run)

    `which`, `use`, and what is raised, are those of `load`.
    """
    with matplotlib.rc_context(settings_of(PANEL)):
        return plot(look(run, which, use=use))


def write(inside: Inside, path: Path, root: Path | None = None) -> None:
    """Draw into the file `path`, in the format of its suffix: png, svg or pdf."""
    with matplotlib.rc_context(settings_of(PANEL)):
        content = drawn(plot(inside), path.suffix[1:], PANEL.dpi)
    folders.write_atomically(path, content, root=root)


def plot(inside: Inside) -> Figure:
    """Return the figure: a panel for each thing that the run has."""
    panels: list[Callable[[Axes, Inside], None]] = [_curves, _confusion, _most_wrong]
    if inside.layers:
        flips = [_flips] if any("flip_rate" in row for row in inside.rows) else []
        epochs = [_epochs] if inside.epochs else []
        moves = [_densities_by_epoch] if _density_changes(inside) else []
        panels = [_curves, *flips, *moves, _densities, _scores, _first_layer, *epochs, _confusion, _most_wrong]
    columns = 4 if len(panels) > 3 else 3
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(PANEL.width * columns, PANEL.height * rows), layout="constrained")
    for at, panel in enumerate(panels):
        panel(figure.add_subplot(rows, columns, at + 1), inside)
    figure.suptitle(
        f"{inside.folder.name}\ncheckpoint {inside.which}: {inside.accuracy:.2%} of the test images right",
        fontsize=11, parse_math=False,
    )  # fmt: skip
    return figure


def _curves(axes: Axes, inside: Inside) -> None:
    for name, color in (("train", GREY), ("validation", COLOURS[0])):
        points = [(row["epoch"], 100 * row[f"{name}/top1"]) for row in inside.rows if f"{name}/top1" in row]
        if points:
            axes.plot(*zip(*points, strict=True), color=color, label=name)
    axes.axhline(100 * inside.accuracy, color=COLOURS[1], linestyle="--", label="test")
    axes.set(title="accuracy (%)", xlabel="epoch", ylim=(0, 102))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower right")


def _flips(axes: Axes, inside: Inside) -> None:
    _draw_by_epoch(axes, inside, "flip_rate/")
    axes.set(title="mask changed in the epoch (%)")


def _density_changes(inside: Inside) -> bool:
    """Return whether some layer keeps another share of its weights in one epoch than in another."""
    return any(len({row[path] for row in inside.rows if path in row}) > 1 for path in _by_layer(inside, "density/"))


def _densities_by_epoch(axes: Axes, inside: Inside) -> None:
    _draw_by_epoch(axes, inside, "density/")
    axes.set(title="weights kept after the epoch (%)")


def _draw_by_epoch(axes: Axes, inside: Inside, prefix: str) -> None:
    """Draw the columns of metrics.jsonl that begin with `prefix`, in %, a line for each layer."""
    for at, path in enumerate(_by_layer(inside, prefix)):
        points = [(row["epoch"], 100 * row[path]) for row in inside.rows if path in row]
        axes.plot(*zip(*points, strict=True), color=COLOURS[at % len(COLOURS)], label=path.partition("/")[2])
    axes.set(xlabel="epoch", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(inside.layers) <= NAMED:
        axes.legend(fontsize=7)


def _epochs(axes: Axes, inside: Inside) -> None:
    labels = [str(epoch) for epoch in sorted({epoch for pair in inside.epochs for epoch in pair})]
    draw_matrix(axes, labels, {(str(a), str(b)): found for (a, b), found in inside.epochs.items()})
    axes.set(xlabel="after epoch", ylabel="after epoch")


def _densities(axes: Axes, inside: Inside) -> None:
    paths = [layer.path for layer in inside.layers]
    axes.barh(paths, [100 * layer.density for layer in inside.layers], color=KEPT)
    for at, layer in enumerate(inside.layers):
        left, color = (100 * layer.density + 2, "black") if layer.density < 0.5 else (2, "white")
        axes.text(left, at, "\n".join(layer.lost()), va="center", fontsize=7, color=color)
    axes.set(title="weights kept (%)", xlim=(0, 100))
    axes.invert_yaxis()
    axes.tick_params("y", labelsize=7 if len(paths) <= NAMED else 4)


def _scores(axes: Axes, inside: Inside) -> None:
    layer = max(inside.layers, key=lambda each: each.mask.numel())
    scores, mask = layer.scores.flatten().float(), layer.mask.flatten()
    low, high = float(scores.min()), float(scores.max())
    bins = [low + (high - low) * at / 60 for at in range(61)] if high > low else [low - 1, low + 1]
    parts = [scores[~mask].numpy(), scores[mask].numpy()]
    axes.hist(parts, bins, stacked=True, color=[REMOVED, KEPT], label=["removed", "kept"])
    if layer.first is not None:
        axes.hist(layer.first[1].flatten().numpy(), bins, histtype="step", color="black", label="before training")
    for threshold in thresholds(layer):
        axes.axvline(threshold, color=COLOURS[1], linestyle="--", linewidth=1)
    axes.set(title=f"scores of {layer.path}", yticks=[], ylim=(0, 1.35 * axes.get_ylim()[1]))
    axes.legend(fontsize=7, ncols=3, loc="upper center", columnspacing=1, handlelength=1.2)


def thresholds(layer: LayerInside) -> list[float]:
    """Return the score from which on weights are kept, -t and t where it is |score|; none where no score tells them."""
    if layer.mask.all() or not layer.mask.any():
        return []
    for of, signs in ((layer.scores.abs(), (-1, 1)), (layer.scores, (1,))):
        least = float(of[layer.mask].min())
        if float(of[~layer.mask].max()) <= least:
            return [sign * least for sign in signs]
    return []


def _first_layer(axes: Axes, inside: Inside) -> None:
    layer = inside.layers[0]
    axes.set_axis_off()
    if layer.weight.dim() == 4:  # filters, side by side
        kept = (layer.weight * layer.mask).mean(1)[:FILTERS]
        used = layer.mask.any(1)[:FILTERS]  # in any channel
        tiles = kept.where(used, kept.new_tensor(math.nan))
        most = float(kept.abs().max()) or 1.0
        axes.imshow(_grid(tiles).numpy(), cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
        axes.set_title(f"filters of {layer.path}; white: removed")
        return
    shape = inside.images.shape[1:]
    counts = layer.inputs
    if counts.numel() == shape.numel():  # a neuron has a weight for each pixel
        drawn = axes.imshow(counts.reshape(shape).sum(0).numpy(), cmap="viridis")
        axes.figure.colorbar(drawn, ax=axes, shrink=0.7)
        axes.set_title(f"weights kept of {layer.path} for each pixel")
    else:
        axes.imshow(layer.mask.flatten(1).numpy(), cmap="Blues", aspect="auto", interpolation="nearest")
        axes.set_title(f"mask of {layer.path}")


def _confusion(axes: Axes, inside: Inside) -> None:
    counts = inside.confusion()
    shares = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    classes = len(counts)
    if classes <= NAMED:
        axes.set(xticks=range(classes), yticks=range(classes))
        for row in range(classes):
            for column in range(classes):
                if counts[row, column]:
                    color = "white" if shares[row, column] > 0.5 else "black"
                    text = str(int(counts[row, column]))
                    axes.text(column, row, text, ha="center", va="center", color=color, fontsize=6)
    axes.set(title="test images", xlabel="taken for class", ylabel="class")


def _most_wrong(axes: Axes, inside: Inside) -> None:
    axes.set_axis_off()
    worst = inside.most_wrong(WORST)
    if not worst:
        axes.set_title("no test image is taken wrongly")
        return
    axes.set_title("most surely wrong: class, taken for")
    taken = inside.probabilities.argmax(1)
    columns, size = 5, 1.0
    for at, image in enumerate(worst):
        left, top = at % columns * 1.15, at // columns * 1.5
        pixels = inside.images[image]
        pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()).clamp(min=1e-9)
        shown = pixels.permute(1, 2, 0) if len(pixels) == 3 else pixels.mean(0)
        axes.imshow(shown.numpy(), cmap="gray", extent=(left, left + size, top + size, top), interpolation="nearest")
        text = f"{int(inside.labels[image])}, {int(taken[image])}"
        axes.text(left + size / 2, top + size + 0.08, text, ha="center", va="top", fontsize=7)
    axes.set(xlim=(-0.1, columns * 1.15), ylim=(math.ceil(len(worst) / columns) * 1.5, -0.1))


def _by_layer(inside: Inside, prefix: str) -> list[str]:
    return list(dict.fromkeys(name for row in inside.rows for name in row if name.startswith(prefix)))


def _grid(tiles: Tensor) -> Tensor:
    """Return tiles (N, H, W) as one picture, with nan between them."""
    number, height, width = tiles.shape
    columns = math.ceil(math.sqrt(number))
    rows = math.ceil(number / columns)
    picture = tiles.new_full((rows * (height + 1) - 1, columns * (width + 1) - 1), math.nan)
    for at, tile in enumerate(tiles):
        top, left = at // columns * (height + 1), at % columns * (width + 1)
        picture[top : top + height, left : left + width] = tile
    return picture
