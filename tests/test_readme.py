"""README.md says what is so: its commands, its example, its tree."""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from hidden_subnet.layers import mask_layers, masked_layers
from hidden_subnet.masks import Scratch, kept_count
from hidden_subnet.methods.edge_popup import TopKRule
from hidden_subnet.settings import Config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_two_commands() -> None:
    blocks = re.findall(r"^```\n(.*?)\n```", README, flags=re.MULTILINE | re.DOTALL)
    assert blocks[:2] == [
        "pip install -e . && python launch.py -m prune_rate=0.1,0.3,0.5",
        "pip install -e '.[test]' && pytest",
    ]
    # CI types the second as it stands here, and the first without its installation.
    ci = (ROOT / ".ci" / "run").read_text()
    assert blocks[1] in ci
    assert "-m prune_rate=0.1,0.3,0.5" in ci


def test_commands_name_settings_that_exist(compose_single: Callable[..., Config]) -> None:
    lines = re.findall(r"^python launch\.py (.*?)(?:\s+#.*)?$", README, flags=re.MULTILINE)
    assert len(lines) >= 4
    for line in lines:
        arguments = [word for word in line.split() if "=" in word]
        compose_single(*arguments)


def test_the_method_example_works_as_written() -> None:
    blocks = [block for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "WINNERS" in block]
    assert len(blocks) == 1
    names: dict[str, type] = {}
    exec(blocks[0], names)
    layer = nn.Linear(2, 2, bias=False)
    mask_layers(layer, lambda n: names["WinnersRule"](TopKRule(kept_count(n, 0.5), Scratch())))
    [(_, masked)] = masked_layers(layer)
    masked.weight.detach().copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    masked.scores.detach().copy_(torch.tensor([[-9.0, 0.1], [0.2, -0.3]]))
    effective = masked.effective_weight()
    assert effective.tolist() == [[1, 0], [0, 4]]
    effective.sum().backward()
    assert masked.scores.grad is not None
    assert masked.scores.grad.tolist() == [[-1, 0], [0, -4]]


def test_what_it_names_is_there() -> None:
    for name in re.findall(r"^    ([a-z_]+(?:\.py|/))", README, flags=re.MULTILINE):
        assert (ROOT / name).exists() or name == "runs/", name
    for image in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / image).exists()
    assert "@@" not in README
