"""Trackers mirror what they are told, keep out of the training's way, and leak nothing."""

import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.wandb_server import KEY, RESULT, ROWS, make, of_type, open_trackers, records, rows_in

from hidden_subnet.config.convert import as_dict, from_dict, to_yaml
from hidden_subnet.config.registries import TRACKERS, register
from hidden_subnet.config.settings import Config, TrackerMode
from hidden_subnet.errors import ConfigError
from hidden_subnet.masks.state import flips
from hidden_subnet.methods.dense import DenseSettings
from hidden_subnet.store import files
from hidden_subnet.store.files import load_config
from hidden_subnet.sweep.execute import RunObserver, execute
from hidden_subnet.trackers import TrackerEntry, check_trackers, last_lines
from hidden_subnet.trackers.background import InBackground, Patience
from hidden_subnet.trackers.sent import run_id
from hidden_subnet.trackers.wandb_environment import tags
from hidden_subnet.trackers.wandb_tracker import columns, mode_of, origin, summary

pytest_plugins = ["helpers.wandb_server"]
pytestmark = pytest.mark.usefixtures("clean")


@pytest.mark.slow
def test_offline_run_read_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    config = make(mode="offline", labels=("try",))
    random.seed(1)
    generators = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    hooks = sys.exit, sys.excepthook, [signal.getsignal(number) for number in (2, 12, 15)]
    warnings: list[str] = []

    (tracker,) = open_trackers(config, folder, "my-sweep", warnings.append)
    for row in ROWS:
        tracker.log(row)
    tracker.finish(RESULT)

    assert warnings == []
    assert capfd.readouterr() == ("", "")
    assert hooks == (sys.exit, sys.excepthook, [signal.getsignal(number) for number in (2, 12, 15)])
    assert generators == (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    )

    (found,) = records(folder)
    assert rows_in(found) == ROWS
    (run,) = of_type(found, "run")
    assert run["run_id"] == (folder / "wandb_id").read_text().strip()
    assert (run["project"], run["run_group"], run["job_type"]) == ("hidden_subnet", "my-sweep", "edge_popup")
    assert run["tags"] == ["try", "my-sweep"]
    assert run["display_name"] == "digits-conv2-edge_popup-signed_constant-pr0.9-s0"
    sent = {key: value for key, value in run["config"]["update"].items() if key != "_wandb"}
    assert sent == {**columns(config), **origin(config, folder)}
    assert sent["config"] == as_dict(config)
    assert {"glob_name": "*", "step_metric": "epoch"}.items() <= of_type(found, "metric")[1].items()
    final: dict[str, Any] = {}
    for part in of_type(found, "summary"):
        final |= part["update"]
    assert summary(RESULT).items() <= final.items()
    assert of_type(found, "exit")[0].get("exit_code", 0) == 0

    written = [path for path in folder.rglob("*") if path.is_file()]
    assert len(written) > 3
    assert [path for path in written if KEY.encode() in path.read_bytes()] == []
    assert list((folder.parent / "home").iterdir()) == []
    assert list((folder.parent / "cwd").iterdir()) == []


@pytest.mark.slow
def test_interrupted_run_goes_on_under_its_id(folder: Path) -> None:
    (tracker,) = open_trackers(make(), folder, None, pytest.fail)
    for row in ROWS[:2]:
        tracker.log(row)
    tracker.interrupt()
    (tracker,) = open_trackers(make(), folder, None, pytest.fail)
    tracker.log(ROWS[2])
    tracker.fail("RuntimeError: broken")
    first, second = records(folder)
    assert rows_in(first) + rows_in(second) == ROWS
    assert of_type(first, "run")[0]["run_id"] == of_type(second, "run")[0]["run_id"]
    assert len(of_type(first, "preempting")) == 1
    assert of_type(second, "preempting") == []
    assert [of_type(part, "exit")[0]["exit_code"] for part in (first, second)] == [1, 1]
    assert "run_group" not in of_type(first, "run")[0]


def test_id_is_made_once(folder: Path, tmp_path: Path) -> None:
    first = run_id(folder)
    assert run_id(folder) == first
    assert run_id(tmp_path) != first
    assert len(first) >= 8


def test_tags_are_unique_and_short() -> None:
    assert tags(make(labels=("a", "s", "a")), ["s", None]) == ["a", "s"]
    assert tags(make(), ["x" * 300, "y"]) == ["x" * 64, "y"]
    assert tags(make(), [None]) == []


def test_columns() -> None:
    masked, dense = columns(make()), columns(make(method=DenseSettings()))
    assert (masked["prune_rate"], masked["density"]) == (0.9, 0.1)
    assert (dense["prune_rate"], dense["density"]) == (0.0, 1.0)
    assert (dense["model"], dense["data"], dense["method"]) == ("conv2", "digits", "dense")
    assert (dense["init"], dense["seed"]) == ("signed_constant", 0)
    assert (masked["pruning"], masked["train.lr"], masked["seeds.scores"]) == ("layerwise", 0.1, 0)
    assert not {"pruning", "seeds.scores"} & dense.keys()


def test_absolute_paths_are_columns_only_where_asked_for() -> None:
    config = make()
    config.data.root, config.out, config.use = "/home/me/my data/sets", "~/runs", ["nets/a.py", "/b.py"]
    config.init.name = "/home/me/x.py:f"
    sent = columns(config)
    assert (sent["init"], sent["config"]["data"]["root"], sent["config"]["out"]) == ("…/x.py:f", "…/sets", "…/runs")
    assert sent["config"]["use"] == ["nets/a.py", "…/b.py"]
    config.tracker.paths = True
    assert columns(config)["config"]["data"]["root"] == "/home/me/my data/sets"


def test_summary_holds_every_number_of_the_result() -> None:
    assert summary(RESULT) == {
        "chance": 0.1,
        "untrained/unpruned/loss": 2.5,
        "untrained/unpruned/top1": 0.11,
        "untrained/unpruned/top5": 0.5,
        "last/epoch": 2,
        "last/test/loss": 0.3,
        "last/test/top1": 0.97,
        "last/test/top5": 1.0,
        "best/epoch": 1,
        "best/test/loss": 0.2,
        "best/test/top1": 0.98,
        "best/test/top5": 1.0,
        "density": 0.1,
    }


@pytest.fixture
def mode(clean: None) -> Iterator[Callable[[str], str]]:
    """Return a function from tracker.mode to the mode that W&B's client gets, whatever was asked before."""
    import wandb

    def chosen(asked: str) -> str:
        wandb.teardown()
        return mode_of(TrackerMode[asked])

    yield chosen
    wandb.teardown()


def test_mode_without_a_key(
    mode: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert mode("auto") == "offline"
    assert mode("offline") == "offline"
    with pytest.raises(RuntimeError, match="needs a key"):
        mode("online")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert mode("auto") == "disabled"
    assert capfd.readouterr() == ("", "")


def test_mode_with_a_key_in_the_environment(mode: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert mode("auto") == "online"
    assert mode("offline") == "offline"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert mode("auto") == "offline"
    assert mode("online") == "online"


def test_mode_by_the_settings_file(mode: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `wandb offline` writes it."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    settings = tmp_path / "home" / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text("[default]\nmode = offline\n")
    assert mode("auto") == "offline"
    assert mode("online") == "online"


def test_mode_with_a_key_in_netrc(
    mode: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    netrc = tmp_path / "keys"
    netrc.write_text(f"machine wandb.example.org\n login user\n password {KEY}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for host, expected in (("wandb", "online"), ("other", "offline")):
        monkeypatch.setenv("WANDB_BASE_URL", f"https://{host}.example.org")
        assert mode("auto") == expected
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "home" / ".config").exists()


def test_wandb_switched_off_by_its_variable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert open_trackers(make(), folder, None, pytest.fail) == []


class Recorder:
    """A tracker that notes each call."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def log(self, row: dict[str, float]) -> None:
        self.calls.append(f"log {row['epoch']:.0f}")

    def finish(self, result: dict[str, Any]) -> None:
        self.calls.append("finish")

    def fail(self, message: str) -> None:
        self.calls.append(f"fail {message}")

    def interrupt(self, collapsed: str = "") -> None:
        self.calls.append("interrupt")


def test_a_tracker_that_registers_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, prepared = Recorder(), list[Path]()
    entry = TrackerEntry("Mine", lambda config, folder, sweep: inner, prepare=prepared.append)
    with pytest.raises(ValueError, match="wandb is in use already"):
        register(TRACKERS, "wandb")(entry)
    monkeypatch.setitem(TRACKERS, "mine", entry)
    config = make(["mine"])
    config.tracker.to["wandb"] = False
    (tracker,) = open_trackers(config, folder, None, pytest.fail)
    tracker.log(ROWS[0])
    tracker.finish({})
    assert inner.calls == ["log 0", "finish"]
    assert prepared == [folder]


def test_an_unknown_tracker_is_one_line(folder: Path) -> None:
    for use in (check_trackers, lambda config: open_trackers(config, folder, None, pytest.fail)):
        with pytest.raises(
            ConfigError,
            match=r"^tracker\.to\.comet: there is no such tracker \(tensorboard, wandb\); as in: tracker=wandb$",
        ):
            use(make(["wandb", "comet"]))


@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("wandb", {"wandb": True}),
        ("tensorboard", {"tensorboard": True}),
        ("both", {"wandb": True, "tensorboard": True}),
        ("none", {}),
    ],
)
def test_a_config_of_older_code_names_one_tracker(tmp_path: Path, name: str, to: dict[str, bool]) -> None:
    config = make(to, mode="offline", labels=["a"])
    settings = as_dict(config)
    assert settings["tracker"].pop("to") == to
    settings["tracker"]["name"] = name
    assert from_dict(settings) == config
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(settings))
    assert load_config(path) == config


def test_no_tracker(folder: Path) -> None:
    assert open_trackers(make([]), folder, None, pytest.fail) == []
    assert list(folder.iterdir()) == []


def test_tensorboard_read_back(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tracker,) = open_trackers(make(["tensorboard"]), folder, "s", pytest.fail)
    for row in ROWS[:2]:
        tracker.log(row)
    tracker.interrupt()
    (tracker,) = open_trackers(make(["tensorboard"]), folder, "s", pytest.fail)
    tracker.log(ROWS[2])
    tracker.finish(RESULT)
    assert capfd.readouterr() == ("", "")
    events: dict[tuple[str, int], float] = {}
    for path in (folder / "tensorboard").iterdir():
        reader = EventAccumulator(str(path))
        reader.Reload()
        for tag in reader.Tags()["scalars"]:
            events |= {(tag, event.step): event.value for event in reader.Scalars(tag)}
    logged = {(key, int(row["epoch"])): value for row in ROWS for key, value in row.items() if key != "epoch"}
    measured = {"last.test.top1": 0.97, "last.test.loss": 0.3, "best.test.top1": 0.98, "density": RESULT["density"]}
    assert events == pytest.approx(logged | {(f"result/{name}", 2): value for name, value in measured.items()})


def test_tensorboard_has_settings_and_result_to_compare_runs_by(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    (tracker,) = open_trackers(make(["tensorboard"]), folder, "s", pytest.fail)
    tracker.log(ROWS[0])
    settings = {"method": {"name": "dense"}, "prune_rate": 0.5, "pretrained": None, "metrics": ["a", "b"]}
    tracker.finish({**RESULT, "projection": settings})
    reader = EventAccumulator(str(folder / "tensorboard"))
    reader.Reload()
    found = reader.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = HParamsPluginData.FromString(found).session_start_info
    values = {name: value.string_value or value.number_value for name, value in start.hparams.items()}
    assert values == {"method.name": "dense", "prune_rate": 0.5, "pretrained": "none", "metrics": '["a", "b"]'}


def test_what_to_type_at_the_end() -> None:
    assert last_lines(make(["tensorboard", "wandb"])) == ["to see the runs, type: tensorboard --logdir runs"]
    assert last_lines(make([])) == []


def test_tensorboard_that_cannot_write_warns_once(folder: Path) -> None:
    (folder / "tensorboard").write_text("a file in the way")
    warnings: list[str] = []
    (tracker,) = open_trackers(make(["tensorboard"]), folder, None, warnings.append)
    for row in ROWS:
        tracker.log(row)
    tracker.finish(RESULT)
    assert len(warnings) == 1
    assert "TensorBoard is off for this run" in warnings[0]


def test_wandb_without_a_key_forced_online_warns_once(folder: Path) -> None:
    warnings: list[str] = []
    (tracker,) = open_trackers(make(mode="online"), folder, None, warnings.append)
    for row in ROWS:
        tracker.log(row)
    tracker.finish(RESULT)
    assert len(warnings) == 1
    assert "WANDB_API_KEY" in warnings[0]


class Faulty:
    """Notes what it is told, raises at the epoch `at`, and does not come back from `stuck`."""

    def __init__(self, at: int = -1, stuck: threading.Event | None = None) -> None:
        self.at, self.stuck, self.told = at, stuck, list[float | str]()

    def log(self, row: dict[str, float]) -> None:
        if row["epoch"] == self.at:
            raise SystemExit("disk\nfull")
        if self.stuck is not None:
            self.stuck.wait()
        self.told.append(row["epoch"])

    def finish(self, result: dict[str, Any]) -> None:
        self.told.append("finish")

    def fail(self, message: str) -> None:
        self.told.append(message)

    def interrupt(self, collapsed: str = "") -> None:
        self.told.append("interrupt")


def test_calls_arrive_in_order() -> None:
    for end, last in [
        (lambda tracker: tracker.finish({}), "finish"),
        (lambda tracker: tracker.fail("why"), "why"),
        (lambda tracker: tracker.interrupt(), "interrupt"),
    ]:
        inner = Faulty()
        tracker = InBackground("it", lambda inner=inner: inner, pytest.fail)
        for row in ROWS:
            tracker.log(row)
        end(tracker)
        assert inner.told == [0, 1, 2, last]


def test_row_changed_after_it_was_logged() -> None:
    opened, inner, row = threading.Event(), Faulty(), {"epoch": 0.0}

    def start() -> Faulty:
        opened.wait()
        return inner

    tracker = InBackground("it", start, pytest.fail)
    tracker.log(row)
    row["epoch"] = 7.0
    opened.set()
    tracker.finish({})
    assert inner.told == [0.0, "finish"]


def test_exception_turns_the_tracker_off_with_one_warning() -> None:
    """And it is still closed."""
    inner, warnings = Faulty(at=1), list[str]()
    tracker = InBackground("it", lambda: inner, warnings.append)
    for row in ROWS:
        tracker.log(row)
    tracker.finish({})
    assert inner.told == [0, "finish"]
    assert warnings == ["it is off for this run (SystemExit: disk); the files of the run are complete"]


def test_end_does_not_wait_for_a_stuck_tracker() -> None:
    stuck, warnings = threading.Event(), list[str]()
    tracker = InBackground("it", lambda: Faulty(stuck=stuck), warnings.append, Patience(end_seconds=0.1))
    for row in ROWS:
        tracker.log(row)
    tracker.fail("why")
    stuck.set()
    assert len(warnings) == 1
    assert "did not answer" in warnings[0]


def test_end_does_not_wait_for_a_tracker_that_never_starts() -> None:
    stuck, warnings = threading.Event(), list[str]()

    def start() -> Faulty:
        stuck.wait()
        return Faulty()

    tracker = InBackground("it", start, warnings.append, patience=Patience(start_seconds=0.0))
    tracker.interrupt()
    stuck.set()
    assert len(warnings) == 1


def test_flips_are_counted_by_layer() -> None:
    before = {"a": torch.tensor([True, True, False, False]), "b": torch.tensor([[True, False]])}
    after = {"a": torch.tensor([True, False, True, False]), "b": torch.tensor([[True, False]])}
    assert flips(before, after) == {"a": 2, "b": 0}


@pytest.mark.parametrize("method", ["edge_popup", "random", "dense"])
def test_rows_tell_each_masked_layer(tmp_path: Path, compose: Callable[..., Config], method: str) -> None:
    small = ["data=synthetic", "model.width=0.125", "train.epochs=2", "tracker=none", "prune_rate=0.7"]
    config = compose(f"method={method}", f"out={tmp_path / 'runs'}", *small)
    outcome = execute(config, RunObserver(lambda row: None, lambda *step: None, lambda text: None))
    assert outcome.result is not None
    layers = {layer["name"]: layer for layer in outcome.result["layers"]}
    assert bool(layers) == (method != "dense")
    for row in files.read_rows(outcome.folder):
        epoch = row["epoch"]
        assert {key for key in row if key.startswith("density/")} == {f"density/{name}" for name in layers}
        flipped = {f"flip_rate/{name}" for name in layers} if epoch else set()
        assert {key for key in row if key.startswith("flip_rate/")} == flipped
        assert ("flip_rate" in row) == bool(flipped)
        for total in ["density"] * bool(layers) + ["flip_rate"] * bool(flipped):
            weighted = sum(row[f"{total}/{name}"] * layer["weights"] for name, layer in layers.items())
            assert weighted / outcome.result["weights"] == pytest.approx(row[total])
        for name, layer in layers.items():
            assert row[f"density/{name}"] == layer["kept"] / layer["weights"]
