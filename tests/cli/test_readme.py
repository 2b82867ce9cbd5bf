"""README.md and the method in CONTRIBUTING.md say what is so: their commands, code, tree and links."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from hidden_subnet.config.registries import METHODS
from hidden_subnet.masks.layers import mask_layers, masked_layers
from hidden_subnet.masks.selection import TopKSelection
from hidden_subnet.masks.topk import kept_count

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


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


def method_example() -> tuple[str, str]:
    """The file of the method and the yaml that CONTRIBUTING.md's "Add a method to the package" shows."""
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## Add a method to the package")[1]
    code, options = (re.findall(rf"```{kind}\n(.*?)```", section, flags=re.DOTALL) for kind in ("python", "yaml"))
    assert (len(code), len(options)) == (1, 1)
    return code[0], options[0]


def test_the_method_example_is_a_rule() -> None:
    names: dict[str, Any] = {}
    try:
        exec(method_example()[0], names)
    finally:
        METHODS.pop("winners", None)
    layer = nn.Linear(2, 2, bias=False)
    mask_layers(layer)
    [(_, masked)] = masked_layers(layer)
    masked.rule = names["WinnersRule"](TopKSelection(kept_count(4, 0.5)))
    masked.weight.detach().copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    masked.scores.detach().copy_(torch.tensor([[-9.0, 0.1], [0.2, -0.3]]))
    effective = masked.effective_weight()
    assert effective.tolist() == [[1, 0], [0, 4]]
    effective.sum().backward()
    assert masked.scores.grad is not None
    assert masked.scores.grad.tolist() == [[-1, 0], [0, -4]]


@pytest.mark.slow
def test_the_method_example_works_in_two_files(tmp_path: Path) -> None:
    """In a copy of the repository: two new files, no line changed, and it is composed, trained and listed."""
    for name in ("hidden_subnet", "hydra_plugins", "conf", "sweeps"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "launch.py", tmp_path)
    code, options = method_example()
    (tmp_path / "hidden_subnet" / "methods" / "winners.py").write_text(code)
    (tmp_path / "conf" / "method" / "winners.yaml").write_text(options)

    said = executed(tmp_path, "launch.py", "--help", package=tmp_path)
    assert "edge-popup in which only the scores of kept weights learn" in said
    sweep = ("-m", "method=winners,edge_popup", "pruning=layerwise,global", "train.epochs=3", "tracker=none")
    executed(tmp_path, "launch.py", *sweep, package=tmp_path)
    found = {path.name: json.loads((path / "result.json").read_text()) for path in (tmp_path / "runs").glob("*-s0-*")}
    assert sum("-winners-" in name for name in found) == 2
    for name, result in found.items():
        assert result["density"] == pytest.approx(0.5, abs=1e-3)
        assert result["last"]["test"]["top1"] > 0.8, name


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_idea_learns() -> None:
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(python_blocks()[0], names)
    net, optimizer = names["net"], names["optimizer"]
    images, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
    images = images.float() / 16
    weights = [layer.weight.clone() for layer in (net[0], net[2])]
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images[:1400]), labels[:1400]).backward()
        optimizer.step()
    assert (net(images[1400:]).argmax(1) == labels[1400:]).float().mean() > 0.75
    assert all(torch.equal(layer.weight, before) for layer, before in zip((net[0], net[2]), weights, strict=True))


def executed(cwd: Path, *words: str, package: Path = ROOT) -> str:
    """Execute Python in `cwd`, with the package that lies in the folder `package`; return what it printed."""
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(package), "WANDB_MODE": "offline"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_results_are_read(tmp_path: Path) -> None:
    (tmp_path / "read.py").write_text(python_blocks()[1] + "\nprint(accuracy.item() == result.accuracy, len(table))\n")
    assert "True 1" in executed(tmp_path, "read.py")


@pytest.mark.slow
def test_the_own_parts_run(tmp_path: Path) -> None:
    (tmp_path / "my_parts.py").write_text(python_blocks()[2])
    [command] = re.findall(r"^python launch\.py (-m use=my_parts\.py .*)$", README, flags=re.MULTILINE)
    said = executed(tmp_path, str(ROOT / "launch.py"), *command.split(), "train.epochs=1", "tracker=none")
    assert "4 done in" in said


def test_it_is_a_page() -> None:
    assert len(README.splitlines()) <= 170
    assert len(README.split()) <= 1600


def test_what_it_names_is_there() -> None:
    for name in re.findall(r"^    ([a-z_]+(?:\.py|/))", README, flags=re.MULTILINE):
        assert (ROOT / name).exists() or name == "runs/", name


def anchors(text: str) -> set[str]:
    """The anchors that GitHub and MkDocs give to the headings of a page."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), flags=re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    assert "@@" not in text
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        found = page if not file else (page.parent / file).resolve()
        assert found.exists(), target
        assert not anchor or anchor in anchors(found.read_text()), target


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    named = set(re.findall(r"\]\(([a-z_]+\.md)\)", index))
    assert named == {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
