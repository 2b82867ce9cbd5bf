"""An image file as 8-bit RGB: every kind of image as a viewer would show it, or refused.

PIL's own `convert("RGB")` clips 16-bit values to white, and shows the hidden colors below transparent pixels. PIL is
imported in the functions, since other data does not need it.
"""

import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hidden_subnet.store.content import open_regular

if TYPE_CHECKING:
    from PIL import Image

BACKGROUND = "white"
"""Color below transparent pixels."""

EXACT = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB")
"""PIL's modes whose conversion to RGB is exact, but for the rounding of other color spaces."""


FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that a file may have, whatever its name ends in. For others PIL starts programs: Ghostscript for EPS."""

PIXELS = 90_000_000
"""Largest image, 0.3 GB in memory; the size at which PIL warns of files that are made to fill the memory."""

BITS_PER_SAMPLE, PHOTOMETRIC, PLANAR_CONFIGURATION, COLOR_MAP, SAMPLE_FORMAT, SUBSAMPLING = 258, 262, 284, 320, 339, 530
"""Tags of TIFF."""


class NotFaithful(ValueError):
    """An image whose values have no faithful form in 8-bit RGB."""


def read_rgb(path: Path) -> "Image.Image":
    """Return an image file in mode RGB, upright (EXIF), of an animation the first frame.

    Raises NotFaithful, and many kinds of errors for a damaged file.
    """
    from PIL import Image, ImageOps

    # As an open file: of a path, PIL maps TIFF files into memory, and those turned by 90 degrees with the wrong width.
    with open_regular(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(file, formats=FORMATS)
        warnings.simplefilter("ignore", UserWarning)  # of each damaged EXIF block, and of palettes
        if (pixels := image.width * image.height) > PIXELS:
            raise NotFaithful(f"it has {pixels / 1e6:.0f} megapixels, and the limit is {PIXELS / 1e6:.0f}")
        if image.format == "TIFF":
            _refuse_misread_tiff(image)
        if image.format == "PNG" and "transparency" in image.info:
            _scale_transparent_value(image)
        image.load()
        with suppress(Exception):  # a damaged EXIF block; the pixels are whole
            ImageOps.exif_transpose(image, in_place=True)
        return _rgb(image)


def _refuse_misread_tiff(image: Any) -> None:
    """Raise NotFaithful for a TIFF that PIL reads in part, or whose numbers it takes for others. image: not loaded."""
    if (pages := image.n_frames) > 1:
        raise NotFaithful(f"it has {pages} pages, of which one would be used")
    tags = image.tag_v2
    if 2 in tags.get(SAMPLE_FORMAT, ()):
        raise NotFaithful("it has signed numbers, in which black and white are not known")
    if tags.get(PLANAR_CONFIGURATION) == 2 and 16 in tags.get(BITS_PER_SAMPLE, ()):
        raise NotFaithful("it has colors of 16 bits in separate planes")
    if image.mode in ("P", "PA") and 0 < max(tags[COLOR_MAP]) < 256:
        raise NotFaithful("its palette has 8 bits, and those of TIFF have 16")
    if image.mode == "YCbCr" and tags.get(SUBSAMPLING, (2, 2)) != (1, 1):
        raise NotFaithful("it has subsampled colors that are not compressed")


def _scale_transparent_value(image: Any) -> None:
    """Scale the gray value that is transparent in a PNG as PIL scales its pixels. image: not loaded.

    Raises NotFaithful for 16 bits: PIL compares it with pixels of 8 bits.
    """
    raw = image.tile[0].args
    if raw in ("I;16B", "RGB;16B"):
        raise NotFaithful("it has 16 bits and a transparent color")
    image.info["transparency"] *= {"L;2": 85, "L;4": 17}.get(raw, 1)


def _rgb(image: "Image.Image") -> "Image.Image":
    if image.mode.startswith("I"):
        return _high_byte(image).convert("RGB")
    if image.has_transparency_data:
        return _on_background(image)
    if image.mode not in EXACT:
        raise NotFaithful(f"PIL reads it in mode {image.mode}, in which black and white are not known")
    return image.convert("RGB")


def _high_byte(image: "Image.Image") -> "Image.Image":
    """Return a gray image of 16 bits with the high byte of each value, as PIL reads colors of 16 bits."""
    from PIL import Image

    bits, inverted = 16, False
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits, inverted = tags[BITS_PER_SAMPLE][0], tags.get(PHOTOMETRIC) == 0
    # PIL scales a PGM of any depth to 16 bits, in mode I. In a TIFF, it is that of 32-bit or signed numbers.
    if image.format not in (("PNG", "PPM") if image.mode == "I" else ("PNG", "TIFF")):
        raise NotFaithful(f"PIL reads it in mode {image.mode}, in which black and white are not known")
    values = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    return Image.fromarray(255 - values if inverted else values)


def _on_background(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    picture = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    if np.asarray(picture.getchannel("A")).min() < 255:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, BACKGROUND), picture)
    return picture.convert("RGB")
