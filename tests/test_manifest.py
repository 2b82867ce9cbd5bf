"""The manifest: what a sweep is, written by who launches it and read by every worker."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hidden_subnet.config import as_dict
from hidden_subnet.identity import folder_name
from hidden_subnet.settings import Config
from hidden_subnet.sweep import manifest

COMMAND = {"command": "launch.py -m seed=0,1", "directory": "/somewhere", "git": None}


@pytest.fixture
def configs(compose: Callable[..., Config], tmp_path: Path) -> list[Config]:
    return [compose("data=synthetic", f"seed={seed}", f"out={tmp_path / 'runs'}") for seed in (0, 1)]


def test_what_is_written_is_read(configs: list[Config], tmp_path: Path) -> None:
    sweep = manifest.write(configs, "seed", COMMAND)
    again = manifest.read(sweep.folder)
    assert again.folder == sweep.folder
    assert again.folder.parent == tmp_path / "runs" / manifest.SWEEPS
    assert again.name.startswith("seed-")
    assert again.provenance == COMMAND
    assert again.launched == (sweep.folder / manifest.MANIFEST).stat().st_mtime
    assert again.runs == [tmp_path / "runs" / folder_name(config) for config in configs]
    for mine, read in zip(configs, again.configs, strict=True):
        mine.data.root = str(Path(mine.data.root).absolute())  # the same from any directory
        assert as_dict(read) == as_dict(mine)


def test_name_follows_from_the_runs_whatever_their_order(configs: list[Config]) -> None:
    assert manifest.sweep_name("seed", configs) == manifest.sweep_name("seed", configs[::-1])
    assert manifest.sweep_name("seed", configs) != manifest.sweep_name("seed", configs[:1])
    assert len(manifest.sweep_name("x" * 300, configs)) == 40 + 1 + 8


def test_launching_again_takes_back_the_stop(configs: list[Config]) -> None:
    sweep = manifest.write(configs, "seed", COMMAND)
    assert manifest.stop_reason(sweep.folder) is None
    manifest.stop(sweep.folder, "first reason")
    manifest.stop(sweep.folder, "second reason")
    assert manifest.stop_reason(sweep.folder) == "first reason"
    (sweep.folder / manifest.STOP).write_text("")
    assert manifest.stop_reason(sweep.folder) == "stopped"
    assert manifest.stop_reason(manifest.write(configs, "seed", COMMAND).folder) is None


def test_moved_folder_takes_its_runs_along(configs: list[Config], tmp_path: Path) -> None:
    sweep = manifest.write(configs, "seed", COMMAND)
    shutil.move(tmp_path / "runs", tmp_path / "elsewhere")
    moved = manifest.read(tmp_path / "elsewhere" / manifest.SWEEPS / sweep.name)
    assert {Path(config.out) for config in moved.configs} == {tmp_path / "elsewhere"}
    assert moved.runs[0].parent == tmp_path / "elsewhere"


def broken(content: dict[str, Any], **settings: Any) -> str:
    first, *others = content["runs"]
    changed = {**first, "settings": {**first["settings"], **settings}}
    return json.dumps({**content, "runs": [changed, *others]})


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: "",
        lambda content: "[]",
        lambda content: "null",
        lambda content: json.dumps(content)[:-20],
        lambda content: json.dumps({**content, "runs": []}),
        lambda content: json.dumps({**content, "runs": [1]}),
        lambda content: json.dumps({**content, "runs": [{}]}),
        lambda content: broken(content, unknown=1),
        lambda content: broken(content, seed=9),
        lambda content: broken(content, seed={"../../x": 1}),
        lambda content: broken(content, seed="../../x"),
        lambda content: broken(content, model={"name": "resnet"}),
        lambda content: broken(content, method="../../x"),
        lambda content: "!!python/object/apply:os.system ['true']",
    ],
)
def test_damaged_manifest_is_named(damage: Callable[[dict[str, Any]], str], configs: list[Config]) -> None:
    sweep = manifest.write(configs, "seed", COMMAND)
    path = sweep.folder / manifest.MANIFEST
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(ValueError, match=r"manifest.json is damaged .*; the command that launched the sweep"):
        manifest.read(sweep.folder)


def test_the_sweep_launched_last_is_found_first(configs: list[Config], tmp_path: Path) -> None:
    one, other = manifest.write(configs, "one", COMMAND), manifest.write(configs[:1], "other", COMMAND)
    os.utime(one.folder / manifest.MANIFEST, (1, 1))
    assert manifest.find(tmp_path / "runs") == [other.folder, one.folder]
    os.utime(other.folder / manifest.MANIFEST, (0, 0))
    assert manifest.find(tmp_path / "runs") == [one.folder, other.folder]
    assert manifest.find(tmp_path / "nothing") == []
