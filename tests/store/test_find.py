"""The names by which Python functions find a run."""

from pathlib import Path

import pytest
from helpers.run_folders import config, finish

from hidden_subnet.store.find import run_folder


def test_a_run_is_found_by_path_beginning_and_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    edge_popup, dense = finish(runs, config(), 0.5), finish(runs, config("dense"), 0.5)
    monkeypatch.chdir(tmp_path)
    for name in (edge_popup, str(edge_popup), f"runs/{edge_popup.name}", edge_popup.name, edge_popup.name[-12:]):
        assert run_folder(name) == edge_popup
    for name in ("digits-conv2-dense", "runs/digits-conv2-d", str(runs / "digits-conv2-d")):
        assert run_folder(name) == dense


def test_what_fits_none_or_several_is_refused_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    edge_popup, _ = finish(runs, config(), 0.5), finish(runs, config("dense"), 0.5)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"is called 'digits-conv2-edje'; did you mean: {edge_popup.name}"):
        run_folder("digits-conv2-edje")
    with pytest.raises(FileNotFoundError, match=r"2 runs begin with 'digits'"):
        run_folder("digits")
    with pytest.raises(FileNotFoundError, match=r"elsewhere is not a folder; name that of the runs, as in: runs"):
        run_folder("elsewhere/digits")
