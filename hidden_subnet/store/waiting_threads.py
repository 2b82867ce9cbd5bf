"""How long threads that wait for each other spin, which their library reads where it is loaded, with torch."""

from collections.abc import MutableMapping

BOUNDS = {"GOMP_SPINCOUNT": "100000", "KMP_BLOCKTIME": "10"}
"""For GNU's library, which torch's wheels for Linux bring, and in ms for those of Intel and LLVM.

By default they spin three times as long, and 200 ms. On an idle machine a shorter time costs steps, and beside other
programs a spinning thread keeps the core that the thread that it waits for needs (docs/performance.md).
"""
CHOICES = (*BOUNDS, "OMP_WAIT_POLICY", "KMP_LIBRARY")
"""Variables by which a user has chosen how threads wait."""


def bound_spinning(environment: MutableMapping[str, str]) -> None:
    """Bound the spinning of threads in `environment`, unless the user has chosen how they wait.

    It has an effect on processes that load torch afterwards. Results do not depend on it.
    """
    if not environment.keys() & set(CHOICES):
        environment.update(BOUNDS)
