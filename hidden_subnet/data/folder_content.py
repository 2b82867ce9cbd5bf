"""Digest of the images in folders: by names, sizes and content, so that a run is never taken for one on other images.

Sets of at most WHOLE bytes are read whole. Of a larger one, every size counts but only a sample is read, since to read
ImageNet takes an hour on a slow disk. So images that are replaced by others of equal sizes, byte by byte, are noticed
if one of them is in the sample.
"""

import hashlib
import itertools
import os
import sys

from hidden_subnet.data.folder_listing import Listing
from hidden_subnet.errors import AGAIN, DataError
from hidden_subnet.store.content import open_regular, remembered

WHOLE = 256 << 20
SAMPLE = 2048
"""Number of images in the sample, about; each class has at least one in training and one in test images."""
MOST = 1 << 20
"""Bytes that are read of an image in the sample."""
ANNOUNCED = 20_000
"""If more images than this are read, a line says so."""


def content_digest(listing: Listing) -> str:
    """Return the digest of the images, 32 hex digits: equal for equal sets, wherever they are and in both layouts.

    Raises DataError for an image that cannot be read.
    """
    folder = os.path.realpath(listing.folder)
    paths = [f"{folder}/{path}" for path in (*listing.train, *listing.test)]

    def compute(sizes: list[int]) -> str:
        whole = sum(sizes) <= WHOLE
        chosen = range(len(paths)) if whole else _sample(listing)
        if len(chosen) > ANNOUNCED:
            print(f"reads {len(chosen):,} images in {listing.folder} once, to identify them", file=sys.stderr)
        state = hashlib.sha256(" ".join(map(str, sizes)).encode())
        for number in chosen:
            with open_regular(paths[number]) as file:
                state.update(file.read(-1 if whole else MOST))
        return state.hexdigest()

    try:
        content = remembered("images", paths, compute)
    except OSError as error:
        raise DataError(
            f"{error.filename}: cannot be read ({error.strerror or error}); replace it, or remove it, and {AGAIN}"
        ) from error
    return hashlib.sha256(f"{listing.digest} {content}".encode()).hexdigest()[:32]


def _sample(listing: Listing) -> list[int]:
    """Return the numbers of the images in the sample, evenly spaced in each class; test images follow the others."""
    images = len(listing.train) + len(listing.test)
    chosen: list[int] = []
    first = 0
    for labels in (listing.train_labels, listing.test_labels):
        for _, same in itertools.groupby(labels):
            count = len(list(same))
            taken = max(1, count * SAMPLE // images)
            chosen += [first + place * count // taken for place in range(taken)]
            first += count
    return chosen
