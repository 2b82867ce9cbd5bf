"""scikit-learn's 1,797 handwritten digits, 8x8 pixels of 0 to 16, which lie in its wheel."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def read() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images (1437, 1, 8, 8) uint8 and labels int64, then the 360 test images and labels.

    The split is the same for every seed, and holds the same share of each class to within one image.
    """
    pixels, classes = _table()
    images = torch.from_numpy(pixels.astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(classes.astype(np.int64))
    # RandomState's stream is frozen across numpy's versions, default_rng's is not.
    shuffled = np.random.RandomState(0).permutation(len(labels))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    is_test[torch.from_numpy(by_class[::5])] = True
    return images[~is_test], labels[~is_test], images[is_test], labels[is_test]


def _table() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """All images (1797, 8, 8) and their classes, from the file that load_digits reads.

    To import scikit-learn, and SciPy with it, takes half as long as torch.
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
