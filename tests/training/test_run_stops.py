"""A run that is asked to stop while it is measured: it stops there, and resumes to the same bits."""

import itertools
from pathlib import Path

import pytest
from helpers.runs import QUIET, assert_same_run, small

from hidden_subnet.config.settings import Config, Model
from hidden_subnet.store import files
from hidden_subnet.sweep.execute import execute


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return execute(small(tmp_path_factory.mktemp("whole"), threads=1), QUIET).folder


def stop_at_question(config: Config, number: int) -> str:
    """Execute the run until it has asked `number` times whether to stop; return its message."""
    asked = itertools.count(1)
    outcome = execute(config, QUIET, stopped=lambda: next(asked) >= number)
    assert outcome.state == "interrupted"
    assert not (outcome.folder / files.RESULT).exists()
    return outcome.message


BEFORE = "stopped before the first step"
AFTER_1, AFTER_3 = (f"stopped and saved in the evaluation after epoch {epoch}" for epoch in (1, 3))


# A run asks before each of its evaluations, which have a batch each, and after each of its 5 steps an epoch: 1 to 3
# before the first step, 9, 15 and 21 after an epoch, 22 and 23 at the end. A resumed run does not measure the untrained
# network again, since its checkpoint holds that: the first question is that of the step or evaluation where it stopped.
@pytest.mark.parametrize(
    ("questions", "messages"),
    [
        ([1], [BEFORE]),
        ([2], [BEFORE]),
        ([3, 9], [BEFORE, AFTER_1]),
        ([9, 1, 1], [AFTER_1, AFTER_1, AFTER_1]),
        ([21], [AFTER_3]),
        ([22, 1], 2 * ["stopped and saved in the evaluation after its last epoch"]),
    ],
    ids=str,
)
def test_stops_in_an_evaluation(questions: list[int], messages: list[str], tmp_path: Path, whole: Path) -> None:
    config = small(tmp_path, threads=1)
    assert [stop_at_question(config, each) for each in questions] == messages
    assert_same_run(execute(config, QUIET).folder, whole)


def test_stops_in_an_evaluation_of_recalibrated_networks(tmp_path: Path) -> None:
    """With masks drawn at a rate that rises, recalibrated batch norm, and a best epoch before the last."""

    def config(out: str) -> Config:
        made = small(tmp_path / out, "sampled", norm_batches=1)
        made.model, made.pruning.ramp_epochs = Model(name="cifar_resnet18", width=1 / 16), 2
        made.seed = 1  # with which the best epoch is the second
        return made

    undisturbed, broken = execute(config("undisturbed"), QUIET), config("broken")
    assert undisturbed.result is not None
    assert undisturbed.result["best"]["epoch"] == 2
    for question in (15, 8, 2):  # after epoch 2, before the last network is tested, and before the best one is
        stop_at_question(broken, question)
    assert_same_run(execute(broken, QUIET).folder, undisturbed.folder)
