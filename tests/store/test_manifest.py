"""The manifest of a sweep, written by its launcher and read by every worker."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hidden_subnet.config.convert import as_dict
from hidden_subnet.config.identity import folder_name, projection
from hidden_subnet.config.settings import Config
from hidden_subnet.store import sweeps
from hidden_subnet.store.liveness import LivenessProbe
from hidden_subnet.sweep.jobs import jobs_of, listed_jobs
from hidden_subnet.sweep.progress import labels

COMMAND = {"command": "launch.py -m seed=0,1", "directory": "/somewhere", "git": None}


@pytest.fixture
def configs(compose: Callable[..., Config], tmp_path: Path) -> list[Config]:
    return [compose("data=synthetic", f"seed={seed}", f"out={tmp_path / 'runs'}") for seed in (0, 1)]


def test_what_is_written_is_read(configs: list[Config], tmp_path: Path) -> None:
    sweep = sweeps.write(sweeps.plan(configs, "seed"), COMMAND)
    again = sweeps.read(sweep.folder)
    assert again.folder == sweep.folder
    assert again.folder.parent == tmp_path / "runs" / sweeps.SWEEPS
    assert again.name.startswith("seed-")
    assert again.provenance == COMMAND
    assert again.launched == (sweep.folder / sweeps.MANIFEST).stat().st_mtime
    assert again.runs == [tmp_path / "runs" / folder_name(config) for config in configs]
    assert again.projections == [projection(config) for config in configs]
    for mine, read, settings in zip(configs, again.configs, again.settings, strict=True):
        mine.data.root = str(Path(mine.data.root).absolute())  # so that it means the same in any directory
        assert as_dict(read) == settings == as_dict(mine)


def test_name_follows_from_the_runs_whatever_their_order(configs: list[Config]) -> None:
    assert sweeps.plan(configs, "seed").folder.name == sweeps.plan(configs[::-1], "seed").folder.name
    assert sweeps.plan(configs, "seed").folder.name != sweeps.plan(configs[:1], "seed").folder.name
    assert len(sweeps.plan(configs, "x" * 300).folder.name) == 40 + 1 + 8


def test_launching_again_takes_back_the_stop(configs: list[Config]) -> None:
    sweep = sweeps.write(sweeps.plan(configs, "seed"), COMMAND)
    assert sweeps.stop_reason(sweep.folder) is None
    sweeps.stop(sweep.folder, "first reason")
    sweeps.stop(sweep.folder, "second reason")
    assert sweeps.stop_reason(sweep.folder) == "first reason"
    (sweep.folder / sweeps.STOP).write_text("")
    assert sweeps.stop_reason(sweep.folder) == "stopped"
    assert sweeps.stop_reason(sweeps.write(sweeps.plan(configs, "seed"), COMMAND).folder) is None


def test_moved_folder_takes_its_runs_along(configs: list[Config], tmp_path: Path) -> None:
    sweep = sweeps.write(sweeps.plan(configs, "seed"), COMMAND)
    shutil.move(tmp_path / "runs", tmp_path / "elsewhere")
    moved = sweeps.read(tmp_path / "elsewhere" / sweeps.SWEEPS / sweep.name)
    assert {Path(config.out) for config in moved.configs} == {tmp_path / "elsewhere"}
    assert moved.runs[0].parent == tmp_path / "elsewhere"


def broken(content: dict[str, Any], **settings: Any) -> str:
    first, *others = content["runs"]
    changed = {**first, "settings": {**first["settings"], **settings}}
    return json.dumps({**content, "runs": [changed, *others]})


def named(content: dict[str, Any], name: Any) -> str:
    first, *others = content["runs"]
    return json.dumps({**content, "runs": [{**first, "name": name}, *others]})


DAMAGED = r"manifest.json is damaged .*; run the command that launched the sweep again"


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
        lambda content: json.dumps({**content, "runs": [{"name": "a", "settings": 1}]}),
        lambda content: json.dumps({**content, "runs": [{"name": "a", "settings": {}, "projection": 1}]}),
        *(
            lambda content, name=name: named(content, name)
            for name in (
                "",
                ".",
                "..",
                "../x-0123456789ab",
                "/etc",
                "a/b-0123456789ab",
                ".sweeps",
                "figures",
                "a\0",
                1,
                None,
            )
        ),
        lambda content: "!!python/object/apply:os.system ['true']",
    ],
)
def test_damaged_manifest_is_refused(damage: Callable[[dict[str, Any]], str], configs: list[Config]) -> None:
    sweep = sweeps.write(sweeps.plan(configs, "seed"), COMMAND)
    path = sweep.folder / sweeps.MANIFEST
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(ValueError, match=DAMAGED):
        sweeps.read(sweep.folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"unknown": 1},
        {"seed": 9},
        {"seed": {"../../x": 1}},
        {"seed": "../../x"},
        {"model": {"name": "resnet"}},
        {"method": "../../x"},
    ],
)
def test_settings_of_another_run_are_seen_and_not_executed(settings: dict[str, Any], configs: list[Config]) -> None:
    sweep = sweeps.write(sweeps.plan(configs, "seed"), COMMAND)
    path = sweep.folder / sweeps.MANIFEST
    path.write_text(broken(json.loads(path.read_text()), **settings))
    sweep = sweeps.read(sweep.folder)
    jobs = listed_jobs(sweep)  # as status does
    assert [job.epochs for job in jobs] == [config.train.epochs for config in configs]
    assert labels(jobs).header == "seed"
    with pytest.raises(ValueError, match=DAMAGED):
        jobs_of(sweep, LivenessProbe(sweep.out))  # as a worker does


def test_manifest_of_an_older_version_has_no_projections(configs: list[Config]) -> None:
    sweep = sweeps.write(sweeps.plan(configs, "seed"), COMMAND)
    path = sweep.folder / sweeps.MANIFEST
    content = json.loads(path.read_text())
    for run in content["runs"]:
        del run["projection"]
    path.write_text(json.dumps(content))
    jobs = listed_jobs(sweeps.read(sweep.folder))
    assert [job.recorded for job in jobs] == [None, None]
    assert [job.projection for job in jobs] == [projection(config) for config in configs]
    assert labels(jobs) == labels(listed_jobs(sweep))


def test_the_sweep_launched_last_is_found_first(configs: list[Config], tmp_path: Path) -> None:
    one, other = (
        sweeps.write(sweeps.plan(configs, "one"), COMMAND),
        sweeps.write(sweeps.plan(configs[:1], "other"), COMMAND),
    )
    os.utime(one.folder / sweeps.MANIFEST, (1, 1))
    assert sweeps.find(tmp_path / "runs") == [other.folder, one.folder]
    os.utime(other.folder / sweeps.MANIFEST, (0, 0))
    assert sweeps.find(tmp_path / "runs") == [one.folder, other.folder]
    assert sweeps.find(tmp_path / "nothing") == []
