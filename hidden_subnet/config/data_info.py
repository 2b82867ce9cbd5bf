"""Shape, classes and counts of a data set, which are known before any image is read."""

from dataclasses import dataclass, replace

from hidden_subnet.config.settings import Data, FoundImages
from hidden_subnet.errors import DataError


@dataclass(frozen=True)
class DataInfo:
    """The images of a data set in numbers."""

    shape: tuple[int, int, int]
    """Channels, height, width."""
    classes: int
    train: int
    """Number of training images, before the validation split."""
    test: int
    mean: tuple[float, ...]
    """Mean of each channel over the training images, as a fraction of `max_value`."""
    std: tuple[float, ...]
    """Standard deviation of each channel, likewise."""
    max_value: float = 255.0
    """The raw value of the brightest pixel."""

    def sized(self, data: Data, *, in_folders: bool) -> "DataInfo":
        """Return the info of the images as the network gets them: padded or resized, and with the counts of folders.

        Raises DataError for image folders that were not counted.
        """
        info = self
        if in_folders:
            if data.found == FoundImages():
                raise DataError(f"data={data.name}: its images are not counted; call with_found_images(config) first")
            info = replace(info, classes=data.found.classes, train=data.found.train, test=data.found.test)
        channels, height, width = info.shape
        if data.size:
            return replace(info, shape=(channels, data.size, data.size))
        return replace(info, shape=(channels, height + 2 * data.pad, width + 2 * data.pad))


def held_out(images: int, validation: float) -> int:
    """Return how many of `images` training images are held out (data.validation)."""
    return round(validation * images)


def trained_on(images: int, fraction: float) -> int:
    """Return how many of the `images` that are not held out are trained on (data.fraction)."""
    return round(fraction * images)
