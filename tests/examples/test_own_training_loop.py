"""The example of a training loop of one's own runs as its first lines say, and finds a subnetwork."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_training_loop.py"


def test_the_example_learns(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], cwd=tmp_path, capture_output=True, text=True, check=True)
    first, learned, plain = (float(each) for each in re.findall(r"([\d.]+)%", done.stdout))
    assert first < 30 < 90 < learned == plain
    assert "with 25,100 weights that are not 0" in done.stdout  # half of 50,200
    assert list(tmp_path.iterdir()) == []
