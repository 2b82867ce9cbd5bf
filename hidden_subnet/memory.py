"""How the process gets its memory from the system."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let glibc's malloc keep large blocks for the next step instead of returning them; false where it is not glibc.

    By default every activation of more than 32 MB is mapped anew in every step and its pages are faulted in one by
    one, which takes 20 to 30 % of a step of conv2 or conv4 on a CPU. Costs about 15 % more memory, changes no number.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
