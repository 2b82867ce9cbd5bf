"""checkpoint.keep=mask: a finished run has its masks in the place of its checkpoints, and all that reads it does so."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs import QUIET, interrupt, rows_without_times, small, with_mask

import hidden_subnet
from hidden_subnet.analysis.export import export
from hidden_subnet.cli.evaluate import evaluate
from hidden_subnet.cli.main import main
from hidden_subnet.config.settings import Checkpoint, Config, Device, Init, Keep, Model, Norm, Pruning
from hidden_subnet.methods.sampled import Evaluation, SampledSettings
from hidden_subnet.store import files
from hidden_subnet.sweep.execute import RunObserver, execute
from hidden_subnet.training.given_mask import resolve_mask

MAKE: dict[str, Callable[[Path], Config]] = {
    "edge_popup": small,
    "signed": lambda out: small(out, "signed"),
    "multicoat": lambda out: small(out, "multicoat"),
    "biprop": lambda out: replace(small(out, "biprop"), init=Init(name="kaiming_normal")),
    "gem_miner": lambda out: replace(small(out, "gem_miner"), pruning=Pruning(name="global"), prune_rate=0.9),
    "fixed": lambda out: small(out, "fixed"),
    "masked": lambda out: with_mask(small(out)),
    "random": lambda out: small(out, "random"),
    "batch_norm": lambda out: replace(
        small(out, epochs=2, norm_affine=True), model=Model(name="resnet20", width=0.125, norm=Norm.batch)
    ),
}


def keeping(config: Config, keep: Keep = Keep.mask, every: int = 0) -> Config:
    return replace(config, checkpoint=Checkpoint(keep=keep, every=every))


def without_place(folder: Path) -> dict[str, Any]:
    result = files.read_result(folder)
    assert result is not None
    return {key: value for key, value in result.items() if key not in ("seconds", "environment")}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.mark.parametrize("name", MAKE)
def test_all_that_reads_a_run_reads_its_masks(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usual = execute(MAKE[name](tmp_path / "usual"), QUIET).folder
    outcome = execute(keeping(MAKE[name](tmp_path / "kept")), QUIET)
    kept = outcome.folder
    assert outcome.state == "done", outcome.message
    assert kept.name == usual.name
    assert without_place(kept) == without_place(usual)
    trained = name not in ("fixed", "random")
    assert names(kept) == (["best.mask", "last.mask"] if trained else ["last.mask"] if name == "fixed" else [])
    for which in ("last", "best") if trained else ("last",):
        one, other = hidden_subnet.load(usual, which), hidden_subnet.load(kept, which)  # type: ignore[arg-type]
        state = one.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items())
        masks = hidden_subnet.load_masks(usual, which)  # type: ignore[arg-type]
        found = hidden_subnet.load_masks(kept, which)  # type: ignore[arg-type]
        assert all(torch.equal(mask, found[path]) for path, mask in masks.items())
    exported = [torch.load(export(folder, "last", tmp_path / f"{folder.parent.name}.pt")) for folder in (usual, kept)]
    assert all(torch.equal(value, exported[1][key]) for key, value in exported[0].items())
    assert evaluate(kept.parent, kept.name, Device.auto, None) == 0
    assert "equal to the last bit" in capsys.readouterr().out
    digests = [resolve_mask(replace(small(tmp_path), mask=str(folder))).mask_sha256 for folder in (usual, kept)]
    assert digests[0] == digests[1]
    pair = hidden_subnet.compare(usual, kept)
    assert set(pair["jaccard"]) == {1.0}


def test_epochs_that_are_kept_are_masks_too(tmp_path: Path) -> None:
    folder = execute(keeping(small(tmp_path), every=2), QUIET).folder
    assert names(folder) == ["best.mask", "epoch_2.mask", "last.mask"]
    assert hidden_subnet.load_masks(folder, 2).keys() == hidden_subnet.load_masks(folder).keys()
    with pytest.raises(FileNotFoundError, match="no checkpoint of the name first; it has best, 2, last"):
        hidden_subnet.load(folder, "first")
    with pytest.raises(ValueError, match=r"keeps its masks and no scores \(checkpoint\.keep=mask\)"):
        hidden_subnet.load_scores(folder)


def test_an_interrupted_run_ends_with_the_same_masks(tmp_path: Path) -> None:
    whole = execute(keeping(small(tmp_path / "whole")), QUIET).folder
    config = keeping(small(tmp_path / "broken"))
    interrupt(config, 7)
    broken = execute(config, QUIET).folder
    assert rows_without_times(whole) == rows_without_times(broken)
    for name in ("last.mask", "best.mask"):
        one, other = (hidden_subnet.load_masks(folder / "checkpoints" / name) for folder in (whole, broken))
        assert all(torch.equal(mask, other[path]) for path, mask in one.items())


def test_run_again_with_force_it_has_what_is_asked_for_now(tmp_path: Path) -> None:
    config = small(tmp_path, epochs=1)
    for keep, expected in (
        (Keep.mask, ["best.mask", "last.mask"]),
        (Keep.all, ["best.ckpt", "first.ckpt", "last.ckpt"]),
        (Keep.mask, ["best.mask", "last.mask"]),
    ):
        assert names(execute(replace(keeping(config, keep), force=True), QUIET).folder) == expected


def test_checkpoints_stay_where_the_masks_do_not_give_the_weights(tmp_path: Path) -> None:
    """As a method of the user's own may do, which no trait tells."""
    config = replace(small(tmp_path, "sampled", epochs=1), method=SampledSettings(evaluation=Evaluation.mean))
    said: list[str] = []
    outcome = execute(keeping(config), RunObserver(QUIET.on_row, QUIET.on_step, said.append))
    assert outcome.state == "done"
    assert names(outcome.folder) == ["best.ckpt", "first.ckpt", "last.ckpt"]
    assert any("its masks alone do not give its weights again" in line for line in said)


def test_masks_of_another_run_are_refused(tmp_path: Path) -> None:
    one = execute(keeping(small(tmp_path / "one", epochs=1)), QUIET).folder
    other = execute(keeping(replace(small(tmp_path / "other", epochs=1), seed=1)), QUIET).folder
    (one / "checkpoints" / "last.mask").write_bytes((other / "checkpoints" / "last.mask").read_bytes())
    with pytest.raises(ValueError, match=r"last\.mask is of the run with the id .* another file was put there"):
        hidden_subnet.load(one)


def test_controls_need_scores_and_show_does_not(tmp_path: Path) -> None:
    folder = execute(keeping(small(tmp_path, epochs=1)), QUIET).folder
    with pytest.raises(SystemExit) as ended:
        main(["controls", str(folder)])
    assert "keeps its masks and no scores" in str(ended.value.code)
    assert str(ended.value.code).endswith("; type: checkpoint.keep=all force=true")
    with pytest.raises(SystemExit) as ended:
        main(["show", str(folder), "--to", str(tmp_path / "x.png")])
    assert ended.value.code == 0
