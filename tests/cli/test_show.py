"""The command show draws where it says and prints the layers; a wrong file is one line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hidden_subnet.cli.main import main
from hidden_subnet.store import files


def call(*words: str) -> object:
    with pytest.raises(SystemExit) as exit:
        main(["show", *words])
    return exit.value.code


def test_it_draws_and_prints(
    tmp_path: Path, undisturbed: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = undisturbed("edge_popup")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert call(str(folder)) == 0
    drawn = folder.parent / "figures" / f"{folder.name}.png"
    assert drawn.read_bytes().startswith(b"\x89PNG")
    said = capfd.readouterr().out.splitlines()
    result = files.read_result(folder)
    assert result is not None
    assert said[-1] == f"wrote {drawn}"
    assert f"checkpoint last: {result['last']['test']['top1']:.2%} of the" in said[-2]
    kept = [int(line.split()[2].replace(",", "")) for line in said if line.strip().startswith(("conv", "fc"))]
    assert sum(kept) == result["kept"]
    assert call(str(folder), "--which", "first", "--to", str(tmp_path / "new" / "x.svg")) == 0
    assert (tmp_path / "new" / "x.svg").read_text().startswith("<?xml")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    drawn.unlink()


def test_a_wrong_file_is_one_line(tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    folder = str(undisturbed("edge_popup"))
    line = f"error: --to {tmp_path}/x.gif: is drawn as one of .png, .svg, .pdf; as in: --to {tmp_path}/x.png"
    assert call(folder, "--to", str(tmp_path / "x.gif")) == line
    (tmp_path / "x.png").mkdir()
    assert "Is a directory" in str(call(folder, "--to", str(tmp_path / "x.png")))
    assert "no checkpoint of epoch 77" in str(call(folder, "--which", "77"))
