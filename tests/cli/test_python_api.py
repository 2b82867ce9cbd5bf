"""docs/python.md as it stands there, in a script without a guard for its processes, and what the functions refuse."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.own_parts import NET, forgotten

import hidden_subnet as hs
from hidden_subnet.errors import ConfigError
from hidden_subnet.store import files

__all__ = ["forgotten"]

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "python.md").read_text()
QUICK = ("model=fc", "data=synthetic", "train.epochs=1", "train.batch_size=100")


@pytest.mark.slow
def test_the_page_is_a_script_that_runs(tmp_path: Path) -> None:
    """Processes of runs do not import it, so that it needs no `if __name__`."""
    (tmp_path / "script.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)))
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "script.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
    assert "6 runs, 6 of them finished before" in done.stdout
    assert len([path for path in (tmp_path / "runs").iterdir() if (path / files.RESULT).exists()]) == 6


def test_run_is_the_run_of_the_command_line(tmp_path: Path) -> None:
    result = hs.run(*QUICK, prune_rate=0.25, out=str(tmp_path))
    assert result.folder.parent == tmp_path
    assert result.density == 0.75
    record = files.read_result(result.folder)
    assert record is not None
    assert result.accuracy == record["last"]["test"]["top1"]
    assert result.untrained == record["untrained"]["first_mask"]["top1"]
    assert result.history()["epoch"].tolist() == [0, 1]
    assert hs.history(result.folder).equals(result.history())
    masks, scores = hs.load_masks(result.folder), hs.load_scores(result.folder)
    network = hs.load(result.folder)
    for path, mask in masks.items():
        assert mask.sum().item() == round(0.75 * mask.numel())
        assert torch.equal(network.get_submodule(path).weight != 0, mask)
        assert scores[path].shape == mask.shape
        assert scores[path].abs()[mask].min() >= scores[path].abs()[~mask].max()
    again = hs.run(*QUICK, "prune_rate=0.25", f"out={tmp_path}")
    assert again == result


@pytest.mark.parametrize(
    ("words", "settings", "says"),
    [
        (["model=conv3"], {}, "model=conv3"),
        (["prune_rate"], {}, "prune_rate: is no setting"),
        ([], {"prune_rat": 0.5}, "prune_rat=0.5"),
        ([], {"prune_rate": 1.5}, "prune_rate=1.5"),
        (
            [],
            {"seed": [0, 1]},
            "seed=[0, 1]: is several values, and run executes one run; as in: hidden_subnet.run_sweep(seed=[0, 1])",
        ),
        ([], {"method": ["random", "dense"]}, "as in: hidden_subnet.run_sweep(method=['random', 'dense'])"),
        ([], {"use": "nowhere.py"}, "there is no such file"),
        (["use=my_parts.py"], {}, "use='my_parts.py'"),
    ],
)
def test_what_cannot_be_run_raises_the_line_of_the_command_line(
    tmp_path: Path, words: list[str], settings: dict[str, object], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        hs.run(*words, f"out={tmp_path}", **settings)  # type: ignore[arg-type]
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [*tmp_path.iterdir()]


def test_own_parts(forgotten: None, tmp_path: Path) -> None:
    (tmp_path / "my_net_file.py").write_text(NET)
    words = ("model=my_net", "model.hidden=5", *QUICK[1:])
    result = hs.run(*words, use=str(tmp_path / "my_net_file.py"), out=str(tmp_path / "runs"))
    assert hs.load_masks(result.folder)["1"].shape == (5, 64)


IMAGES = """
import numpy, hidden_subnet as hs

@hs.register_data("mine")
def mine(root):
    pixels = numpy.load(root / "pixels.npy")
    return hs.ImageData(pixels, numpy.arange(60) % 3, pixels, numpy.arange(60) % 3)
"""


def test_images_that_change_between_two_commands_are_another_run(forgotten: None, tmp_path: Path) -> None:
    (tmp_path / "my_images_file.py").write_text(IMAGES)
    names = set()
    for shade in (3, 3, 4):
        np.save(tmp_path / "pixels.npy", np.full((60, 1, 8, 8), shade, np.uint8))
        words = ("data=mine", f"data.root={tmp_path}", "model=fc", "method=random")
        result = hs.run(*words, use=str(tmp_path / "my_images_file.py"), out=str(tmp_path / "runs"))
        names.add(result.folder.name)
    assert len(names) == 2


def test_own_code_that_changes_after_its_import_is_refused(forgotten: None, tmp_path: Path) -> None:
    path = tmp_path / "my_net_file.py"
    path.write_text(NET)
    words = ("model=my_net", "method=random", "train.epochs=1")
    hs.run(*words, use=str(path), out=str(tmp_path / "runs"))
    path.write_text(f"# a comment is no change\n{NET}")
    hs.run(*words, use=str(path), out=str(tmp_path / "runs"))
    path.write_text(NET.replace("nn.ReLU", "nn.Tanh"))
    with pytest.raises(ConfigError, match=r"my_net_file.py: has changed since this process imported it, .* restart"):
        hs.run(*words, use=str(path), out=str(tmp_path / "runs"))
