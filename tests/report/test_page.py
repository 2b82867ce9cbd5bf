"""The page of a sweep: what is in it, and what is not."""

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from helpers.run_folders import config, fail, finish

from hidden_subnet.config.settings import Model
from hidden_subnet.report.page import page
from hidden_subnet.store.read import read_runs
from hidden_subnet.store.redact import without_folders

ROWS = [
    {"epoch": 0, "validation/top1": 0.125},
    {"epoch": 1, "train/top1": 0.5, "validation/top1": 0.25, "test/top1": 0.123456},
]


class Opened(HTMLParser):
    """Tags that are open at the end of a text; those that need no end are left out."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page.partition("<script type")[0])))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Four runs: two seeds of one network, one of another rate with rows and controls, and one that failed."""
    finish(tmp_path, config(), 0.9)
    finish(tmp_path, config(seed=1), 0.7)
    rich = finish(tmp_path, config(prune_rate=0.9), 0.5, collapsed=True)
    (rich / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    controls = {"controls": [{"name": "scores inverted", "test_top1": [0.1, 0.2], "says": "the <mask> matters"}]}
    (rich / "controls.json").write_text(json.dumps(controls))
    (rich / "provenance.json").write_text(
        json.dumps(
            {"host": "node7", "device": "cuda", "git": {"commit": "abc", "dirty": True}, "versions": {"torch": "2.4"}}
        )
    )
    fail(tmp_path, config("dense"), 'ValueError: "/home/me/images/a.jpg" <b> api_key=' + "0123456789" * 4)
    return tmp_path


def test_what_is_told(out: Path) -> None:
    made = page("first", read_runs(out), question="does it?", command="launch.py -m seed=0,1 out=/scratch/me/runs")
    assert Opened(made).open == []
    said = text_of(made)
    for words in (
        "does it? launch.py -m seed=0,1 out=…/runs 4 runs: 3 done, 1 failed, 1 collapsed. Together",
        "they took 12.0 seconds.",
        "edge_popup 0.5 0.5000 6.25 80.00 ± 14.14 2 4.0 done",  # a line of the table
        "edge_popup 0.9 0 50.00 50.00 0.1000 4.0 done, collapsed",  # a run
        "scores inverted 15.00 % the <mask> matters",
        "code abc with changes device cuda",
        "torch 2.4",
        'ValueError: "…/a.jpg" <b> [a key is left out]',
    ):
        assert words in said


def test_curves(out: Path) -> None:
    found = re.search(r'<script type="application/json" id="curves">(.*?)</script>', page("first", read_runs(out)))
    assert found is not None
    [curves] = json.loads(found[1]).values()
    assert curves == {
        "epoch": [0, 1],
        "train": [None, 0.5],
        "validation": [0.125, 0.25],
        "test": [None, 0.1235],
    }


def test_folders_and_hosts_only_where_asked(out: Path) -> None:
    runs = read_runs(out)
    for words in ("/home/me", "node7", "/scratch", str(out)):
        assert words not in page("first", runs, command="launch.py out=/scratch/me/runs")
    asked = page("first", runs, command="launch.py out=/scratch/me/runs", paths=True)
    for words in ("/home/me", "node7", "/scratch"):
        assert words in asked
    assert "0123456789" not in asked


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('File "/home/me/a b/x.py", line 3', 'File "…/x.py", line 3'),
        ("out=/data/runs", "out=…/runs"),
        ("~/runs/a", "…/a"),
        ("../other/a.yaml", "…/a.yaml"),
        ("https://example.org/a/b.html", "https://example.org/a/b.html"),
        ("1/2 and a/b", "1/2 and a/b"),
        ("hydra/launcher=slurm", "hydra/launcher=slurm"),
    ],
)
def test_folders_are_left_out(text: str, told: str) -> None:
    assert without_folders(text) == told


def test_text_is_no_markup(tmp_path: Path) -> None:
    """Names and settings in a folder of runs may be anybody's."""
    folder = finish(tmp_path, replace(config(), model=Model(name="conv2")), 0.9)
    folder.rename(tmp_path / "x'\"><script>alert(1)<-0123456789ab")
    (tmp_path / "x'\"><script>alert(1)<-0123456789ab" / "metrics.jsonl").write_text(json.dumps(ROWS[1]) + "\n")
    made = page("</title><script>", read_runs(tmp_path))
    assert "<script>alert" not in made
    assert Opened(made).open == []


def test_reloads_only_while_runs_are_running(out: Path) -> None:
    runs = read_runs(out)
    assert 'http-equiv="refresh" content="10"' in page("first", runs, refresh=10)
    assert "refresh" not in page("first", runs).partition("</head>")[0]
