"""Fixtures of several test files: one thread, and configs composed as the command line composes them."""

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
from helpers.composing import make_composer
from helpers.forked_launch import Launch
from helpers.forked_launch import launch as forked_launch
from helpers.runs import QUIET, small

from hidden_subnet.config.convert import register
from hidden_subnet.config.settings import Config
from hidden_subnet.sweep.execute import execute
from hidden_subnet.sweep.places import FOLDER
from hidden_subnet.training.acceleration import return_freed_memory
from hydra_plugins.hidden_subnet.compose import to_checked_config

ROOT = Path(__file__).parents[1]
LONGEST = (
    "sweep/test_slurm.py",
    "faults/test_environments.py",
    "trackers/test_wandb_agent.py",
    "training/test_distributed.py",
    "sweep/test_optuna.py",
    "training/test_run_image_folders.py",
    "trackers/test_wandb_faults.py",
    "masks/gpu/test_select.py",
    "faults/test_several_users.py",
    "cli/test_planted.py",
    "trackers/test_wandb_sweep.py",
    "benchmarks/test_benchmarks.py",
    "faults/test_chains.py",
    "trackers/test_canary.py",
    "sweep/test_sweep.py",
    "faults/test_sweeps.py",
    "cli/test_readme.py",
    "faults/test_kills.py",
    "faults/test_signals.py",
    "models/test_torchvision.py",
    "faults/test_matrix_slurm.py",
    "sweep/test_ray.py",
    "config/test_identity_random.py",
    "store/test_checkpoints.py",
)
"""Files whose slow tests take minutes. They begin first, so that none of them is left to one worker at the end."""

# Python's threshold of 700 objects is a quarter of the time in which Hydra composes.
gc.set_threshold(50_000)

# A shell that starts the tests with & or nohup has them ignore these, and what we start would ignore them too.
for each in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(each) is signal.SIG_IGN:
        signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)


def pytest_configure(config: pytest.Config) -> None:
    """Have xdist hand out the files in the order below, and not those with the most tests first."""
    if config.option.markexpr == "slow":
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.markexpr == "slow":
        place = {ROOT / "tests" / name: number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skip is a failure: everything that a test needs is installed there."""
    report = yield
    if report.skipped and "HIDDEN_SUBNET_CI" in os.environ:
        report.outcome, report.longrepr = "failed", f"skipped in CI: {report.longrepr}"
    return report


def pytest_collection_finish() -> None:
    """Take what is loaded out of the garbage collector's passes, which copy its pages in each forked process."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def marks_removed() -> Iterator[None]:
    """Remove the marks of the claims that tests made in this process and did not end (liveness.is_here)."""
    yield
    for path in Path("/dev/shm").glob(f"hidden_subnet-{os.getpid()}-*"):
        path.unlink(missing_ok=True)


@pytest.fixture(scope="session", autouse=True)
def cache_of_these_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what plan=true measures out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def locks_of_these_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have the sweeps of this process not wait for cores that those of other test processes hold."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER, str(tmp_path_factory.mktemp("locks")))
        yield


@pytest.fixture(scope="module", autouse=True)
def freed_memory_returned() -> Iterator[None]:
    """A worker would grow to 6 GB: malloc keeps what is freed below a block that is still in use."""
    yield
    return_freed_memory()


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
        composer.seen.clear()  # a test is a command of its own, and the images may have changed
        composer.checked.clear()
        return composer.compose(overrides)

    # A copy each time, which tests may change.
    return lambda *overrides: copy.deepcopy(composed(overrides))


@pytest.fixture(scope="session")
def compose_single() -> Callable[..., Config]:
    """The same, as Hydra composes a single run."""
    register(ROOT / "sweeps")

    def composed(*overrides: str) -> Config:
        with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return to_checked_config(hydra.compose("config", overrides=list(overrides)), overrides)

    return composed


@pytest.fixture(scope="session")
def launch() -> Launch:
    return forked_launch


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """undisturbed("dense"): the folder of a finished run of that method, which no test may change."""

    @cache
    def of(method: str) -> Path:
        outcome = execute(small(tmp_path_factory.mktemp("undisturbed"), method), QUIET)
        assert outcome.state == "done", outcome.message
        return outcome.folder

    return of
