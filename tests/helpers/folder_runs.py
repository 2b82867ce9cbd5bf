"""Small runs on folders of images."""

from collections.abc import Callable
from pathlib import Path

from omegaconf import OmegaConf

from hidden_subnet.config.settings import Config, Data
from hydra_plugins.hidden_subnet.compose import to_checked_config

Compose = Callable[..., Config]
SMALL_PARTS = ["model=fc", "tracker=none"]
SMALL_SETTINGS = ["data.size=12", "data.crop=2", "data.validation=0.25", "model.width=0.1"]
SMALL = [*SMALL_PARTS, *SMALL_SETTINGS]


def small(compose: Compose, root: Path, *overrides: str) -> Config:
    """data=tiny_imagenet with these settings, all from `root`; composed once, since Hydra takes 0.1 s each time."""
    groups = [each for each in overrides if each.split("=")[0] in ("method", "model")]
    base = compose("data=digits", *SMALL_PARTS, *groups)
    base.data = Data(name="tiny_imagenet", flip=True, size=64, crop=4)  # conf/data/tiny_imagenet.yaml
    config = OmegaConf.structured(base)
    settings = [*SMALL_SETTINGS, "train.batch_size=5", "train.epochs=2", *overrides]
    config.merge_with_dotlist([f"data.root={root}", *(each for each in settings if each not in groups)])
    return to_checked_config(config)
