"""The settings of a config by their dotted names."""

from typing import Any


def leaves(settings: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted name of each value in nested `settings`: train.lr, data.found.classes."""
    found = []
    for key, value in settings.items():
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [f"{prefix}{key}"]
    return found
