"""Functions of the user's own that fail: refused before the first run where that can be tried, else named with it."""

from pathlib import Path

import pytest
from helpers.own_parts import NET, Use, composed, forgotten, use
from helpers.runs import QUIET

from hidden_subnet.config.identity import projection
from hidden_subnet.config.registries import info_of
from hidden_subnet.errors import ConfigError
from hidden_subnet.models.from_config import random_network
from hidden_subnet.store import files
from hidden_subnet.sweep.execute import execute
from hidden_subnet.sweep.preflight import preflight

__all__ = ["forgotten", "use"]

QUICK = ("model=conv2", "model.width=0.125", "data=digits", "train.epochs=2", "train.batch_size=500")
METHOD = """
from dataclasses import dataclass
import hidden_subnet as hs

@dataclass
class Settings(hs.MethodSettings):
    pass

@hs.register_method("mine")
class Mine(hs.EdgePopup):
    settings = Settings
    def {}:
        {}
"""
INIT = "import hidden_subnet as hs\n@hs.register_init('mine')\ndef mine(weight, std, generator):\n    {}\n"
SCHEDULE = "import hidden_subnet as hs\n@hs.register_schedule('mine')\ndef mine(epoch, train):\n    {}\n"


def test_an_error_in_a_hook_names_the_line_of_the_users_code(use: Use, tmp_path: Path) -> None:
    used = use(METHOD.format("on_step_end(self, step)", "return self.layers[99]"))
    outcome = execute(composed(used, *QUICK, "method=mine", f"out={tmp_path}"), QUIET)
    assert outcome.state == "failed"
    assert outcome.message == "my_own_parts.py, line 13: IndexError: list index out of range"
    assert files.last_error_line(outcome.folder) == outcome.message
    assert "Traceback" in files.read_error(outcome.folder)


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("on_step_end(self)", r"on_step_end takes \(self\), and is called as in: def on_step_end\(self, step\)"),
        ("rule(self, selection)", r"def rule\(self, selection, path\)"),
        ("__init__(self, network)", r"def __init__\(self, network, config\)"),
        ("penalty(self, loss)", r"def penalty\(self\)"),
    ],
)
def test_a_hook_of_other_arguments_is_refused_when_it_is_imported(use: Use, hook: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        use(METHOD.format(hook, "pass"))
    assert "\n" not in str(caught.value)


def test_a_hook_may_have_further_arguments_with_defaults(use: Use) -> None:
    use(METHOD.format("on_step_end(self, number, *, more=3)", "pass"))


@pytest.mark.parametrize(
    ("text", "chosen", "words"),
    [
        (INIT.format("weight[0, 99] = 1"), "init=mine", r"^init=mine: my_own_parts.py, line 4: IndexError: .*; mend"),
        (INIT.format("pass"), "init=mine", r"^init=mine: left numbers of a weight of shape \(4, 3\) unset"),
        (
            SCHEDULE.format("return 1 / epoch"),
            "train.schedule=mine",
            r"^train.schedule=mine: .*line 4: ZeroDivisionError",
        ),
        (SCHEDULE.format("return 0.5 - epoch"), "train.schedule=mine", r"returns -0.5 in epoch 1; mend the function"),
    ],
)
def test_a_function_that_fails_is_refused_in_one_line_before_the_first_run(
    use: Use, tmp_path: Path, text: str, chosen: str, words: str
) -> None:
    config = composed(use(text), *QUICK, chosen, f"out={tmp_path / 'runs'}")
    with pytest.raises(ConfigError, match=words) as caught:
        preflight([config])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("text", [INIT.replace(", generator", ""), SCHEDULE.replace("epoch, train", "epoch")])
def test_a_function_of_other_arguments_is_refused_when_it_is_imported(use: Use, text: str) -> None:
    with pytest.raises(ConfigError, match=r"mine: takes \(.*\), and is called with \d values, as in: def mine\("):
        use(text.format("pass"))


CHOICE = NET.replace("from torch import nn", "from typing import Literal\nfrom torch import nn").replace(
    "hidden: int = 20", "hidden: int = 20, act: Literal['ReLU', 'Tanh'] = 'ReLU'"
)


def test_a_literal_is_a_closed_choice(use: Use) -> None:
    used = use(CHOICE.replace("nn.ReLU()", "vars(nn)[act]()"))
    config = composed(used, "model=my_net", "model.act=Tanh")
    assert projection(config)["model"]["act"] == "Tanh"
    assert type(random_network(config, info_of(config.data), 0)[2]).__name__ == "Tanh"  # type: ignore[index]
    with pytest.raises(ConfigError, match=r"model.act=tanhh: .*ReLU.*Tanh.*model.act=Tanh") as caught:
        composed(used, "model=my_net", "model.act=tanhh")
    assert "\n" not in str(caught.value)


def test_a_default_that_is_no_choice_is_refused(use: Use) -> None:
    with pytest.raises(ConfigError, match="act has the default 'GELU', which is none of ReLU, Tanh"):
        use(CHOICE.replace("= 'ReLU'", "= 'GELU'"))
