"""A preset may stand anywhere: it is named by its path, or lies in sweeps/ of the working directory."""

import os
from pathlib import Path

import pytest
from helpers.forked_launch import Launch

from hidden_subnet.cli.help import options
from hidden_subnet.config.presets import own_presets, with_own_preset
from hidden_subnet.errors import ConfigError

ROOT = Path(__file__).parents[2]
TWO = "# Two runs of mine.\ncommon: {data: synthetic, model: fc, tracker: none}\ngrids: [{prune_rate: [0.25, 0.75]}]\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").mkdir()
    return tmp_path


def test_a_preset_is_named_by_its_path(here: Path) -> None:
    path = here / "my q,1.yaml"
    path.write_text(TWO)
    words, own = with_own_preset(["-m", f"sweep={path}", "seed=1"])
    assert (words, own) == (["-m", "sweep=my-q-1", "seed=1"], {"my-q-1": path})
    assert with_own_preset(["sweep='my q,1.yaml'"]) == (["sweep=my-q-1"], {"my-q-1": Path("my q,1.yaml")})


def test_a_preset_of_the_working_directory_is_found_by_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("sweeps/mine.yaml")
    path.write_text(TWO)
    assert with_own_preset(["sweep=mine"]) == (["sweep=mine"], {"mine": path})
    assert capsys.readouterr().out == ""
    assert options(ROOT, "sweep")["mine"] == "Two runs of mine."
    assert with_own_preset(["sweep=depth", "seed=mine"]) == (["sweep=depth", "seed=mine"], {})


def test_one_of_the_name_of_ours_goes_before_it_and_a_line_says_so(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("sweeps/depth.yaml").write_text(TWO)
    assert with_own_preset(["sweep=depth"])[1] == {"depth": Path("sweeps/depth.yaml")}
    said = capsys.readouterr().out
    assert said == f"sweep=depth: {here}/sweeps/depth.yaml is taken, not the preset of that name in {ROOT}/sweeps\n"


def test_in_the_checkout_all_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert own_presets() == {}
    assert with_own_preset(["sweep=depth"]) == (["sweep=depth"], {})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_another_users_preset_is_not_taken_by_its_name(here: Path) -> None:
    path = Path("sweeps/depth.yaml")
    path.write_text(TWO)
    os.chown(path, 12345, 12345)
    line = r"another user's; if you trust it, type: python launch.py -m sweep=sweeps/depth.yaml seed=1$"
    with pytest.raises(ConfigError, match=line):
        with_own_preset(["-m", "sweep=depth", "seed=1"])
    assert with_own_preset(["sweep=sweeps/depth.yaml"])[1] == {"depth": path}


def test_a_path_where_no_file_is(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"^sweep=/no/q.yaml: there is no such file; as in: sweep=prune_rates$"):
        with_own_preset(["sweep=/no/q.yaml"])


def test_it_is_composed_and_names_the_sweep(launch: Launch, here: Path) -> None:
    path = here / "q.yaml"
    path.write_text(TWO)
    done = launch(here, f"sweep={path}", "train.epochs=2", "plan=true")
    assert done.returncode == 0, done.stderr
    assert "plan: 2 runs" in done.stdout
    assert "-pr0.25-" in done.stdout
    path.write_text("nothing: 1\n")
    done = launch(here, f"sweep={path}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"error: {path} is not a preset" in done.stderr
    path.write_text(TWO)
    done = launch(here, f"sweep={path}", "data=digit")
    assert done.stderr.startswith("error: data=digit: there is no such data (")
