"""Hostile files, and names that nobody thought of: they work, or are refused in one line; nothing else happens."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.forked_launch import Launch
from helpers.real_commands import (
    SMALL,
    command,
    figure,
    folders,
    is_one_line,
    launch,
    runs_of_sweep,
    surroundings,
)

from hidden_subnet.store import checkpoints, files

pytestmark = pytest.mark.slow


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def hostile_checkpoint(path: Path, bomb: Path) -> None:
    """As `checkpoints.save` writes it, digest and all."""
    state = {"trained": Bomb(bomb)}
    torch.save({**state, "sha256": checkpoints.digest(state)}, path)


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_f23_pickle_in_a_checkpoint(tmp_path: Path) -> None:
    bomb = tmp_path / "exploded"
    pickle.loads(pickle.dumps(Bomb(bomb)))  # the control: it does explode
    assert bomb.exists()
    bomb.unlink()
    run = [*SMALL, "checkpoint.minutes=0"]
    env = surroundings({"do": "SIGKILL", "event": "open", "path": r"attempts/1/result\.json"})
    assert launch(tmp_path, *run, env=env).returncode < 0
    [folder] = folders(tmp_path)
    hostile_checkpoint(files.working(folder) / "checkpoints" / files.RESUME, bomb)
    said = launch(tmp_path, *run)
    assert said.returncode == 1
    assert is_one_line(said, "Weights only load failed"), said.stdout + said.stderr
    assert launch(tmp_path, *run, "force=true").returncode == 0
    hostile_checkpoint(folder / "checkpoints" / files.LAST, bomb)
    assert command(tmp_path, "export", str(folder)).returncode != 0
    effects = int(bomb.exists())
    figure(f"F23 pickle in a checkpoint: {effects} side effects in 2 loads, refused in a line")
    assert effects == 0


def test_f23_hostile_settings(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    outside = tmp_path / "a" / "b"
    outside.mkdir(parents=True)
    touched = tmp_path / "exploded"
    refused = [
        "+model._target_=os.mkdir", "+_target_=os.system", f"++train={{_target_:os.mkdir,path:{touched}}}",
        "model=../../x", "data=../../x", "sweep=../../x", "method=../../x", "method.name=../../x", "data.name=../../x",
    ]  # fmt: skip
    forked: Launch = request.getfixturevalue("launch")
    before = tree(tmp_path)
    lines = sum(is_one_line(forked(outside, *SMALL, override)) for override in refused)
    effects = len(tree(tmp_path) - before)
    said = launch(outside, *SMALL, "tracker=wandb", "tracker.mode=offline", "tracker.project=../../x")
    effects += len([path for path in tree(tmp_path) - before if outside / "runs" not in (path, *path.parents)])
    assert said.returncode == 0 or is_one_line(said), said.stdout + said.stderr
    figure(f"F23 hostile settings: refused in one line {lines}/{len(refused)}, side effects {effects}")
    assert lines == len(refused)
    assert effects == 0


def test_f23_hostile_files(tmp_path: Path) -> None:
    touched = tmp_path / "exploded"
    payload = f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.PosixPath ['{touched}']]\n"
    assert launch(tmp_path, "-m", "prune_rate=0.2,0.4", *SMALL).returncode == 0
    sweep, (first, second) = runs_of_sweep(tmp_path), folders(tmp_path)
    told = []
    # A config.yaml that would run code, where a run starts, in a sweep, and where all runs are read.
    settings = (first / files.CONFIG).read_text()
    (first / files.RESULT).unlink()
    (first / files.CONFIG).write_text(settings + f"x: {payload}")
    told.append(is_one_line(launch(tmp_path, "prune_rate=0.2", *SMALL), "is damaged"))
    swept = launch(tmp_path, "-m", "prune_rate=0.2,0.4", *SMALL)
    told.append(swept.returncode == 1 and "is damaged" in swept.stdout and "Traceback" not in swept.stderr)
    assert command(tmp_path, "results", "runs").returncode == 0
    # A manifest.
    manifest = (sweep / "manifest.json").read_text()
    for content in (payload, manifest.replace('"seed": 0', '"seed": {"../../x": 1}'), "[]", '{"runs": [{}]}'):
        (sweep / "manifest.json").write_text(content)
        told.append(is_one_line(command(tmp_path, "worker", str(sweep))))
    # A run's folder that leads elsewhere.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(second)
    second.symlink_to(elsewhere)
    told.append(is_one_line(launch(tmp_path, "prune_rate=0.4", *SMALL), "symbolic link"))
    swept = launch(tmp_path, "-m", "prune_rate=0.4,0.6", *SMALL)
    told.append(swept.returncode == 1 and "symbolic link" in swept.stdout and "Traceback" not in swept.stderr)
    effects = int(touched.exists()) + len(list(elsewhere.iterdir())) + int((tmp_path / "x").exists())
    figure(
        f"F23 hostile config.yaml, manifest, symlink: refused in a line {sum(told)}/{len(told)}, side effects {effects}"
    )
    assert all(told), told
    assert effects == 0


ODD = {
    "300 characters": "x" * 300,
    "unicode": "läufe-走る-🧪",
    "spaces": "my runs of today",
    "a newline": "my\nruns",
    "quotes": 'it\'s "this"',
}


def test_f25_odd_names(tmp_path: Path) -> None:
    works, refused, wrong = [], [], []
    for what, name in ODD.items():
        quoted = "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"
        for key, more in (("out", []), ("tracker.tags", ["tracker=wandb", "tracker.mode=offline"])):
            cwd = tmp_path / f"{len(works) + len(refused) + len(wrong)}"
            value = quoted if key == "out" else f"[{quoted}]"
            said = launch(cwd, f"{key}={value}", *SMALL, *more)
            if said.returncode == 0 and [*cwd.rglob(files.RESULT)]:
                works.append(f"{key} {what}")
            elif is_one_line(said):
                refused.append(f"{key} {what}")
            else:
                wrong.append((key, what, said.stdout, said.stderr))
    figure(f"F25: works: {', '.join(works)}; refused in one line: {', '.join(refused) or 'none'}; else {len(wrong)}")
    assert not wrong
