"""Small sets of image files, made where a test needs them."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, height: int = 20, width: int = 24) -> Image.Image:
    """Smooth noise with a tint, so that JPEG keeps what distinguishes images."""
    random = np.random.RandomState(seed)
    small = random.randint(0, 256, (3, 3, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)


def make_folder(
    root: Path, classes: int = 3, train: int = 8, val: int = 4, annotated: bool = False, suffix: str = "png"
) -> Path:
    """`train` and `val` images a class; `annotated` as Tiny ImageNet's archive has them, else an ImageFolder."""
    lines = []
    for label in range(classes):
        name = f"n{label:02d}"
        inner = root / "train" / name / ("images" if annotated else "")
        inner.mkdir(parents=True)
        for number in range(train):
            picture(1000 * label + number).save(inner / f"{name}_{number}.{suffix}")
        inner = root / "val" / ("images" if annotated else name)
        inner.mkdir(parents=True, exist_ok=True)
        for number in range(val):
            # Not in the order of the classes.
            file = f"val_{number * classes + (label + 1) % classes}.{suffix}"
            picture(1000 * label + 500 + number).save(inner / file)
            lines.append(f"{file}\t{name}\t0\t0\t9\t9\n")
    if annotated:
        (root / "val" / "val_annotations.txt").write_text("".join(lines))
    return root
