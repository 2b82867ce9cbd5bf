"""The digest of a user's own code: what counts as another code, and which files belong to it."""

from pathlib import Path

import pytest

from hidden_subnet.config.source_digest import source_digest, source_files

CODE = '''"""Parts."""
import math

def double(x):
    """Return 2 x."""
    return f"{x * 2:>{4}}"
'''


def digest(folder: Path, name: str = "mine.py") -> str:
    return source_digest(folder / name, source_files(folder / name, folder), folder)


@pytest.mark.parametrize(
    ("old", "new", "is_same"),
    [
        ('"""Parts."""', '"""Other words."""', True),
        ('"""Parts."""\n', "", True),
        ('    """Return 2 x."""\n', "", True),
        ("import math\n", "import math  # why\n\n\n# a comment\n", True),
        ("    return", "\treturn", True),
        ("x * 2", "x*2", False),  # within a text, blank space may mean something
        ("def double(x):", "def double( x ) :", True),
        ("x * 2", "x * 3", False),
        ("double", "twice", False),
        ("import math", "import cmath", False),
    ],
)
def test_what_is_another_code(tmp_path: Path, old: str, new: str, is_same: bool) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    before = digest(tmp_path)
    assert old in CODE
    text = CODE.replace(old, new)
    (tmp_path / "mine.py").write_text(text.replace("    ", "\t") if "\t" in new else text)
    assert (digest(tmp_path) == before) is is_same


def test_the_digest_is_the_same_in_every_version_of_python(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    assert digest(tmp_path) == "b3d1a4e3f527c87a"


def test_neighbours_that_are_imported_belong_to_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import near\n\ndef later():\n    from pack.inner import thing\n")
    (tmp_path / "near.py").write_text("import os, nearer\n")
    (tmp_path / "nearer.py").write_text("a = 1\n")
    (tmp_path / "stranger.py").write_text("b = 1\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "inner.py").write_text("from . import other\nthing = 1\n")
    (tmp_path / "pack" / "other.py").write_text("")
    found = source_files(tmp_path / "mine.py", tmp_path)
    names = ["mine.py", "near.py", "nearer.py", "pack/__init__.py", "pack/inner.py", "pack/other.py"]
    assert [path.relative_to(tmp_path).as_posix() for path in found] == names
    before = digest(tmp_path)
    (tmp_path / "stranger.py").write_text("b = 2\n")
    assert digest(tmp_path) == before
    (tmp_path / "nearer.py").write_text("a = 2\n")
    assert digest(tmp_path) != before


def test_a_circle_of_imports_ends(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import near\n")
    (tmp_path / "near.py").write_text("import mine\n")
    assert len(source_files(tmp_path / "mine.py", tmp_path)) == 2
