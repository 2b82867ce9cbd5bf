"""Find and study the subnetworks hidden in randomly weighted neural networks."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hidden_subnet.loading import load, test_images

__all__ = ["load", "test_images"]


def __getattr__(name: str) -> Any:
    # Lazily: `python launch.py --help` imports this package and must not wait for torch.
    if name == "load":
        from hidden_subnet.loading import load

        return load
    if name == "test_images":
        from hidden_subnet.loading import test_images

        return test_images
    raise AttributeError(f"module 'hidden_subnet' has no attribute {name!r}")
