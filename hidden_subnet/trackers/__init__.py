from typing import Any

Tracker = Any


def open_trackers(*a: Any) -> list[Any]:
    return []
