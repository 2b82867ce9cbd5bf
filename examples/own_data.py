"""Images of your own: python launch.py use=examples/own_data.py data=my_images data.noise=0.5"""

import numpy as np

import hidden_subnet as hs


@hs.register_data("my_images")
def my_images(root, *, noise: float = 0.1):
    random = np.random.default_rng(0)
    labels = np.arange(600) % 3
    pixels = (labels[:, None, None, None] + random.normal(0, noise, (600, 1, 8, 8))).astype(np.float32)
    return hs.ImageData(pixels[:400], labels[:400], pixels[400:], labels[400:])
