"""Every rule that a config must keep: the line names the value and the rule, and what it ends in can be typed.

broken_rules.txt holds what is typed, and the line that comes back.
"""

import ast
import math
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from helpers.image_folders import make_folder
from helpers.runs import with_mask

from hidden_subnet.config import checks
from hidden_subnet.config.ranges import Bounded, contains, ranges_in
from hidden_subnet.config.registries import DATA, METHODS
from hidden_subnet.config.settings import Config, Data
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.methods import dnw, warmup_then_prune
from hidden_subnet.models import networks, sizes, torchvision
from hydra_plugins.hidden_subnet.suggestions import all_settings

Compose = Callable[..., Config]
TEXT = (Path(__file__).parent / "broken_rules.txt").read_text()
LINES = re.findall(r"^\$ (.*)\n(.*)$", TEXT, flags=re.MULTILINE)
OF_METHODS = {f"method={each}": ranges_in(method.settings, "method.") for each, method in METHODS.items()}
OF_DATA = {f"data={each}": ranges_in(entry.settings, "data.") for each, entry in DATA.items()}
OF_PARTS = OF_METHODS | {part: each for part, each in OF_DATA.items() if each != ranges_in(Data, "data.")}
RANGES = {name: each for ranges in (ranges_in(Config), *OF_PARTS.values()) for name, each in ranges.items()}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("images"))


def refusal(compose: Compose, *words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(*words)
    return str(caught.value)


def corrected(words: list[str], line: str) -> list[str]:
    """Return what a user types next: the words of the first command, with those that the line ends in."""
    found = re.search(r"(?:type|did you mean|as in): (.+)$", line)
    assert found is not None, line
    settings = {word.partition("=")[0]: word for word in [*words, *shlex.split(found[1])]}
    settings.pop("method.name", None)  # what method=<name> stands for
    return list(settings.values())


@pytest.mark.parametrize(("typed", "line"), LINES, ids=[typed for typed, _ in LINES])
def test_broken_rule(compose: Compose, images: Path, typed: str, line: str) -> None:
    mask = str(with_mask(compose()).mask)
    words = typed.replace("IMAGES", str(images)).replace("MASK", mask).split()
    assert refusal(compose, *words) == line.replace("MASK", mask)
    compose(*(word.replace("runs/digits-conv2", mask) for word in corrected(words, line)))


def test_every_rule_is_among_them(compose: Compose, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules: list[ModuleType] = [checks, dnw, warmup_then_prune, networks, sizes, torchvision]
    reached: set[tuple[str | None, int]] = set()

    def noted(typed: str, rule: str, *words: str, lead: str = "type") -> str:
        frame = sys._getframe(1)
        reached.add((frame.f_code.co_filename, frame.f_lineno))
        return problem(typed, rule, *words, lead=lead)

    for module in modules:
        monkeypatch.setattr(module, "problem", noted)
    for typed, _ in LINES:
        refusal(compose, *typed.replace("IMAGES", str(images)).split())
    for module in modules:
        tree = ast.parse(Path(str(module.__file__)).read_text())
        calls = [each for each in ast.walk(tree) if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)]
        for call in calls:
            if call.func.id == "problem":  # type: ignore[attr-defined]
                lines = {(module.__file__, line) for line in range(call.lineno, (call.end_lineno or 0) + 1)}
                assert lines & reached, f"{module.__name__}: no test breaks the rule of line {call.lineno}"


def test_every_number_has_a_range() -> None:
    numbers = {name for name, each in all_settings().items() if each.kind in (int, float)}
    assert numbers - RANGES.keys() == {f"data.found.{each}" for each in ("classes", "train", "test")}
    assert RANGES.keys() <= numbers


def outside(bounded: Bounded, is_float: bool) -> Iterator[float]:
    """Values at the range's open ends and beyond all of its ends, and what is no number."""
    low, high = bounded.range.low, bounded.range.high
    if math.isfinite(low):
        yield from (math.floor(low) - 1, *([low] if bounded.range.above else []))
    if math.isfinite(high):
        yield from (1.5 * high, 10 * high, *([high] if bounded.range.below else []))
    if is_float:
        yield from (math.nan, math.inf, -math.inf)


@pytest.mark.parametrize("name", RANGES)
def test_number_outside_its_range(compose: Compose, name: str) -> None:
    bounded, is_float = RANGES[name], all_settings()[name].kind is float
    part = [each for each in OF_PARTS if name in OF_PARTS[each] and name not in ranges_in(Config)][:1]
    for value in outside(bounded, is_float):
        words = [*part, f"{name}={value:g}"]
        line = refusal(compose, *words)
        assert line.startswith(f"{name}={value:g}: ")
        assert " must be " in line
        typed = corrected(words, line)
        assert contains(bounded.range, float(typed[-1].partition("=")[2]))
        if "did you mean" in line:  # with the sign that was not meant, or a percent
            assert float(typed[-1].partition("=")[2]) in (-value, value / 100)


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("seed=-1", "seed=-1: must be 0 or larger; did you mean: seed=1"),
        ("train.epochs=0", "train.epochs=0: must be 1 or larger; as in: train.epochs=1"),
        ("train.lr=0", "train.lr=0: must be above 0 (for a control that is not trained: method=random); "
                       "as in: train.lr=0.1"),
        ("data.validation=1.5", "data.validation=1.5: the fraction held out must be at least 0 and below 1; "
                                "as in: data.validation=0.1"),
        ("data.validation=10", "data.validation=10: the fraction held out must be at least 0 and below 1; "
                               "did you mean: data.validation=0.1"),
        ("data.fraction=nan", "data.fraction=nan: the fraction trained on must be above 0 and at most 1; "
                              "as in: data.fraction=1"),
        ("data.crop=100", "data.crop=100: the pixels of padding must be 0 to 64 (0 is no random crop); "
                          "as in: data.crop=64"),
        # Its 12 digits, which are what counts, say 1: a mask would keep nothing.
        ("prune_rate=0.9999999999999", "prune_rate=1: the fraction of weights removed must be at least 0 and below 1 "
                                       "(0.9 keeps one weight in ten); as in: prune_rate=0.5"),
        ("method=sampled method.score_constant=inf", "method.score_constant=inf: must be a finite number (its sigmoid "
                                                     "is the density at first); as in: method.score_constant=0"),
    ],
)  # fmt: skip
def test_what_the_line_of_a_range_says(compose: Compose, typed: str, line: str) -> None:
    assert refusal(compose, *typed.split()) == line
