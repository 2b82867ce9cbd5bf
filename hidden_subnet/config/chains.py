"""Chains: runs that start from another run. A run's parent follows from its settings, so all ids are known before."""

from collections.abc import Sequence
from dataclasses import dataclass

from hidden_subnet.config.identity import folder_name, name_of, projections
from hidden_subnet.config.parents import parent_of
from hidden_subnet.config.settings import Config


def ancestors(config: Config) -> list[Config]:
    """Return the runs of a chain before this one, the first one first."""
    found: list[Config] = []
    while (parent := parent_of(found[-1] if found else config)) is not None:
        found.append(parent)
    return found[::-1]


@dataclass(frozen=True)
class Link:
    """A run among those of a sweep."""

    config: Config
    parent: str | None = None
    """Name of the folder of its parent."""
    depth: int = 0
    """Number of runs before it in its chain."""


def chained(configs: Sequence[Config]) -> list[Link]:
    """Return the runs and those from which they start, each once, as a tree is written: behind its parent.

    Runs without a parent keep their order.
    """
    if all(parent_of(config) is None for config in configs):
        return [Link(config) for config in configs]
    names = [name_of(config, what) for config, what in zip(configs, projections(configs), strict=True)]
    found = dict(zip(names, configs, strict=True))
    parents: dict[str, str | None] = {}
    children: dict[str | None, list[str]] = {}
    for name in names:
        new: list[str] = []
        at: str | None = name
        while at is not None and at not in parents:
            new.append(at)
            parent = parent_of(found[at])
            parents[at] = None if parent is None else folder_name(parent)
            if parent is not None:
                found.setdefault(folder_name(parent), parent)
            at = parents[at]
        for each in reversed(new):
            children.setdefault(parents[each], []).append(each)
    links: list[Link] = []
    stack = [(name, 0) for name in reversed(children[None])]
    while stack:
        name, depth = stack.pop()
        links.append(Link(found[name], parents[name], depth))
        stack += [(each, depth + 1) for each in reversed(children.get(name, []))]
    return links
