"""evaluate=: the record measured again, to the last bit; and checkpoints that are damaged, foreign or hostile."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from silence import QUIET

import hidden_subnet
from hidden_subnet import checkpoints, record
from hidden_subnet.__main__ import main
from hidden_subnet.check import ConfigError
from hidden_subnet.commands.evaluate import evaluate
from hidden_subnet.evaluation import measure, rebuilt
from hidden_subnet.execute import execute
from hidden_subnet.settings import Config, Device
from hydra_plugins.hidden_subnet.evaluating import evaluate_as_asked, refuse_in_sweep

Compose = Callable[..., Config]
ROOT = Path(__file__).parents[1]
TINY = ("data=synthetic", "model=fc", "model.width=0.1", "train.epochs=3", "tracker=none", "checkpoint.every=2")


@pytest.fixture(scope="module")
def made(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    known: dict[tuple[str, ...], Path] = {}

    def of(*overrides: str) -> Path:
        if overrides not in known:
            outcome = execute(compose(*TINY, *overrides, f"out={tmp_path_factory.mktemp('made')}"), QUIET)
            assert outcome.state == "done", outcome.message
            known[overrides] = outcome.folder
        return known[overrides]

    return of


@pytest.fixture
def folder(made: Callable[..., Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made(), tmp_path / "runs" / made().name))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("overrides", "measured"),
    [
        ((), ["first test", "first validation", "best test", "best validation", "last test", "last validation"]),
        (("method=dense",), ["first test", "first validation", "best test", "best validation", "last test",
                             "last validation"]),
        (("method=random",), ["last test", "last validation"]),
        (("data.validation=0",), ["first test", "last test"]),
    ],
    ids=["edge_popup", "dense", "random", "no validation"],
)  # fmt: skip
def test_equal_to_the_last_bit_and_nothing_written(
    overrides: tuple[str, ...], measured: list[str], made: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made(*overrides)
    before = contents(folder.parent)
    assert evaluate(folder.parent, folder.name, Device.auto, None) == 0
    assert contents(folder.parent) == before
    said = capsys.readouterr().out
    lines = [line.split() for line in said.splitlines() if line.rstrip().endswith(" yes")]
    assert [f"{line[0]} {line[2]}" for line in lines] == measured
    assert f"equal to the last bit: loss, top-1 and top-5, {len(measured)} of {len(measured)}" in said


def test_a_checkpoint_by_its_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of an epoch between, only the validation images were measured, and only they are compared."""
    assert evaluate(Path("nowhere"), str(folder / "checkpoints" / "epoch_2.ckpt"), Device.cpu, None) == 0
    said = capsys.readouterr().out
    assert "not recorded" in said
    assert "1 of 1" in said


def test_another_number_in_the_record_is_seen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads((folder / record.RESULT).read_text())
    loss = result["last"]["test"]["loss"]
    result["last"]["test"]["loss"] = float(torch.nextafter(torch.tensor(loss).double(), torch.tensor(9.0).double()))
    result["environment"]["torch"] = "1.0"
    (folder / record.RESULT).write_text(json.dumps(result))
    assert evaluate(folder.parent, folder.name, Device.auto, None) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "not equal: 1 of 6 differ (torch 1.0 then and torch" in said


def test_the_runs_own_threads_are_set(folder: Path) -> None:
    path = folder / record.RESULT
    path.write_text(path.read_text().replace('"threads": 1', '"threads": 2'))
    torch.set_num_threads(1)
    with rebuilt(folder, Device.auto):
        assert torch.get_num_threads() == 2


def hostile(path: Path) -> Any:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (path,)

    return Bomb()


@pytest.mark.parametrize("what", ["flip", "cut", "code", "shapes", "names", "gone"])
def test_wrong_checkpoints_are_told_in_a_line(what: str, folder: Path, made: Callable[..., Path]) -> None:
    path = folder / "checkpoints" / "best.ckpt"
    content = bytearray(path.read_bytes())
    words = {
        "flip": ["best.ckpt is damaged", "digest"],
        "cut": ["best.ckpt is damaged", "digest"],
        "code": ["best.ckpt is refused", "runs its code"],
        "shapes": ["best.ckpt: the checkpoint is of another network",
                   "fc1.scores: 30x64 here, 60x64 in the file; fc2.scores: 10x30 here, 20x60 in the file; "
                   "fc3.scores: 10x10 here, 10x20 in the file"],
        "names": ["another network", "fc1.scores: 30x64 here, none in the file; fc2.scores: 10x30 here, none in the "
                  "file; fc3.scores: 10x10 here, none in the file; and 3 more"],
        "gone": ["has no checkpoint of the name best; it has first, last, 2"],
    }[what]  # fmt: skip
    if what == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif what == "cut":
        path.write_bytes(content[:-100])
    elif what == "code":
        checkpoints.save(path, {"trained": hostile(folder / "exploded"), "epoch": 1})
    elif what == "gone":
        path.unlink()
    else:
        state = checkpoints.load(path)
        if what == "shapes":
            other = checkpoints.load(made("model.width=0.2") / "checkpoints" / "best.ckpt")["trained"]
        else:
            other = {f"other.{name}": value for name, value in state["trained"].items()}
        checkpoints.save(path, {**state, "trained": other})
    with pytest.raises((ValueError, OSError)) as caught:
        evaluate(folder.parent, folder.name, Device.auto, None)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (folder / "exploded").exists()


@pytest.mark.parametrize("name", ["{folder}/config.yaml", "{folder}/checkpoints/other.ckpt", "elsewhere.ckpt", "nope"])
def test_what_is_no_run_and_no_checkpoint(name: str, folder: Path) -> None:
    (folder / "checkpoints" / "other.ckpt").touch()
    with pytest.raises(ConfigError, match=r"no checkpoint of a run|no such file|no run in"):
        evaluate(folder.parent, name.format(folder=folder), Device.auto, None)


def test_an_unfinished_run_has_nothing_to_compare(folder: Path) -> None:
    (folder / record.RESULT).unlink()
    with pytest.raises(FileNotFoundError, match="is not a finished run"):
        evaluate(folder.parent, folder.name, Device.auto, None)


def test_its_own_settings_and_no_others(
    compose_single: Compose, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"evaluate={folder.name}", f"out={folder.parent}", "train.device=cpu"]
    assert evaluate_as_asked(compose_single(*given), given) == 0
    assert "6 of 6" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"own settings; leave model=conv2 train.lr=1 away"):
        evaluate_as_asked(compose_single(*given), [*given, "model=conv2", "train.lr=1"])
    with pytest.raises(ConfigError, match="leave -m"):
        refuse_in_sweep(compose_single(*given))


def test_measuring_does_not_depend_on_the_order(folder: Path) -> None:
    with rebuilt(folder, Device.auto) as (parts, result):
        there = measure(parts, result, ["first", "last"])
        back = measure(parts, result, ["last", "first"])
        assert there[:2] == back[2:]
        assert there[2:] == back[:2]


def test_export_takes_an_epoch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def call(which: str, *more: str) -> object:
        monkeypatch.setattr(sys, "argv", ["hidden_subnet", "export", str(folder), "--which", which, *more])
        with pytest.raises(SystemExit) as exit:
            main()
        return exit.value.code

    assert call("2") == 0
    exported = torch.load(folder / "subnetwork-2.pt", weights_only=False).state_dict()
    assert all(torch.equal(value, exported[name]) for name, value in hidden_subnet.load(folder, 2).state_dict().items())
    assert "no checkpoint of epoch 3; it has first, best, last, 2" in str(call("3"))
    assert "Is a directory" in str(call("2", "--to", str(folder)))
    assert call("worst") == 2
    assert "none of first, best, last and no epoch's number" in capfd.readouterr().err


@pytest.mark.slow
def test_the_command_line(folder: Path) -> None:
    def launch(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(ROOT / "launch.py"), f"out={folder.parent}", *arguments]
        return subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, timeout=300)

    before = contents(folder.parent)
    done = launch(f"evaluate={folder.name[:20]}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "6 of 6" in done.stdout
    assert contents(folder.parent) == before
    path = folder / "checkpoints" / "last.ckpt"
    state = checkpoints.load(path)
    for name, content in [("damaged", path.read_bytes()[:-1]), ("refused", b"")]:
        path.write_bytes(content)
        if name == "refused":
            checkpoints.save(path, {**state, "trained": hostile(folder / "exploded")})
        done = launch(f"evaluate={path}")
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        assert line.startswith("error: ")
        assert f"last.ckpt is {name}" in line
    assert not (folder / "exploded").exists()
