"""The 1,797 handwritten digits that scikit-learn's wheel contains: 8x8 pixels with values 0 to 16."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def read() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return training images, uint8 (1437, 1, 8, 8), and labels, int64 (1437,), then the 360 test images and labels.

    The split is the same for every seed, and stratified by class to within one image.
    """
    pixels, classes = _table()
    images = torch.from_numpy(pixels.astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(classes.astype(np.int64))
    # numpy guarantees the stream of RandomState for all versions, but not that of default_rng.
    shuffled = np.random.RandomState(0).permutation(len(labels))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    is_test[torch.from_numpy(by_class[::5])] = True
    return images[~is_test], labels[~is_test], images[is_test], labels[is_test]


def _table() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return all images (1797, 8, 8) and their classes (1797,), from the file that load_digits reads.

    scikit-learn is not imported, since that, with SciPy, takes half as long as importing torch.
    """
    found = importlib.util.find_spec("sklearn")
    for folder in found.submodule_search_locations or [] if found else []:
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.exists():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    from sklearn.datasets import load_digits

    source = load_digits()
    return source.images, source.target
