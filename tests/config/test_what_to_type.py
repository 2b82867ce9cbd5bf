"""Every refusal ends in what to type: the texts are read from the code, so that a new one is among them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    *sorted((ROOT / "hydra_plugins/hidden_subnet").glob("*.py")),
    *sorted(set((ROOT / "hidden_subnet").rglob("*.py")) - {ROOT / "hidden_subnet/config/data_info.py"}),
]
"""data_info.py raises errors for callers, and none for a user."""
VALUE_ERRORS = [ROOT / "hidden_subnet" / each for each in ("models/own_network.py", "models/pretrained_weights.py")]
"""Files whose ValueErrors are refusals, too."""
ERRORS = {"ConfigError", "DataError"}
ENDS = re.compile(r"(?:type|did you mean|as in): ?\S.*$|give the (?:same )?command (?:again|later)$", re.DOTALL)
MADE_ELSEWHERE = "{...}"
"""Stands for the value of an expression; a line that ends so is made elsewhere, and not judged."""


def constants(tree: ast.Module) -> dict[str, str]:
    """Return the texts that a module holds by name, such as the end of several messages."""
    assigned = [each for each in tree.body if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name)]
    return {each.targets[0].id: text(each.value, {}) for each in assigned if isinstance(each.targets[0], ast.Name)}


def text(node: ast.expr, known: dict[str, str]) -> str:
    """Return a text as it is written, with MADE_ELSEWHERE for each value in it."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr():
            return "".join(text(each, known) for each in node.values)
        case ast.FormattedValue():
            return text(node.value, known)
        case ast.Name():
            return known.get(node.id, MADE_ELSEWHERE)
        case ast.Call(func=ast.Name(id="problem")):
            return "type: this"
        case ast.Call(func=ast.Attribute(attr="format")):
            return text(node.func.value, known)
    return MADE_ELSEWHERE


def refusals(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of each error of a user's that a file raises or returns."""
    tree = ast.parse(path.read_text())
    known = constants(tree)
    for call in (each for each in ast.walk(tree) if isinstance(each, ast.Call)):
        if isinstance(call.func, ast.Name) and call.args:
            said = text(call.args[0], known)
            if (
                call.func.id in (ERRORS | {"ValueError"} if path in VALUE_ERRORS else ERRORS)
                or "is not a preset" in said
            ):
                yield call.lineno, said


@pytest.mark.parametrize("path", FILES, ids=[str(each.relative_to(ROOT)) for each in FILES])
def test_it_ends_in_what_to_type(path: Path) -> None:
    wrong = [each for each in refusals(path) if not each[1].endswith(MADE_ELSEWHERE) and not ENDS.search(each[1])]
    assert wrong == []


def test_the_texts_are_found() -> None:
    said = [said for path in FILES for _, said in refusals(path)]
    assert len([each for each in said if not each.endswith(MADE_ELSEWHERE)]) > 60
    assert "{...} is not a preset: it names no setting; as in: grids: [{prune_rate: [0.1, 0.5]}]" in said
