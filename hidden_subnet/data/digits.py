"""scikit-learn's 1,797 handwritten digits, 8x8 pixels of 0 to 16, which lie in its wheel."""

import numpy as np
import torch
from torch import Tensor


def read() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images (1437, 1, 8, 8) uint8 and labels int64, then the 360 test images and labels.

    The split is the same for every seed, and holds the same share of each class to within one image.
    """
    from sklearn.datasets import load_digits

    source = load_digits()
    images = torch.from_numpy(source.images.astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(source.target.astype(np.int64))
    # RandomState's stream is frozen across numpy's versions, default_rng's is not.
    shuffled = np.random.RandomState(0).permutation(len(labels))
    by_class = shuffled[np.argsort(source.target[shuffled], kind="stable")]
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    is_test[torch.from_numpy(by_class[::5])] = True
    return images[~is_test], labels[~is_test], images[is_test], labels[is_test]
