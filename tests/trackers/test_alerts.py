"""Alerts that W&B's real client sends to a stand-in for its server, where they are asked for."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.wandb_server import RESULT, StandIn, make, open_trackers

from hidden_subnet.config.settings import Config
from hidden_subnet.sweep.execute import RunObserver, execute
from hidden_subnet.trackers.wandb_tracker import TITLE, outcome

pytest_plugins = ["helpers.wandb_server"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean")]

COLLAPSED = {**RESULT, "collapsed": True, "dead_layer": "features.0", "kept": 1, "weights": 10, "parameters": 12}
QUIET = RunObserver(lambda row: None, lambda *step: None, lambda text: None)


@pytest.fixture
def key(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


def told(key: StandIn) -> list[tuple[str, str, str]]:
    return [(alert["severity"], alert["title"], alert["text"]) for alert in key.alerts]


@pytest.mark.parametrize("asked", [True, False])
def test_a_failed_run(folder: Path, key: StandIn, asked: bool) -> None:
    config = make()
    config.tracker.alerts = asked
    (tracker,) = open_trackers(config, folder, None, pytest.fail)
    tracker.fail("OSError: cannot read '/home/me/sets/a.png'")
    (run,) = key.runs.values()
    assert run.summary["failed"] == 1
    title = "failed: digits-conv2-edge_popup-signed_constant-pr0.9-s0"
    assert len(title) <= TITLE
    assert told(key) == [("ERROR", title, "OSError: cannot read '…/a.png'")] * asked


def test_a_collapsed_run(folder: Path, key: StandIn) -> None:
    config = make()
    config.tracker.alerts = True
    (tracker,) = open_trackers(config, folder, None, pytest.fail)
    tracker.finish(COLLAPSED)
    (run,) = key.runs.values()
    assert (run.summary["failed"], run.summary["collapsed"], run.exit_code) == (0, 1, 0)
    ((level, title, text),) = told(key)
    assert (level, title.partition(":")[0]) == ("WARN", "collapsed")
    assert text == "no better than chance on the test images; features.0 is dead"
    assert run.config_at_the_end.items() >= outcome(COLLAPSED, False).items()
    assert run.config_at_the_end["parameters"] == 12


def test_a_run_that_ends_itself_since_it_has_collapsed(
    key: StandIn, tmp_path: Path, compose: Callable[..., Config]
) -> None:
    small = ["data=synthetic", "model=fc", "model.width=0.1", "method=dense", "train.lr=1e-9", "train.epochs=3"]
    stops = ["stop_collapsed=true", "stop_collapsed_epoch=1", "tracker.alerts=true", f"out={tmp_path}"]
    done = execute(compose(*small, *stops), QUIET, open_trackers=open_trackers)
    assert done.state == "stopped", done.message
    (run,) = key.runs.values()
    assert (run.summary["collapsed"], run.exit_code) == (1, 0)
    assert not any(part.get("preempting") for part in run.streamed)
    ((level, _, text),) = told(key)
    assert (level, text) == ("WARN", done.message)
