"""The lines of a run without a bar: the time left, soon after the first steps and then once a minute."""

from hidden_subnet.cli.time_left import TimeLeft


def test_lines() -> None:
    """2 epochs of 100 batches, a second each: 200 s."""
    times = iter(range(1, 1000))
    time_left = TimeLeft(2, now=lambda: float(next(times)))
    said = {}
    for step in range(1, 201):
        epoch, batch = divmod(step - 1, 100)
        said[step] = time_left.line(epoch + 1, batch + 1, 100)
    assert {step: line for step, line in said.items() if line} == {
        6: "epoch 1/2, batch 6/100, about 3:14 left",
        66: "epoch 1/2, batch 66/100, about 2:14 left",
        126: "epoch 2/2, batch 26/100, about 1:14 left",
        186: "epoch 2/2, batch 86/100, about 14.0 s left",
    }


def test_a_run_that_resumes_counts_from_its_own_first_step() -> None:
    times = iter([0.0, 10.0])
    time_left = TimeLeft(10, now=lambda: next(times))
    assert time_left.line(9, 50, 100) is None
    assert time_left.line(9, 60, 100) == "epoch 9/10, batch 60/100, about 2:20 left"


def test_a_short_run_says_nothing() -> None:
    times = iter([0.0, 1.0, 2.0, 3.0])
    time_left = TimeLeft(1, now=lambda: next(times))
    assert [time_left.line(1, batch, 4) for batch in (1, 2, 3, 4)] == [None] * 4


def test_the_next_run_of_a_chain_counts_from_its_own_first_step() -> None:
    times = iter([0.0, 100.0, 110.0, 120.0])
    time_left = TimeLeft(10, now=lambda: next(times))
    assert time_left.line(9, 50, 100) is None  # where the first one resumes
    assert time_left.line(10, 50, 100) == "epoch 10/10, batch 50/100, about 50.0 s left"
    assert time_left.line(1, 1, 100) is None
    assert time_left.line(1, 11, 100) == "epoch 1/10, batch 11/100, about 16:29 left"
