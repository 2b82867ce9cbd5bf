"""Masks: exact top-K selection, its allocation over the layers, masked layers and their state."""

from hidden_subnet.masks import allocation
from hidden_subnet.masks.gpu import allocation as gpu_allocation

__all__ = ["allocation", "gpu_allocation"]
"""Importing these files fills registries.ALLOCATIONS."""
