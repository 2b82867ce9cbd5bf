"""Budgets of the user's own: how many weights each layer keeps, and what is refused."""

from pathlib import Path

import pytest
import torch
from helpers.own_parts import Use, composed, forgotten, use
from helpers.runs import QUIET

from hidden_subnet.config.convert import as_dict, from_dict
from hidden_subnet.config.identity import folder_name
from hidden_subnet.config.registries import ALLOCATIONS
from hidden_subnet.errors import ConfigError
from hidden_subnet.masks.allocation import AllocationRequest
from hidden_subnet.sweep.execute import execute
from hidden_subnet.sweep.preflight import preflight
from hydra_plugins.hidden_subnet.options import keep_back_options

__all__ = ["forgotten", "use"]

BUDGET = """
import hidden_subnet as hs

@hs.register_budget("mine")
def mine(shapes, prune_rate):
    {}
"""
SIZED = BUDGET.format("return [0 if len(shape) == 4 else prune_rate for shape in shapes]")
SMALL = ("pruning=mine", "model=conv2", "model.width=0.125", "data=digits", "train.epochs=1", "train.batch_size=500")


def test_each_layer_keeps_what_the_function_says(use: Use) -> None:
    use(SIZED)
    scores = [torch.nn.Parameter(torch.randn(shape)) for shape in ((2, 1, 3, 3), (4, 10))]
    allocation = ALLOCATIONS["mine"].make(AllocationRequest(scores, scores, [9, 10], 0.9, 0.1, by_value=False))
    kept = [int(each.mask(layer).sum()) for each, layer in zip(allocation.selections(), scores, strict=True)]
    assert kept == [18, 4]
    allocation.set_rate(0.5)
    kept = [int(each.mask(layer).sum()) for each, layer in zip(allocation.selections(), scores, strict=True)]
    assert kept == [18, 20]


def test_a_run_has_it_in_its_layers_and_its_name(use: Use, tmp_path: Path) -> None:
    used = use(SIZED)
    config = composed(used, *SMALL, "prune_rate=0.9", f"out={tmp_path}")
    preflight([config])
    outcome = execute(config, QUIET)
    assert outcome.result is not None
    for layer in outcome.result["layers"]:
        share = layer["kept"] / layer["weights"]
        assert share == 1 if len(layer["shape"]) == 4 else share == pytest.approx(0.1, abs=0.01)
    assert "-mine-" in folder_name(config)
    assert config.code is not None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return [prune_rate]", "returns 1 rates for 5 layers"),
        ("return [1.0 for _ in shapes]", r"returns the rate 1 for a layer of shape \(8, 1, 3, 3\) at prune_rate=0.5"),
        ("return [float('nan') for _ in shapes]", "returns the rate nan"),
        ("return shapes[9]", "my_own_parts.py, line 6: IndexError: list index out of range"),
        ("return 0.5", "TypeError"),
    ],
)
def test_a_wrong_budget_is_refused_in_one_line_before_the_first_run(
    use: Use, tmp_path: Path, body: str, words: str
) -> None:
    config = composed(use(BUDGET.format(body)), *SMALL, f"out={tmp_path / 'runs'}")
    with pytest.raises(ConfigError, match=rf"^pruning=mine: .*{words}") as caught:
        preflight([config])
    assert "\n" not in str(caught.value)


def test_a_function_of_other_arguments_is_refused(use: Use) -> None:
    with pytest.raises(ConfigError, match=r"mine: takes \(prune_rate\), and is called with 2 values"):
        use(SIZED.replace("(shapes, prune_rate)", "(prune_rate)"))


def test_further_arguments_of_a_budget_are_settings(use: Use, tmp_path: Path) -> None:
    text = SIZED.replace("(shapes, prune_rate)", "(shapes, prune_rate, *, share: float = 1.0)")
    used = use(text.replace("else prune_rate", "else share * prune_rate"))
    config = composed(used, *SMALL, "prune_rate=0.9", "pruning.share=0.5", f"out={tmp_path}")
    assert from_dict(as_dict(config)) == config
    preflight([config])
    outcome = execute(config, QUIET)
    assert outcome.result is not None
    for layer in outcome.result["layers"]:
        assert layer["kept"] / layer["weights"] == pytest.approx(1 if len(layer["shape"]) == 4 else 0.55, abs=0.01)
    assert folder_name(config) != folder_name(composed(used, *SMALL, "prune_rate=0.9", f"out={tmp_path}"))
    with pytest.raises(ConfigError, match=r"pruning.shar=0.5: .* did you mean: pruning.share=0.5$"):
        composed(used, *SMALL, "pruning.shar=0.5")
    with pytest.raises(
        ConfigError, match=r"pruning.share=0.5: .* setting of the chosen pruning; type: pruning=mine pru"
    ):
        composed(used, "pruning.share=0.5")


def test_a_sweep_gives_a_budget_s_setting_to_the_runs_that_have_it() -> None:
    arguments = ["pruning=mine,layerwise", "pruning.share=0.5", "pruning.floor=0.2"]
    assert keep_back_options(arguments) == ["pruning=mine,layerwise", "pruning.share=choice(0.5)", "pruning.floor=0.2"]
