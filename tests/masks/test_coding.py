"""Masks as code: they come back, in about as many bits as they hold; other code is refused."""

import numpy as np
import pytest

from hidden_subnet.masks.coding import decode, encode, information


def bits_of(n: int, ones: int, seed: int = 0) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    found = np.zeros(n, dtype=bool)
    found[np.random.default_rng(seed).permutation(n)[:ones]] = True
    return found


@pytest.mark.parametrize(
    ("n", "ones", "bits"), [(8, 4, 8.0), (8, 0, 0.0), (8, 8, 0.0), (4, 1, 3.2451124978), (10, 1, 4.6899559359)]
)
def test_information(n: int, ones: int, bits: float) -> None:
    assert information(n, ones) == pytest.approx(bits)


def test_a_thousand_masks_come_back() -> None:
    random = np.random.default_rng(0)
    for seed in range(1000):
        n = int(random.integers(1, 150))
        ones = int(random.integers(0, n + 1))
        bits = bits_of(n, ones, seed)
        assert np.array_equal(decode(encode(bits), n, ones), bits)


def test_several_lanes() -> None:
    bits = bits_of(20_000, 7_000)
    code = encode(bits)
    assert int.from_bytes(code[:2], "little") == 9  # 18,682 bits of information
    assert np.array_equal(decode(code, 20_000, 7_000), bits)


@pytest.mark.parametrize("ones", [500_000, 300_000, 100_000, 10_000])
def test_code_has_the_length_of_its_information(ones: int) -> None:
    bits = bits_of(1_000_000, ones)
    code = encode(bits)
    assert 8 * len(code) <= 1.03 * information(1_000_000, ones)
    assert np.array_equal(decode(code, 1_000_000, ones), bits)


@pytest.mark.parametrize("n", [0, 1, 7])
@pytest.mark.parametrize("value", [False, True])
def test_all_or_none_need_no_code(n: int, value: bool) -> None:
    bits = np.full(n, value)
    assert encode(bits) == b""
    assert np.array_equal(decode(b"", n, n * value), bits)


def test_other_code_is_refused() -> None:
    code = encode(bits_of(1000, 300))
    for wrong in (code[:-2], code[:-1], code + b"\0\0", b"", b"\0\0" + code[2:], b"\xff\xff" + code[2:]):
        with pytest.raises(ValueError, match="code"):
            decode(wrong, 1000, 300)
    for ones in (-1, 1001):
        with pytest.raises(ValueError, match="bits cannot be 1"):
            decode(code, 1000, ones)
    with pytest.raises(ValueError, match="code"):  # one lane for a million bits would take minutes
        decode(code, 1_000_000_000, 300)


def test_a_flipped_bit_is_noticed() -> None:
    """The file's digest tells them all; this is the code alone."""
    bits = bits_of(150, 50)
    code = encode(bits)
    noticed = 0
    for at in range(8 * len(code)):
        flipped = bytearray(code)
        flipped[at // 8] ^= 1 << at % 8
        try:
            noticed += not np.array_equal(decode(bytes(flipped), 150, 50), bits)
        except ValueError:
            noticed += 1
    assert noticed == 8 * len(code)
