"""Splits Fashion-MNIST into the images of its first five classes and of its last five, as files for data=npz.

python examples/halves.py          # writes first_half.npz and second_half.npz
python launch.py data=npz data.file=first_half.npz model=fc
"""

import gzip
from pathlib import Path

import numpy as np

FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist has the files; data/ has them after a run with data=fashion_mnist."""


def read(name: str, header: int) -> np.ndarray:
    """Return the bytes of a file behind its header."""
    return np.frombuffer(gzip.decompress((FOLDER / name).read_bytes()), np.uint8, offset=header)


def main() -> None:
    """Write both files; the labels of each are 0 to 4."""
    for half, name in enumerate(("first_half.npz", "second_half.npz")):
        arrays = {}
        for part, file in (("train", "train"), ("test", "t10k")):
            images = read(f"{file}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
            labels = read(f"{file}-labels-idx1-ubyte.gz", 8)
            chosen = labels // 5 == half
            arrays |= {f"{part}_images": images[chosen], f"{part}_labels": labels[chosen] % 5}
        np.savez_compressed(name, **arrays)


if __name__ == "__main__":
    main()
