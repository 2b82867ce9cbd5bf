"""Combinations of a sweep that are the same run, and why: settings that differ but do not matter to the method."""

from collections.abc import Iterable, Sequence

from hidden_subnet.config.convert import as_dict
from hidden_subnet.config.differences import flat
from hidden_subnet.config.settings import Config


def duplicate_runs(groups: Iterable[Sequence[Config]]) -> list[str]:
    """Return a line for each method and set of settings: "prune_rate does not matter to method=dense: 9 combinations
    are 3 runs".

    groups: for each run, the configs of all combinations that give this run.
    """
    found: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for configs in groups:
        if len(configs) > 1:
            flats = [flat(as_dict(config)) for config in configs]
            keys = dict.fromkeys(key for each in flats for key in each)
            differing = [key for key in keys if len({each.get(key) for each in flats}) > 1]
            # tracker.to.<name> follows from tracker=<name>, which is what the user typed.
            differ = tuple(dict.fromkeys("tracker" if key.startswith("tracker.to.") else key for key in differing))
            found.setdefault((configs[0].method.name, differ), []).append(len(configs))
    return [_line(method, differ, counts) for (method, differ), counts in found.items()]


def _line(method: str, differ: Sequence[str], counts: Sequence[int]) -> str:
    are = f"{sum(counts)} combinations are {len(counts)} run{'s' * (len(counts) > 1)}"
    if not differ:
        return f"method={method}: {are}; the others are the same settings, written differently"
    return f"{', '.join(differ)} {'do' if len(differ) > 1 else 'does'} not matter to method={method}: {are}"
