"""The picture of what edge-popup is says what its script finds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.slow
def test_the_learned_half_is_better_than_the_whole(tmp_path: Path) -> None:
    command = [sys.executable, str(DOCS / "edge_popup.py"), str(tmp_path / "drawn.png")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    whole, random, learned = (float(each) for each in re.findall(r"([\d.]+)%", done.stdout))
    assert max(whole, random) < 60 < 85 < learned
    assert [path.name for path in tmp_path.iterdir()] == ["drawn.png"]
