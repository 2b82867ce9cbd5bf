"""A run that is asked to stop while it is measured: it stops there, and goes on to the same bits."""

import itertools
from pathlib import Path

import pytest
from silence import QUIET
from test_experiment import assert_same_run, small

from hidden_subnet import record
from hidden_subnet.execute import execute
from hidden_subnet.settings import Config, Model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return execute(small(tmp_path_factory.mktemp("whole"), threads=1), QUIET).folder


def stop_at_question(config: Config, number: int) -> str:
    """Execute the run until it has asked so often whether to stop; what it says."""
    asked = itertools.count(1)
    outcome = execute(config, QUIET, stopped=lambda: next(asked) >= number)
    assert outcome.state == "interrupted"
    assert not (outcome.folder / record.RESULT).exists()
    return outcome.message


BEFORE = "stopped before it had taken a step"
AFTER_1, AFTER_3 = (f"stopped and saved in the evaluation after epoch {epoch}" for epoch in (1, 3))


# A run asks before each of its evaluations, which have a batch each, and after each of its 5 steps an epoch: 1 to 3
# before the first step, 9, 15 and 21 after an epoch, 22 and 23 at the end.
@pytest.mark.parametrize(
    ("questions", "messages"),
    [
        ([1], [BEFORE]),
        ([2], [BEFORE]),
        ([3, 9], [BEFORE, AFTER_1]),
        ([9, 3, 1], [AFTER_1, AFTER_1, "stopped before it went on"]),
        ([21], [AFTER_3]),
        ([22, 3], 2 * ["stopped and saved in the evaluation after its last epoch"]),
    ],
    ids=str,
)
def test_stops_in_an_evaluation(questions: list[int], messages: list[str], tmp_path: Path, whole: Path) -> None:
    config = small(tmp_path, threads=1)
    assert [stop_at_question(config, each) for each in questions] == messages
    assert_same_run(execute(config, QUIET).folder, whole)


def test_stops_in_an_evaluation_of_what_is_made_for_it(tmp_path: Path) -> None:
    """For masks drawn at a rate that rises, statistics of batch norm taken anew, and a best epoch before the last."""

    def config(out: str) -> Config:
        made = small(tmp_path / out, "sampled", norm_batches=1)
        made.model, made.pruning.ramp_epochs = Model(name="cifar_resnet18", width=1 / 16), 2
        made.seed = 1  # with which the best epoch is the second
        return made

    undisturbed, broken = execute(config("undisturbed"), QUIET), config("broken")
    assert undisturbed.result is not None
    assert undisturbed.result["best"]["epoch"] == 2
    for question in (15, 10, 4):  # after epoch 2, before the last network is tested, and before the best one is
        stop_at_question(broken, question)
    assert_same_run(execute(broken, QUIET).folder, undisturbed.folder)
