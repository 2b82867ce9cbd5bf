"""Numbers of threads that others may have written into a file."""

from pathlib import Path

import pytest
import torch

from hidden_subnet.training.devices import set_threads


@pytest.mark.parametrize("count", [1_000_000, 0, -1, True, 2.0, "2", None, [1], 10**100])
def test_what_is_no_number_of_threads_is_refused_before_any_is_started(count: object) -> None:
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match=r"threads=.* is no number of CPU threads from 1 to 1024;") as said:
        set_threads(count, Path("result.json"))
    assert "\n" not in str(said.value)
    assert torch.get_num_threads() == before
