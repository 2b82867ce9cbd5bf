"""Image files of every kind that ImageFolder's file names can hold, and the 8-bit RGB value of each."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hidden_subnet.data.image_folders import Augmentation, BatchRequest, ImageFileDataset
from hidden_subnet.data.pictures import NotFaithful, read_rgb

Array = NDArray[Any]
RGB = np.array([[[255, 0, 0], [0, 255, 0], [1, 2, 3]], [[0, 0, 255], [200, 100, 50], [255, 255, 255]]], np.uint8)
"""Two rows of three pixels, different from all that it becomes by turning and mirroring."""
GRAY = np.array([[0, 17, 34], [85, 170, 255]], np.uint8)
DEEP = np.array([[0, 255, 256], [0x1234, 0x8000, 0xFFFF]], np.uint16)
HIGH = np.array([[0, 0, 1], [0x12, 0x80, 0xFF]], np.uint8)
DEEP_RGB = (RGB.astype(np.uint16) << 8) + 7


def png(path: Path, bits: int, color: int, rows: Array, **chunks: bytes) -> None:
    """Write a PNG of any depth; rows: the bytes of each row. color: 0 gray, 2 RGB, 3 palette, 4 gray alpha, 6 RGBA."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 3, 2, bits, color, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    others = b"".join(chunk(name.encode(), content) for name, content in chunks.items())
    inner = chunk(b"IHDR", header) + others + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + inner)


def tiff(
    path: Path, bits: int, content: bytes, samples: int = 1, white: int = 1, order: str = "<", **others: list[int]
) -> None:
    """Write an uncompressed TIFF of 3x2 pixels. white: PhotometricInterpretation, 0 where 0 is white.

    others: further tags, by their number, as in t274=[6].
    """
    tags = {256: [3], 257: [2], 258: [bits] * samples, 259: [1], 262: [white], 273: [8], 277: [samples], 278: [2]}
    tags |= {279: [len(content)]} | {int(name[1:]): values for name, values in others.items()}
    extra_at = 8 + len(content) + 2 + 12 * len(tags) + 4
    entries = extra = b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}H", *values)
        if len(packed) > 4:
            packed, extra = struct.pack(f"{order}I", extra_at + len(extra)), extra + packed
        entries += struct.pack(f"{order}HHI", tag, 3, len(values)) + packed.ljust(4, b"\0")
    directory = struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(content))
    path.write_bytes(head + content + directory + extra)


def saved(array: Array, mode: str | None = None, **options: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        picture = Image.fromarray(array)
        (picture if mode is None else picture.convert(mode)).save(path, **options)

    return write


def with_alpha(pixels: Array, alpha: Any) -> Array:
    values = pixels if pixels.ndim == 3 else pixels[..., None]
    return np.concatenate([values, np.broadcast_to(np.uint8(alpha), (2, 3))[..., None]], axis=2).astype(np.uint8)


def gray(values: Array) -> Array:
    return np.repeat(values[..., None], 3, axis=2)


ALPHA = np.array([[0, 255, 255], [255, 255, 51]], np.uint8)
HALF = np.array([[0, 255, 255], [255, 255, 102]], np.uint8)


def on_white(pixels: Array, alpha: Array) -> Array:
    share = alpha[..., None] / 255
    return np.round(pixels * share + 255 * (1 - share)).astype(np.uint8)


def palette(**options: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        picture = Image.new("P", (3, 2))
        picture.putpalette(RGB.reshape(-1).tolist())
        picture.putdata(range(6))
        picture.save(path, **options)

    return write


def cmyk(path: Path) -> None:
    ink = [[(0, 255, 255, 0), (255, 0, 255, 0), (0, 0, 0, 255)], [(255, 255, 0, 0), (0, 0, 0, 0), (255, 255, 255, 255)]]
    Image.fromarray(np.array(ink, np.uint8), mode="CMYK").save(path)


CMYK = np.array([[[255, 0, 0], [0, 255, 0], [0] * 3], [[0, 0, 255], [255] * 3, [0] * 3]], np.uint8)


def twelve_bits(path: Path) -> None:
    rows = [(0, 0x0FF, 0x100), (0x123, 0x800, 0xFFF)]
    packed = b"".join(int(f"{a:03x}{b:03x}{c:03x}0", 16).to_bytes(5, "big") for a, b, c in rows)
    tiff(path, 12, packed)


def frames(*arrays: Array, **options: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        first, *rest = map(Image.fromarray, arrays)
        first.save(path, save_all=True, append_images=rest, **options)

    return write


def damaged_exif(path: Path) -> None:
    Image.fromarray(RGB).save(path, exif=b"Exif\0\0II*\0\xff\xff\0\0")


def deep_with_key(path: Path) -> None:
    png(path, 16, 0, DEEP.astype(">u2"), tRNS=b"\x12\x34")


LA16 = np.stack([DEEP, np.full((2, 3), 0xFFFF)], axis=2).astype(">u2")
RGBA16 = np.concatenate([DEEP_RGB, np.full((2, 3, 1), 0xFFFF)], axis=2).astype(">u2")
KEYED = RGB.copy()
KEYED[0, 2] = 255


def rows_of(*rows: list[int]) -> Array:
    return np.array(rows, np.uint8)


def netpbm(path: Path, magic: bytes, most: int, values: Array) -> None:
    path.write_bytes(magic + f" 3 2 {most}\n".encode() + values.astype(">u2").tobytes())


def flat_cmyk(path: Path) -> None:
    Image.new("CMYK", (3, 2), (0, 255, 0, 0)).save(path, quality=100)


FAITHFUL: list[tuple[str, str, Callable[[Path], None], Array]] = [
    # (name, suffix, how the file is written, its pixels)
    ("RGB", "png", saved(RGB), RGB),
    ("RGB", "bmp", saved(RGB), RGB),
    ("RGB", "ppm", saved(RGB), RGB),
    ("RGB", "tif", saved(RGB), RGB),
    ("RGB", "webp", saved(RGB, lossless=True), RGB),
    ("gray", "png", saved(GRAY), gray(GRAY)),
    ("gray", "pgm", saved(GRAY), gray(GRAY)),
    ("1 bit", "png", saved(GRAY > 100, "1"), gray((GRAY > 100) * np.uint8(255))),
    (
        "1 bit, 0 is white",
        "tif",
        lambda path: tiff(path, 1, b"\x20\xc0", white=0),
        gray(rows_of([255, 255, 0], [0, 0, 255])),
    ),
    (
        "2 bits",
        "png",
        lambda path: png(path, 2, 0, rows_of([0b00011000], [0b11000000])),
        gray(rows_of([0, 85, 170], [255, 0, 0])),
    ),
    (
        "2 bits, a transparent gray",
        "png",
        lambda path: png(path, 2, 0, rows_of([0b00011000], [0b11000000]), tRNS=b"\0\1"),
        gray(rows_of([0, 255, 170], [255, 0, 0])),
    ),
    (
        "4 bits, a transparent gray",
        "png",
        lambda path: png(path, 4, 0, rows_of([0x01, 0x20], [0x5A, 0xF0]), tRNS=b"\0\5"),
        gray(np.where(GRAY == 85, 255, GRAY).astype(np.uint8)),
    ),
    (
        "1 bit, black is transparent",
        "png",
        lambda path: png(path, 1, 0, rows_of([0b01000000], [0b10100000]), tRNS=b"\0\0"),
        gray(np.full((2, 3), 255, np.uint8)),
    ),
    ("4 bits", "png", lambda path: png(path, 4, 0, rows_of([0x01, 0x20], [0x5A, 0xF0])), gray(GRAY)),
    ("8 bits, 0 is white", "tif", lambda path: tiff(path, 8, (255 - GRAY).tobytes(), white=0), gray(GRAY)),
    ("16 bits", "png", saved(DEEP), gray(HIGH)),
    ("16 bits", "tif", lambda path: tiff(path, 16, DEEP.astype("<u2").tobytes()), gray(HIGH)),
    ("16 bits, big end first", "tif", lambda path: tiff(path, 16, DEEP.astype(">u2").tobytes(), order=">"), gray(HIGH)),
    (
        "16 bits, 0 is white",
        "tif",
        lambda path: tiff(path, 16, (0xFFFF - DEEP).astype("<u2").tobytes(), white=0),
        gray(HIGH),
    ),
    ("12 bits", "tif", twelve_bits, gray(rows_of([0, 15, 16], [0x12, 0x80, 0xFF]))),
    ("16 bits", "pgm", lambda path: netpbm(path, b"P5", 65535, DEEP), gray(HIGH)),
    (
        "1000 is white",
        "pgm",
        lambda path: netpbm(path, b"P5", 1000, np.array([[0, 1, 500], [999, 250, 1000]])),
        gray(rows_of([0, 0, 128], [255, 64, 255])),
    ),
    ("RGB of 16 bits", "ppm", lambda path: netpbm(path, b"P6", 65535, RGB.astype(np.uint16) * 257), RGB),
    ("RGB of 16 bits", "png", lambda path: png(path, 16, 2, DEEP_RGB.astype(">u2")), RGB),
    ("RGB of 16 bits", "tif", lambda path: tiff(path, 16, DEEP_RGB.astype("<u2").tobytes(), 3, 2), RGB),
    ("RGBA of 16 bits", "png", lambda path: png(path, 16, 6, RGBA16), RGB),
    ("gray and alpha of 16 bits", "png", lambda path: png(path, 16, 4, LA16), gray(HIGH)),
    ("palette", "png", palette(), RGB),
    ("palette", "bmp", palette(), RGB),
    (
        "RGB, a plane for each color",
        "tif",
        lambda path: tiff(path, 8, RGB.transpose(2, 0, 1).tobytes(), 3, 2, t284=[2], t273=[8, 14, 20], t279=[6] * 3),
        RGB,
    ),
    ("palette, a transparent color", "png", palette(transparency=2), KEYED),
    ("palette with alpha", "png", palette(transparency=bytes([255, 255, 0, 255, 255, 255])), KEYED),
    ("a transparent color", "png", saved(RGB, transparency=(1, 2, 3)), KEYED),
    ("a transparent gray", "png", saved(GRAY, transparency=34), gray(np.where(GRAY == 34, 255, GRAY).astype(np.uint8))),
    ("RGBA, opaque", "png", saved(with_alpha(RGB, 255)), RGB),
    ("RGBA", "png", saved(with_alpha(RGB, ALPHA)), on_white(RGB, ALPHA)),
    ("RGBA", "tif", saved(with_alpha(RGB, ALPHA)), on_white(RGB, ALPHA)),
    ("RGBA", "webp", saved(with_alpha(RGB, ALPHA), lossless=True, exact=True), on_white(RGB, ALPHA)),
    ("gray and alpha, opaque", "png", saved(with_alpha(GRAY, 255)), gray(GRAY)),
    ("gray and alpha", "png", saved(with_alpha(GRAY, HALF)), on_white(gray(GRAY), HALF)),
    ("CMYK", "tif", cmyk, CMYK),
    ("CMYK", "jpg", flat_cmyk, np.full((2, 3, 3), (255, 0, 255), np.uint8)),
    (
        "LAB",
        "tif",
        lambda path: Image.new("LAB", (3, 2), (255, 128, 128)).save(path),
        np.full((2, 3, 3), 255, np.uint8),
    ),
    ("YCbCr", "tif", saved(gray(GRAY), "YCbCr"), gray(GRAY)),
    ("animation", "png", frames(RGB, 255 - RGB), RGB),
    ("animation", "webp", frames(RGB, 255 - RGB, lossless=True), RGB),
    ("GIF named .png", "png", frames(gray(GRAY), gray(255 - GRAY), format="GIF"), gray(GRAY)),
    ("damaged EXIF", "png", damaged_exif, RGB),
]


@pytest.mark.parametrize(("kind", "suffix", "write", "pixels"), FAITHFUL, ids=[" ".join(each[:2]) for each in FAITHFUL])
def test_the_value_of_each_kind(
    tmp_path: Path, kind: str, suffix: str, write: Callable[[Path], None], pixels: Array
) -> None:
    path = tmp_path / f"picture.{suffix}"
    write(path)
    read = read_rgb(path)
    assert (read.mode, read.size) == ("RGB", (3, 2))
    difference = np.abs(np.asarray(read).astype(int) - pixels)
    assert difference.max() <= (1 if suffix == "jpg" or kind == "LAB" else 0), np.asarray(read).tolist()


TURNED: dict[int, Callable[[Array], Array]] = {
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.swapaxes(0, 1),
    6: lambda shown: shown[::-1].swapaxes(0, 1),
    7: lambda shown: shown[::-1, ::-1].swapaxes(0, 1),
    8: lambda shown: shown.swapaxes(0, 1)[::-1],
}
"""The picture that is shown, from the pixels of the file, for each orientation of EXIF."""


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "jpg"])
def test_a_picture_is_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"photo.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.kron(RGB, np.ones((8, 8, 1), np.uint8))  # blocks, which JPEG keeps
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
    Image.fromarray(pixels).save(path, exif=exif, **options)
    shown = TURNED[orientation](pixels).astype(int)
    read = np.asarray(read_rgb(path)).astype(int)
    assert read.shape == shown.shape
    assert np.abs(read - shown).max() <= (4 if suffix == "jpg" else 0)


def test_a_gray_photo_of_16_bits_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(DEEP).save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(np.asarray(read_rgb(tmp_path / "photo.png")), TURNED[6](gray(HIGH)))


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize(("bits", "content"), [(8, HIGH.tobytes()), (16, DEEP.astype("<u2").tobytes())])
def test_a_gray_tiff_is_upright(tmp_path: Path, orientation: int, bits: int, content: bytes) -> None:
    tiff(tmp_path / "photo.tif", bits, content, t274=[orientation])
    assert np.array_equal(np.asarray(read_rgb(tmp_path / "photo.tif")), TURNED[orientation](gray(HIGH)))


REFUSED: list[tuple[str, str, Callable[[Path], None], str]] = [
    ("floating point", "tif", saved(np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)), "mode F"),
    ("32 bits", "tif", saved(np.arange(6, dtype=np.int32).reshape(2, 3)), "signed"),
    ("32 bits, unsigned", "tif", lambda path: tiff(path, 32, DEEP.astype("<u4").tobytes()), "mode I,"),
    (
        "signed",
        "tif",
        lambda path: tiff(path, 16, DEEP.astype("<u2").tobytes(), t339=[2]),
        "signed",
    ),
    ("signed, 8 bits", "tif", lambda path: tiff(path, 8, GRAY.tobytes(), t339=[2]), "signed"),
    (
        "16 bits, a plane for each color",
        "tif",
        lambda path: tiff(
            path, 16, DEEP_RGB.transpose(2, 0, 1).tobytes(), 3, 2, t284=[2], t273=[8, 20, 32], t279=[12] * 3
        ),
        "planes",
    ),
    (
        "a palette of 8 bits",
        "tif",
        lambda path: tiff(path, 8, bytes(range(6)), white=3, t320=[*range(256)] * 3),
        "palette",
    ),
    (
        "YCbCr, subsampled",
        "tif",
        lambda path: tiff(path, 8, bytes(300), 3, 6, t530=[2, 2]),
        "subsampled",
    ),
    ("pages", "tif", frames(RGB, 255 - RGB, RGB), "3 pages"),
    ("16 bits, a transparent gray", "png", deep_with_key, "transparent"),
    (
        "16 bits, a transparent color",
        "png",
        lambda path: png(path, 16, 2, DEEP_RGB.astype(">u2"), tRNS=struct.pack(">3H", 7, 7, 0xFF07)),
        "transparent",
    ),
    (
        "16 bits, a transparent dark color",
        "png",
        lambda path: png(path, 16, 2, DEEP_RGB.astype(">u2"), tRNS=struct.pack(">3H", 7, 7, 7)),
        "transparent",
    ),
]


@pytest.mark.parametrize(("suffix", "write", "word"), [case[1:] for case in REFUSED], ids=[each[0] for each in REFUSED])
def test_what_has_no_faithful_form_is_refused(
    tmp_path: Path, suffix: str, write: Callable[[Path], None], word: str
) -> None:
    path = tmp_path / f"picture.{suffix}"
    write(path)
    with pytest.raises(NotFaithful, match=word):
        read_rgb(path)
    small = Augmentation(size=2, resize=2, crop=0, flip=False, resized_crop=False)
    said = ImageFileDataset(tmp_path, [path.name], small)[BatchRequest(np.array([0]), None)]
    assert isinstance(said, str)
    assert said.startswith(f"{path}: has no faithful form in 8-bit RGB (")
    assert said.endswith("); convert it, or remove it, and give the command again")
    assert "\n" not in said


def test_no_program_is_started_for_a_picture(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n%%EndComments\n")
    with pytest.raises(UnidentifiedImageError):
        read_rgb(tmp_path / "picture.png")


def test_a_picture_that_fills_the_memory_is_refused_by_its_size(tmp_path: Path) -> None:
    Image.new("1", (17_000, 10_000)).save(tmp_path / "picture.png")
    with pytest.raises(NotFaithful, match="it has 170 megapixels, and the limit is 90"):
        read_rgb(tmp_path / "picture.png")
