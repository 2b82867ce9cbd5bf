"""Settings that go with any data set: which of them name a run, and choosing the set."""

from collections.abc import Callable
from typing import Any

import pytest

from hidden_subnet.config.identity import folder_name, projection
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError
from hydra_plugins.hidden_subnet.grid_sweeper import expand
from hydra_plugins.hidden_subnet.options import refuse_names

Compose = Callable[..., Config]


def test_a_setting_that_changes_nothing_is_no_part_of_a_run(compose: Compose) -> None:
    def name(*overrides: str) -> str:
        return folder_name(compose(*overrides))

    assert projection(compose())["data"] == {"name": "digits", "validation": 0.1, "crop": 0, "flip": False}
    assert name("data.fraction=1", "data.pad=0", "data.one_batch=false", "data.size=0") == name()
    assert name("data.one_batch=true", "data.crop=2") == name("data.one_batch=true", "data.flip=true")
    assert "crop" not in projection(compose("data.one_batch=true"))["data"]
    random = name("method=random")
    assert name("method=random", "data.fraction=0.5") == name("method=random", "data.one_batch=true") == random
    # The split's seed chooses the images of a fraction even where none are held out.
    for setting in ("data.fraction=0.5", "data.one_batch=true"):
        assert name("data.validation=0", setting, "seeds.split=1") != name("data.validation=0", setting)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ("data.name=cifar10", "type: data=cifar10"),
        ("-m seed=0,1 data.name=cifar10,mnist", "type: data=cifar10,mnist"),
        ("++init.name=standard", "type: init=standard"),
        ("model.name=conv4", "type: model=conv4"),
    ],
)
def test_the_name_alone_is_refused(arguments: str, word: str) -> None:
    with pytest.raises(ConfigError, match=r"chosen with its other settings") as caught:
        refuse_names(arguments.split())
    assert word in str(caught.value)


@pytest.mark.parametrize(
    "arguments", ["data=cifar10 model.width=2", "model=torchvision model.name=vit_b_16", "tracker.project=data.name=x"]
)
def test_other_names_are_settings(arguments: str) -> None:
    refuse_names(arguments.split())


def test_a_preset_gives_options_too() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    grid: dict[str, Any] = {"data.name": ["cifar10", "mnist"]}
    with pytest.raises(ConfigError, match=r"data\.name=cifar10: .* type: data=cifar10$"):
        expand(OverridesParser.create(), [], [grid])
