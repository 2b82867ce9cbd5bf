"""evaluate=: the record measured again, to the last bit; and checkpoints that are damaged, foreign or hostile."""

import json
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.forked_launch import launch
from helpers.runs import QUIET

import hidden_subnet
from hidden_subnet.analysis.evaluate import measure, rebuilt
from hidden_subnet.analysis.export import export
from hidden_subnet.cli.evaluate import evaluate
from hidden_subnet.cli.main import main
from hidden_subnet.config import identity
from hidden_subnet.config.settings import Config, Device
from hidden_subnet.errors import ConfigError
from hidden_subnet.methods.dnw import Dnw
from hidden_subnet.models.pretrained_weights import read_weights
from hidden_subnet.store import checkpoints, files
from hidden_subnet.sweep.execute import execute
from hydra_plugins.hidden_subnet.evaluating import evaluate_as_asked, refuse_in_sweep

Compose = Callable[..., Config]
ROOT = Path(__file__).parents[2]
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


@pytest.mark.parametrize(
    "overrides",
    [
        ("init.scale=density", "model.first_layer=dense", "model.last_layer=dense"),
        ("method=dnw", "init=kaiming_normal", "model=cifar_resnet18", "model.width=0.0625", "model.norm=batch"),
    ],
    ids=["scaled dense layers", "frozen norm layers"],
)
def test_a_run_of_the_rules_of_before_is_measured_and_loaded_by_them(
    overrides: tuple[str, ...], compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(*TINY, *overrides, "train.epochs=1", "checkpoint.every=0", f"out={tmp_path}")
    new = execute(config, QUIET)
    with monkeypatch.context() as before:
        before.setattr(identity, "CHANGED", [])
        before.setattr(Dnw, "trains_weights", classmethod(lambda cls: False))
        old = execute(config, QUIET)
    assert old.folder.name != new.folder.name
    assert new.result is not None
    assert old.result is not None
    assert (old.result["projection"]["schema"], new.result["projection"]["schema"]) == (1, 2)
    assert old.result["last"]["test"]["loss"] != new.result["last"]["test"]["loss"]
    for outcome in (old, new):
        assert evaluate(tmp_path, outcome.folder.name, Device.auto, None) == 0
        images, labels = hidden_subnet.test_images(outcome.folder)
        loss = torch.nn.functional.cross_entropy(hidden_subnet.load(outcome.folder)(images), labels).item()
        assert outcome.result is not None
        assert loss == pytest.approx(outcome.result["last"]["test"]["loss"], rel=1e-5)


def test_a_checkpoint_by_its_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An epoch between measured only the validation images, and only they are compared."""
    assert evaluate(Path("nowhere"), str(folder / "checkpoints" / "epoch_2.ckpt"), Device.cpu, None) == 0
    said = capsys.readouterr().out
    assert "not recorded" in said
    assert "1 of 1" in said


def test_another_number_in_the_record_is_seen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads((folder / files.RESULT).read_text())
    loss = result["last"]["test"]["loss"]
    result["last"]["test"]["loss"] = float(torch.nextafter(torch.tensor(loss).double(), torch.tensor(9.0).double()))
    result["environment"]["torch"] = "1.0"
    (folder / files.RESULT).write_text(json.dumps(result))
    assert evaluate(folder.parent, folder.name, Device.auto, None) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "not equal: 1 of 6 differ (torch 1.0 then and torch" in said


def test_the_runs_own_threads_are_set(folder: Path) -> None:
    path = folder / files.RESULT
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


def test_a_checkpoint_under_the_name_of_another_is_refused(folder: Path) -> None:
    kept = folder / "checkpoints"
    (kept / "epoch_2.ckpt").replace(kept / "last.ckpt")
    words = r"last.ckpt holds epoch 2, but last of this run is epoch 3: another file was put there"
    for ask in (
        lambda: evaluate(folder.parent, folder.name, Device.auto, None),
        lambda: hidden_subnet.load(folder),
        lambda: export(folder, "last", None),
        lambda: read_weights(kept / "last.ckpt"),  # as pretrained= does
    ):
        with pytest.raises(ValueError, match=words):
            ask()
    shutil.copy(kept / "first.ckpt", kept / "epoch_2.ckpt")
    with pytest.raises(ValueError, match=r"epoch_2.ckpt holds epoch 0"):
        hidden_subnet.load(folder, 2)


@pytest.mark.parametrize("other", ["seed=1", "train.lr=0.2", "data.flip=true"])
def test_a_checkpoint_of_another_run_at_the_same_epoch_is_refused(
    other: str, made: Callable[..., Path], folder: Path
) -> None:
    """It has the right name, shapes and, but for the first, the same random weights."""
    theirs, kept = made(other), folder / "checkpoints"
    words = rf"is of the run with the id {theirs.name[-12:]}, and this run is {folder.name[-12:]}: another file was put"
    for name, which in (("last.ckpt", "last"), ("epoch_2.ckpt", 2)):
        shutil.copy(theirs / "checkpoints" / name, kept / name)
        for ask in (
            partial(evaluate, folder.parent, str(kept / name), Device.auto, None),
            partial(hidden_subnet.load, folder, which),
            partial(hidden_subnet.load_masks, folder, which),
            partial(export, folder, which, None),
            partial(read_weights, kept / name),
        ):
            with pytest.raises(ValueError, match=words):
                ask()
    assert not [*folder.glob("subnetwork-*")]


@pytest.mark.parametrize("name", [files.CONFIG, files.RESULT])
def test_settings_and_result_of_two_runs_are_refused(name: str, made: Callable[..., Path], folder: Path) -> None:
    shutil.copy(made("prune_rate=0.9") / name, folder / name)
    for ask in (
        partial(evaluate, folder.parent, folder.name, Device.auto, None),
        partial(hidden_subnet.load, folder),
        partial(export, folder, "last", None),
        partial(hidden_subnet.test_images, folder),
    ):
        with pytest.raises(ValueError, match=r"config.yaml and result.json there are of two runs"):
            ask()


def test_a_checkpoint_without_an_id_is_read(folder: Path) -> None:
    """Those of 0.1.0 have none."""
    path = folder / "checkpoints" / "last.ckpt"
    before = hidden_subnet.load(folder).state_dict()
    checkpoints.save(path, {name: value for name, value in checkpoints.load(path).items() if name != checkpoints.RUN})
    after = hidden_subnet.load(folder).state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("name", ["{folder}/config.yaml", "{folder}/checkpoints/other.ckpt", "elsewhere.ckpt", "nope"])
def test_what_is_no_run_and_no_checkpoint(name: str, folder: Path) -> None:
    (folder / "checkpoints" / "other.ckpt").touch()
    with pytest.raises(ConfigError, match=r"not a checkpoint of a run|no such file|no run in"):
        evaluate(folder.parent, name.format(folder=folder), Device.auto, None)


def test_an_unfinished_run_has_nothing_to_compare(folder: Path) -> None:
    (folder / files.RESULT).unlink()
    with pytest.raises(FileNotFoundError, match="is not a finished run"):
        evaluate(folder.parent, folder.name, Device.auto, None)


def test_its_own_settings_and_no_others(
    compose_single: Compose, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"evaluate={folder.name}", f"out={folder.parent}", "train.device=cpu"]
    assert evaluate_as_asked(compose_single(*given), given) == 0
    assert "6 of 6" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"own settings, without model=conv2 train.lr=1"):
        evaluate_as_asked(compose_single(*given), [*given, "model=conv2", "train.lr=1"])
    with pytest.raises(ConfigError, match="remove -m"):
        refuse_in_sweep(compose_single(*given))


def test_measuring_does_not_depend_on_the_order(folder: Path) -> None:
    with rebuilt(folder, Device.auto) as (experiment, result):
        there = measure(experiment, result, ["first", "last"])
        back = measure(experiment, result, ["last", "first"])
        assert there[:2] == back[2:]
        assert there[2:] == back[:2]


def test_export_takes_an_epoch(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def call(which: str, *more: str) -> object:
        with pytest.raises(SystemExit) as exit:
            main(["export", str(folder), "--which", which, *more])
        return exit.value.code

    assert call("2") == 0
    exported = torch.load(folder / "subnetwork-2.pt")
    assert all(torch.equal(value, exported[name]) for name, value in hidden_subnet.load(folder, 2).state_dict().items())
    assert "no checkpoint of epoch 3; it has first, best, last, 2" in str(call("3"))
    assert "Is a directory" in str(call("2", "--to", str(folder)))
    assert str(call("2", "--to", "/proc/x.pt")).endswith("; name another, as in: --to subnetwork.pt")
    for suffix in (".npz", ".h5"):
        wrong = folder / f"net{suffix}"
        assert str(call("2", "--to", str(wrong))).endswith(f"as in: --to {folder}/net.pt")
        assert not wrong.exists()
    assert call("worst") == 2
    assert "neither first, best or last nor the number of an epoch" in capfd.readouterr().err


@pytest.mark.slow
def test_the_command_line(folder: Path) -> None:
    def launched(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return launch(folder.parent, f"out={folder.parent}", *arguments)

    before = contents(folder.parent)
    done = launched(f"evaluate={folder.name[:20]}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "6 of 6" in done.stdout
    assert contents(folder.parent) == before
    path = folder / "checkpoints" / "last.ckpt"
    state = checkpoints.load(path)
    for name, content in [("damaged", path.read_bytes()[:-1]), ("refused", b"")]:
        path.write_bytes(content)
        if name == "refused":
            checkpoints.save(path, {**state, "trained": hostile(folder / "exploded")})
        done = launched(f"evaluate={path}")
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        assert line.startswith("error: ")
        assert f"last.ckpt is {name}" in line
    assert not (folder / "exploded").exists()
