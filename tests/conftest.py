"""What several test files need: one thread, and configs composed as the command line composes them."""

import copy
import gc
import os
import signal
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path

import hydra
import pytest
import torch
from composing import make_composer
from forked_launch import Launch, launcher

from hidden_subnet.config import register
from hidden_subnet.settings import Config
from hydra_plugins.hidden_subnet.compose import to_checked_config

ROOT = Path(__file__).parents[1]

# Python's threshold of 700 objects is a quarter of the time in which Hydra composes.
gc.set_threshold(50_000)

# A shell that starts the tests with & or nohup has them ignore these, and what we start would ignore them too.
for each in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(each) is signal.SIG_IGN:
        signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skip is a failure: everything that a test needs is installed there."""
    report = yield
    if report.skipped and "HIDDEN_SUBNET_CI" in os.environ:
        report.outcome, report.longrepr = "failed", f"skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tests share the cores, and a run in this process may have set another number (train.threads)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def compose() -> Callable[..., Config]:
    """compose("model=fc", "prune_rate=0.9"): the checked config, or the exception that launch.py turns into a line.

    As a job of a sweep is composed, which takes a hundredth of the time; test_compose.py holds it against Hydra.
    """
    composer = make_composer()

    @cache
    def composed(overrides: tuple[str, ...]) -> Config:
        return composer.compose(overrides)

    # A copy each time: configs are not frozen.
    return lambda *overrides: copy.deepcopy(composed(overrides))


@pytest.fixture(scope="session")
def compose_single() -> Callable[..., Config]:
    """The same, as Hydra composes a single run."""
    register(ROOT / "sweeps")

    def composed(*overrides: str) -> Config:
        with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return to_checked_config(hydra.compose("config", overrides=list(overrides)))

    return composed


@pytest.fixture(scope="session")
def launch() -> Iterator[Launch]:
    with launcher() as each:
        yield each
