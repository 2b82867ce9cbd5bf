"""Masks in as many bits as they hold: an entropy coder for bits of which a known number is 1.

n bits with k ones have log2(binomial(n, k)) <= n H(k / n) bits of information, H(p) = -p log2 p - (1 - p) log2 (1 - p).
This is rANS (Duda 2013, arXiv:1311.2540) with one probability for the whole sequence, in many lanes that numpy computes
together: lane j codes bits j, j + lanes, j + 2 lanes, ...
"""

import math

import numpy as np
from numpy.typing import NDArray

PRECISION = 16
"""Probabilities are multiples of 2**-PRECISION."""
WHOLE = np.uint64(1 << PRECISION)
LOW = np.uint64(1 << 16)
"""A lane's state stays within [LOW, LOW * 2**16); it leaves 16 bits, a word, where it would grow beyond."""
BITS_A_LANE = 1 << 11
"""Bits of information; a lane costs four bytes, 1.6 % of them."""
MOST_LANES, MOST_ROWS = 1 << 12, 1 << 18
"""MOST_ROWS limits the time, which is that of the steps, some 5 us each."""


def encode(bits: NDArray[np.bool_]) -> bytes:
    """Return the code of a sequence of bits (n,); `decode` needs the number of bits and of ones too."""
    n, ones = len(bits), int(np.count_nonzero(bits))
    if ones in (0, n):
        return b""
    lanes, share = _lanes(n, ones), _share(n, ones)
    padded = np.zeros(-(-n // lanes) * lanes, dtype=bool)
    padded[:n] = bits
    rows = padded.reshape(-1, lanes)
    state = np.full(lanes, LOW)
    words = []
    for at in range(len(rows) - 1, -1, -1):  # the last bit first, since a decoder is a stack
        row = rows[at]
        width, start = np.where(row, share, WHOLE - share), np.where(row, np.uint64(0), share)
        full = state >= width << np.uint64(16)
        words.append(state[full].astype("<u2"))
        state[full] >>= np.uint64(16)
        state = (state // width << np.uint64(PRECISION)) + state % width + start
    return (
        lanes.to_bytes(2, "little")
        + state.astype("<u4").tobytes()
        + b"".join(each.tobytes() for each in reversed(words))
    )


def decode(code: bytes, n: int, ones: int) -> NDArray[np.bool_]:
    """Return the n bits of which `encode` made the code. Raises ValueError where it made none such."""
    if not 0 <= ones <= n:
        raise ValueError(f"{ones} of {n} bits cannot be 1")
    if ones in (0, n):
        if code:
            raise ValueError("more code than bits")
        return np.full(n, ones > 0)
    lanes, share = int.from_bytes(code[:2], "little"), _share(n, ones)
    if not max(1, n // MOST_ROWS) <= lanes <= MOST_LANES or len(code) < 2 + 4 * lanes or len(code) % 2:
        raise ValueError("the code is too short")
    state = np.frombuffer(code, "<u4", lanes, offset=2).astype(np.uint64)
    words = np.frombuffer(code, "<u2", offset=2 + 4 * lanes).astype(np.uint64)
    rows = np.zeros((-(-n // lanes), lanes), dtype=bool)
    used = 0
    for at in range(len(rows)):
        slot = state & (WHOLE - np.uint64(1))
        row = rows[at] = slot < share
        width, start = np.where(row, share, WHOLE - share), np.where(row, np.uint64(0), share)
        state = width * (state >> np.uint64(PRECISION)) + slot - start
        empty = state < LOW
        count = int(np.count_nonzero(empty))
        if used + count > len(words):
            raise ValueError("the code is too short")
        state[empty] = state[empty] << np.uint64(16) | words[used : used + count]
        used += count
    bits = rows.reshape(-1)[:n]
    if used != len(words) or np.count_nonzero(bits) != ones or np.any(state != LOW):
        raise ValueError("the code is of other bits")
    return bits


def information(n: int, ones: float) -> float:
    """Return n H(ones / n), the bits of information in n bits of which so many are 1."""
    shares = [count / n for count in (ones, n - ones) if count]
    return -n * sum(share * math.log2(share) for share in shares)


def _lanes(n: int, ones: int) -> int:
    return min(MOST_LANES, max(1, n // MOST_ROWS, int(information(n, ones)) // BITS_A_LANE))


def _share(n: int, ones: int) -> np.uint64:
    """Return the probability of a one, in units of 2**-PRECISION; never 0 or 1, since both bits occur."""
    return np.uint64(min(max(round(ones / n * int(WHOLE)), 1), int(WHOLE) - 1))
