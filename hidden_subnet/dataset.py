"""What data a config means: its shape, classes and counts, told without loading it (and without torch)."""

import copy
import functools
from dataclasses import replace
from pathlib import Path

from hidden_subnet.data.info import FOLDERS, INFO, DataError, Info
from hidden_subnet.data.listing import Listing, list_images
from hidden_subnet.settings import Config, Data, Found


def counted(config: Config) -> Config:
    """The config with what lies in the folders of its images written into it, so that it says what the run is.

    Another list of classes or images is another data set, and so another run. Raises DataError in one line.
    """
    if config.data.found != Found():
        raise DataError("data.found: is counted by the program, not set; leave it away")
    if config.data.name.name not in FOLDERS:
        return config
    config = copy.copy(config)
    root = str(Path(config.data.root).expanduser().absolute())
    config.data = replace(config.data, found=_count(config.data.name.name, root))
    return config


@functools.cache  # once for the thousand runs of a sweep; a run itself looks again
def _count(name: str, root: str) -> Found:
    return found_in(list_images(name, Path(root)))


def found_in(listing: Listing) -> Found:
    return Found(classes=len(listing.classes), train=len(listing.train), test=len(listing.test), digest=listing.digest)


def info_of(data: Data) -> Info:
    """Of the images as the network gets them. Raises DataError for folders that nobody has counted."""
    info = INFO[data.name.name]
    if data.name.name in FOLDERS:
        if data.found == Found():
            raise DataError(f"data={data.name.name}: its images were not counted yet (dataset.counted)")
        info = replace(info, classes=data.found.classes, train=data.found.train, test=data.found.test)
    channels, height, width = info.shape
    if data.size:
        return replace(info, shape=(channels, data.size, data.size))
    return replace(info, shape=(channels, height + 2 * data.pad, width + 2 * data.pad))
