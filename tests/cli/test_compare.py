"""The command compare prints what differs and what is in common; one run, or another network, is one line."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.runs import QUIET, small

from hidden_subnet.cli.main import main
from hidden_subnet.config.settings import Model
from hidden_subnet.store import files
from hidden_subnet.sweep.execute import execute


def call(*words: object) -> object:
    with pytest.raises(SystemExit) as exit:
        main(["compare", *map(str, words)])
    return exit.value.code


def test_two_runs_and_three(undisturbed: Callable[[str], Path], capfd: pytest.CaptureFixture[str]) -> None:
    learned, random = undisturbed("edge_popup"), undisturbed("random")
    assert call(learned, random) == 0
    said = capfd.readouterr().out
    assert f"A: {learned.name} (" in said
    assert "method.name: edge_popup, random" in said
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line.startswith(" ") and line.strip()}
    kept = [(files.read_result(folder) or {})["kept"] for folder in (learned, random)]
    assert [int(each.replace(",", "")) for each in rows["all"][2:4]] == kept
    assert "of the test images are taken for the same class" in said
    assert Path(said.splitlines()[-1].removeprefix("wrote ")).parent == learned.parent / "figures"
    assert call(learned, random, undisturbed("random_trained")) == 0
    said = capfd.readouterr().out
    assert [line.split()[:2] for line in said.splitlines() if line.startswith(" A,")] == [["A,", "B"], ["A,", "C"]]
    assert "Some have other weights under their masks" in said  # one trains them


def test_a_sign_column_only_where_signs_differ(
    undisturbed: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(undisturbed("edge_popup"), undisturbed("random"), "--to", tmp_path / "a.png") == 0
    assert "same sign" not in capfd.readouterr().out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    other = replace(small(tmp_path, "random"), seed=1)  # has other weights
    assert execute(other, QUIET).state == "done"
    assert call(undisturbed("edge_popup"), files.folder_of(other), "--to", tmp_path / "b.svg") == 0
    assert "same sign: of the weights that both keep" in capfd.readouterr().out
    assert "random masks" in (tmp_path / "b.svg").read_text()
    said = str(call(undisturbed("edge_popup"), undisturbed("random"), "--to", "a.jpg"))
    assert said == "error: --to a.jpg: is drawn as one of .png, .svg, .pdf; as in: --to a.png"


def test_what_cannot_be_compared_is_one_line(tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    learned = undisturbed("edge_popup")
    assert str(call(learned, learned)).endswith(
        ": one run has nothing to be compared with; name 2 to 26, as in: python -m hidden_subnet compare RUN OTHER_RUN"
    )
    other = replace(small(tmp_path, "random"), model=Model(name="fc", width=0.2))
    assert execute(other, QUIET).state == "done"
    line = str(call(learned, files.folder_of(other)))
    assert " are other networks (layer " in line
    assert line.endswith("; for the runs of one network, type: python -m hidden_subnet results")
