"""Digest of a Python file and of what it imports from its own folder, without comments, docstrings and blank space."""

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

SKIPPED = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}
MARKS = {tokenize.NEWLINE: "\n", tokenize.INDENT: "{", tokenize.DEDENT: "}"}
"""Texts of the tokens that are blank space in the file, but mean something."""


def source_files(file: Path, root: Path) -> list[Path]:
    """Return `file` and the files that it imports, directly or through others, from the folder `root`, sorted.

    Of an installed package those of the package alone, since all others, torch too, are beside it.
    Imports within functions count too; what is imported by a computed name is not found. Raises SyntaxError for a file
    that is not Python, OSError for one that cannot be read.
    """
    found: set[Path] = set()
    own = root / file.relative_to(root).parts[0] if root.name in ("site-packages", "dist-packages") else root
    packages = [folder / "__init__.py" for folder in file.parents if root in folder.parents]
    waiting = [file, *(path for path in packages if path.is_file())]
    while waiting:
        path = waiting.pop()
        if path not in found and (path == own or own in path.parents):
            found.add(path)
            waiting += _imports(path, root)
    return sorted(found)


def source_digest(main: Path, files: list[Path], root: Path) -> str:
    """Return 16 hex digits of the code of `files`, which `source_files(main, root)` gives. Raises OSError.

    The name of `main` does not count, those of the others do.
    """
    digest = hashlib.sha256()
    for file in files:
        name = "" if file == main else file.relative_to(root).as_posix()
        digest.update(f"{name}\0{_code(file)}\0".encode())
    return digest.hexdigest()[:16]


def _imports(file: Path, root: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(file.read_bytes(), filename=str(file))):
        if isinstance(node, ast.Import):
            for each in node.names:
                yield from _files_of(root, each.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = file.parents[node.level - 1] if node.level else root
            parts = node.module.split(".") if node.module else []
            for each in node.names:
                yield from _files_of(base, [*parts, each.name])


def _files_of(base: Path, parts: list[str]) -> Iterator[Path]:
    """Yield the files that are executed by `import a.b.c`: a.py or a/__init__.py, then those of b and c."""
    for length in range(1, len(parts) + 1):
        place = base.joinpath(*parts[:length])
        for candidate in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if candidate.is_file():
                yield candidate


def _code(file: Path) -> str:
    """Return the tokens of a file, one a line, equal in all versions of Python; texts that stand alone are comments."""
    text = file.read_bytes()
    words = [""]
    opened: list[tuple[int, int]] = []  # Python 3.12 and later split f-strings into tokens
    lone = False  # whether the statement is a text alone, as a docstring is
    for token in tokenize.tokenize(io.BytesIO(text).readline):
        kind = tokenize.tok_name[token.type]
        if kind.endswith("STRING_START"):
            opened.append(token.start)
        elif kind.endswith("STRING_END"):
            start = opened.pop()
            if not opened:
                words.append(_between(text.decode(errors="replace"), start, token.end))
        elif opened or token.type in SKIPPED:
            continue
        elif token.type == tokenize.NEWLINE and lone:
            words.pop()
        else:
            lone = token.type == tokenize.STRING and words[-1] in ("", *MARKS.values())
            words.append(MARKS.get(token.type, token.string))
    return "\n".join(words)


def _between(text: str, start: tuple[int, int], end: tuple[int, int]) -> str:
    """Return the text between two places, given as line (from 1) and column."""
    lines = text.splitlines(keepends=True)[start[0] - 1 : end[0]]
    lines[-1] = lines[-1][: end[1]]
    lines[0] = lines[0][start[1] :]
    return "".join(lines)
