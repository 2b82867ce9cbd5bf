"""Names of settings and values in figures and tables."""

import pytest

from hidden_subnet.config.registries import OWN, REGISTRIES, load_parts
from hidden_subnet.config.settings import Structure
from hidden_subnet.report.names import VALUES, axis_name, joined, value_name

load_parts()


@pytest.mark.parametrize("kind", ["method", "model", "data", "init", "pruning"])
def test_every_part_of_ours_has_a_name(kind: str) -> None:
    named_by_the_user = {"model": {"torchvision", "timm", "custom"}, "data": {"torchvision", "npz"}}.get(kind, set())
    ours = {name for name in REGISTRIES[kind] if (kind, name) not in OWN}
    assert VALUES[kind].keys() == ours - named_by_the_user
    assert len({*VALUES[kind].values()}) == len(VALUES[kind])


def test_every_structure_has_a_name() -> None:
    assert [*VALUES["structure"]] == [each.name for each in Structure]


@pytest.mark.parametrize(
    ("setting", "value", "name"),
    [
        ("method", "biprop", "biprop (MPT-1/32)"),
        ("method", "my_method", "my method"),
        ("model", "resnet20", "ResNet-20"),
        ("model", "wide_resnet50_2", "Wide ResNet-50-2"),
        ("width", 0.5, "half width"),
        ("lr", 0.1, "learning rate 0.1"),
        ("m", 4, "M 4"),
        ("prune_rate", None, ""),
    ],
)
def test_a_value_as_a_reader_expects_it(setting: str, value: object, name: str) -> None:
    assert value_name(setting, value) == name


def test_names_of_an_axis_and_of_several_settings() -> None:
    assert axis_name("width") == "width (multiplies all hidden channels)"
    assert axis_name("my_setting") == "my setting"
    assert joined({"method": "signed", "pruning": "erk", "prune_rate": None}) == "signed supermask, ERK"
