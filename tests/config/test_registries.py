"""The registries refuse a taken name, know every option of conf/, and unknown names are refused in one line."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hidden_subnet.cli.help import options
from hidden_subnet.config.checks import check, problems
from hidden_subnet.config.registries import (
    ALLOCATIONS,
    DATA,
    INITS,
    METHODS,
    MODELS,
    OPTIMIZERS,
    SCHEDULES,
    TRACKERS,
    import_files,
    info_of,
    load_parts,
    model_entry,
    register,
)
from hidden_subnet.config.settings import (
    Config,
    Data,
    FoundImages,
    Init,
    Library,
    MethodSettings,
    Model,
    Pruning,
    Tracker,
    Train,
)
from hidden_subnet.errors import ConfigError, DataError
from hidden_subnet.trackers import check_trackers

load_parts()

ROOT = Path(__file__).parents[2]


def test_a_taken_name_is_refused() -> None:
    registry: dict[str, int] = {}
    assert register(registry, "one")(1) == 1
    with pytest.raises(ValueError, match="one"):
        register(registry, "one")(2)
    assert registry == {"one": 1}
    for taken, name in [(METHODS, "edge_popup"), (MODELS, "conv2"), (DATA, "digits"), (INITS, "standard")]:
        with pytest.raises(ValueError, match=name):
            register(taken, name)(object())  # type: ignore[arg-type]


def test_loading_the_parts_again_changes_nothing() -> None:
    before = list(METHODS)
    load_parts()
    assert list(METHODS) == before


def test_a_new_file_in_a_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "new_parts"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from hidden_subnet.config.registries import import_files\nPARTS = {}\nimport_files(__name__, __path__)\n"
    )
    for name in ("one", "two"):
        (folder / f"{name}.py").write_text(
            "import new_parts\nfrom hidden_subnet.config.registries import register\n"
            f"register(new_parts.PARTS, {name!r})({name!r})\n"
        )
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("new_parts", "new_parts.one", "new_parts.two"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    import new_parts  # type: ignore[import-not-found]

    assert new_parts.PARTS == {"one": "one", "two": "two"}
    import_files("new_parts", new_parts.__path__)
    assert new_parts.PARTS == {"one": "one", "two": "two"}


# conf/ and the registries

GROUPS: dict[str, Any] = {
    "model": MODELS, "init": INITS, "data": DATA, "method": METHODS, "pruning": ALLOCATIONS,
}  # fmt: skip


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_of_a_group_is_registered_and_every_part_is_an_option(group: str) -> None:
    assert options(ROOT, group).keys() == GROUPS[group].keys()


def test_every_tracker_is_an_option() -> None:
    assert options(ROOT, "tracker").keys() == TRACKERS.keys() | {"both", "none"}


def test_there_are_no_other_groups() -> None:
    """OPTIMIZERS and SCHEDULES are chosen by a setting of train."""
    assert {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()} == {*GROUPS, "tracker", "train"}
    assert {"sgd", "adam", "adamw"} < OPTIMIZERS.keys()
    assert SCHEDULES.keys() == {"cosine", "constant", "multistep"}


@pytest.mark.parametrize("name", METHODS)
def test_the_settings_of_a_method_have_its_name(name: str) -> None:
    method = METHODS[name]
    assert method.settings().name == name
    assert issubclass(method.settings, MethodSettings)
    assert method.trains in ("scores", "weights", "both", "nothing")
    assert method.masks or not method.has_prune_rate


# Names


def named(**parts: Any) -> Config:
    config = Config(
        model=Model(name="conv2"),
        init=Init(name="standard"),
        data=Data(name="digits"),
        pruning=Pruning(name="layerwise"),
        method=METHODS["edge_popup"].settings(),
    )
    return replace(config, **parts)


def test_the_config_of_these_tests_is_well() -> None:
    check(named())


@pytest.mark.parametrize(
    ("config", "begin", "near", "known"),
    [
        (named(model=Model(name="conv22")), "model.name=conv22: ", "conv2", MODELS.keys() - {"torchvision", "timm"}),
        (named(init=Init(name="standart")), "init.name=standart: ", "standard", INITS),
        (named(data=Data(name="mnsit")), "data.name=mnsit: ", "mnist", DATA),
        (named(pruning=Pruning(name="layerwize")), "pruning.name=layerwize: ", "layerwise", ALLOCATIONS),
        (named(method=MethodSettings(name="edge_popp")), "method.name=edge_popp: ", "edge_popup", METHODS),
        (named(train=Train(optimizer="sdg")), "train.optimizer=sdg: ", "sgd", OPTIMIZERS),
        (named(train=Train(schedule="cosinus")), "train.schedule=cosinus: ", "cosine", SCHEDULES),
    ],
    ids=["model", "init", "data", "pruning", "method", "optimizer", "schedule"],
)
def test_an_unknown_name_is_refused_with_the_choices_and_the_nearest(
    config: Config, begin: str, near: str, known: Any
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(config)
    line = str(caught.value)
    assert line.startswith(begin)
    assert "\n" not in line
    assert re.search(rf"did you mean: [\w.]+={near}$", line)
    assert all(name in line for name in known)


def test_a_name_that_is_near_to_none_is_refused_with_the_choices() -> None:
    [line] = problems(named(init=Init(name="xyz")))
    assert line.startswith("init.name=xyz: ")
    assert "did you mean" not in line
    assert all(name in line for name in INITS)


def test_every_unknown_name_has_a_line_and_no_other_rule_is_asked() -> None:
    lines = list(problems(named(init=Init(name="a"), data=Data(name="b"), prune_rate=7.0)))
    assert [line.partition(":")[0] for line in lines] == ["init.name=a", "data.name=b"]


def test_the_settings_of_another_method_are_refused() -> None:
    [line] = problems(named(method=METHODS["sampled"].settings(name="dense")))
    assert line.startswith("method.name=dense: ")
    assert "method=dense" in line


def test_an_unknown_tracker_is_refused_with_the_choices() -> None:
    check_trackers(named(tracker=Tracker(to={"wandb": True, "tensorboard": False})))
    with pytest.raises(ConfigError) as caught:
        check_trackers(named(tracker=Tracker(to={"wandbb": True})))
    assert "wandbb" in str(caught.value)
    assert all(name in str(caught.value) for name in TRACKERS)


# Entries


def test_the_entry_of_a_network() -> None:
    assert model_entry(Model(name="conv2")) is MODELS["conv2"]
    assert model_entry(Model(name="vit_b_16")) is None
    assert model_entry(Model(name="vit_b_16", library=Library.torchvision)) is MODELS["torchvision"]


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        (Data(name="digits"), (1, 8, 8)),
        (Data(name="digits", pad=2), (1, 12, 12)),
        (Data(name="digits", pad=2, size=16), (1, 16, 16)),
        (Data(name="cifar10"), (3, 32, 32)),
        (Data(name="imagenet", size=64, found=FoundImages(classes=3, train=9, test=6, digest="a")), (3, 64, 64)),
    ],
)
def test_the_images_as_a_network_gets_them(data: Data, shape: tuple[int, int, int]) -> None:
    assert info_of(data).shape == shape


def test_image_folders_have_the_counts_that_were_found() -> None:
    info = info_of(Data(name="imagenet", size=64, found=FoundImages(classes=3, train=9, test=6, digest="a")))
    assert (info.classes, info.train, info.test) == (3, 9, 6)
    with pytest.raises(DataError, match="data=imagenet"):
        info_of(Data(name="imagenet", size=64))
