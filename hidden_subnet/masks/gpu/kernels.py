"""The Triton kernels of select.py, which describes the algorithm; imported only where they run.

Each program works on one block of one segment (the scores of one layer). `blocks` is int32 [programs, 2]: for each
block its segment, and the index in the segment at which it starts. The kernels find the tensors of the segments in
int64 tables of addresses, each a multiple of 16. All counts are int32, added by atomics: sums of integers do not depend
on the order.
"""

import triton
import triton.language as tl


@triton.jit
def _place(blocks, sizes, BLOCK: tl.constexpr, PARTS: tl.constexpr):
    """Return this program's segment, its indices, the segment's size, and whether all indices are below that size."""
    SIZE: tl.constexpr = BLOCK // PARTS
    block = tl.program_id(0) // PARTS
    segment = tl.load(blocks + 2 * block)
    start = tl.multiple_of(tl.load(blocks + 2 * block + 1), BLOCK) + tl.program_id(0) % PARTS * SIZE
    n = tl.load(sizes + segment)
    return segment, start + tl.arange(0, SIZE), n, start + SIZE <= n


@triton.jit
def _pointer(addresses, segment, DTYPE: tl.constexpr):
    # Without this hint Triton loads word by word through a pointer that it read from memory.
    return tl.multiple_of(tl.load(addresses + segment).to(tl.pointer_type(DTYPE)), 16)


@triton.jit
def _read(pointer, offsets, n, whole):
    # Triton cannot load four words at once under a mask whose bound is only known at run time: whole blocks need none.
    return tl.load(pointer + offsets) if whole else tl.load(pointer + offsets, mask=offsets < n, other=0)


@triton.jit
def _write(pointer, offsets, values, n, whole):
    if whole:
        tl.store(pointer + offsets, values)
    else:
        tl.store(pointer + offsets, values, mask=offsets < n)


@triton.jit
def _keys(bits):
    """Return integers in the order of |score|, from its bits; every NaN gets the same key, above that of infinity."""
    return tl.minimum(bits & 0x7FFFFFFF, 0x7F800001)


@triton.jit
def _transposed(index, inner, outer):
    """Return the row-major index in (..., inner, outer) of the element that has `index` in (..., outer, inner).

    It converts indices between row-major and channels_last order.
    """
    within = index % (inner * outer)
    return index - within + within % inner * outer + within // inner


@triton.jit
def count_digits(scores, sizes, blocks, thresholds, counts, HIGH: tl.constexpr, LOW: tl.constexpr, BLOCK: tl.constexpr):
    """Add to counts [segments, bins] the histogram of bits LOW to HIGH - 1 of the keys.

    It counts only keys that agree with the threshold in all higher bits, those from HIGH on.
    """
    BINS: tl.constexpr = 1 << (HIGH - LOW)
    segment, offsets, n, whole = _place(blocks, sizes, BLOCK, 1)
    keys = _keys(_read(_pointer(scores, segment, tl.int32), offsets, n, whole))
    candidates = (offsets < n) & (keys >> HIGH == tl.load(thresholds + segment) >> HIGH)
    found = tl.histogram((keys >> LOW) & (BINS - 1), BINS, mask=candidates)
    tl.atomic_add(counts + segment * BINS + tl.arange(0, BINS), found, mask=found > 0, sem="relaxed")


@triton.jit
def refine(counts, ranks, thresholds, wanted, HIGH: tl.constexpr, LOW: tl.constexpr):
    """Write bits LOW to HIGH - 1 of each segment's threshold; one program per segment.

    The threshold is the ranks[segment]-th largest key that `count_digits` counted. `wanted` receives its rank among the
    keys that share all bits known so far. After the last pass these keys equal the threshold: `wanted` is then the
    number of them that are kept, or 0 where all are.
    """
    BINS: tl.constexpr = 1 << (HIGH - LOW)
    segment = tl.program_id(0)
    bins = tl.arange(0, BINS)
    found = tl.load(counts + segment * BINS + bins)
    rank = tl.load(ranks + segment)
    from_here_up = tl.cumsum(found, 0, reverse=True)
    here = (from_here_up >= rank) & (from_here_up - found < rank)
    digit = tl.sum(tl.where(here, bins, 0), 0)
    rank -= tl.sum(tl.where(here, from_here_up - found, 0), 0)
    if LOW == 0:
        rank = tl.where(rank == tl.sum(tl.where(here, found, 0), 0), 0, rank)
    tl.store(thresholds + segment, tl.load(thresholds + segment) | (digit << LOW))
    tl.store(wanted + segment, rank)


@triton.jit
def _equal(scores, thresholds, segment, logical, n, layouts):
    """Return a mask over the logical (row-major) indices of a block: True where |score| equals the threshold."""
    channels, positions = tl.load(layouts + 2 * segment), tl.load(layouts + 2 * segment + 1)
    offsets = _transposed(logical, positions, channels)
    bits = tl.load(_pointer(scores, segment, tl.int32) + offsets, mask=logical < n, other=0)
    return (logical < n) & (_keys(bits) == tl.load(thresholds + segment))


@triton.jit
def count_equal(scores, sizes, layouts, blocks, thresholds, wanted, equals, BLOCK: tl.constexpr):
    """Count the weights of each block whose |score| equals the threshold, where only some of them are kept."""
    segment, logical, n, _ = _place(blocks, sizes, BLOCK, 1)
    if tl.load(wanted + segment) > 0:
        equal = _equal(scores, thresholds, segment, logical, n, layouts)
        tl.store(equals + tl.program_id(0), tl.sum(equal.to(tl.int32), 0))


@triton.jit
def cut_equal(
    scores, sizes, layouts, blocks, ends, thresholds, wanted, equals, cuts, BLOCK: tl.constexpr, CHUNK: tl.constexpr
):
    """Find the cut, the logical index from which on equal ones are kept; the block that contains it writes it."""
    segment, logical, n, _ = _place(blocks, sizes, BLOCK, 1)
    kept = tl.load(wanted + segment)
    if kept > 0:
        mine = tl.load(equals + tl.program_id(0))
        end = tl.load(ends + segment)
        later = 0
        for first in range(tl.program_id(0) + 1, end, CHUNK):
            following = first + tl.arange(0, CHUNK)
            later += tl.sum(tl.load(equals + following, mask=following < end, other=0), 0)
        if (later < kept) & (kept <= later + mine):
            equal = _equal(scores, thresholds, segment, logical, n, layouts)
            from_the_end = later + tl.cumsum(equal.to(tl.int32), 0, reverse=True)
            tl.store(cuts + segment, tl.sum(tl.where(equal & (from_the_end == kept), logical, 0), 0))


@triton.jit
def apply(
    scores,
    weights,
    outputs,
    sizes,
    layouts,
    blocks,
    thresholds,
    cuts,
    DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Write the masked weights, or with DTYPE int8 the mask, in storage order.

    Each block is divided among PARTS programs: with two tensors of a whole block in its registers, a multiprocessor
    would have room for one program only.
    """
    segment, offsets, n, whole = _place(blocks, sizes, BLOCK, PARTS)
    keys = _keys(_read(_pointer(scores, segment, tl.int32), offsets, n, whole))
    threshold, cut = tl.load(thresholds + segment), tl.load(cuts + segment)
    keep = keys >= threshold
    if cut > 0:
        channels, positions = tl.load(layouts + 2 * segment), tl.load(layouts + 2 * segment + 1)
        keep = keep & ((keys > threshold) | (_transposed(offsets, channels, positions) >= cut))
    if DTYPE != tl.int8:  # noqa: SIM300
        values = tl.where(keep, _read(_pointer(weights, segment, tl.float32), offsets, n, whole), 0.0).to(DTYPE)
    else:
        values = keep.to(tl.int8)
    _write(_pointer(outputs, segment, DTYPE), offsets, values, n, whole)
