"""The run from which another one starts: that of its method's chain, or the search that mask=<method> names."""

from dataclasses import replace

from hidden_subnet.config.registries import METHODS, method_traits
from hidden_subnet.config.settings import Config


def parent_of(config: Config) -> Config | None:
    """Return the config of the run from which this one starts, which force=true does not run again; None for most."""
    parent = search_of(config) or method_traits(config).parent(config)
    return None if parent is None else replace(parent, force=False)


def names_method(config: Config) -> bool:
    """Return whether mask= names a method, and not a run or a file, of which the config has path and digest."""
    return config.mask is not None and config.mask_sha256 is None and "/" not in config.mask


def search_of(config: Config) -> Config | None:
    """Return the run that finds the mask where mask= names its method: the same one by that method; else None.

    It has the method's own defaults, also those of `train` (mask_train), and the own parts of the run.
    """
    if not names_method(config) or config.mask not in METHODS:
        return None
    method, train = METHODS[config.mask].settings(), replace(config.train, **config.mask_train)
    return replace(config, method=method, train=train, mask=None, mask_train={})
