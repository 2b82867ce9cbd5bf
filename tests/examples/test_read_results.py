"""examples/read_results.ipynb runs as it is, from a sweep to a table, a figure and a subnetwork; it is kept empty."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hidden_subnet.report.results import results

NOTEBOOK = Path(__file__).parents[2] / "examples" / "read_results.ipynb"


def test_the_notebook_runs(tmp_path: Path) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [each for cell in notebook.cells if cell.cell_type == "code" for each in cell.outputs]
    pictures = [each for each in outputs if "image/png" in each.get("data", {})]
    assert len(pictures) == 1
    runs = results(tmp_path / "runs")
    assert sorted(runs["prune_rate"]) == [0.1, 0.1, 0.5, 0.5, 0.9, 0.9]
    assert set(runs["state"]) == {"done"}
    printed = "".join(each.text for each in outputs if each.output_type == "stream" and each.name == "stdout")
    assert re.search(rf"^{runs['last_test_top1'].max():.1%} of 360 test images$", printed, re.MULTILINE)
    assert "fc1: (300, 64), keeps 90.0%" in printed


def test_it_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]
