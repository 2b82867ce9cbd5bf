"""The imports of our own files, read out of their source: nothing is executed."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted([ROOT / "launch.py", *ROOT.glob("hidden_subnet/**/*.py"), *ROOT.glob("hydra_plugins/**/*.py")])


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


OURS = {module_name(path): path for path in SOURCES}


class Imports(ast.NodeVisitor):
    """The modules that a file imports: `now` when it is loaded itself, `later` within its functions."""

    def __init__(self) -> None:
        self.now: set[str] = set()
        self.later: set[str] = set()
        self._depth = 0

    @property
    def ours(self) -> set[str]:
        """Return the modules among all of them that are our own."""
        return (self.now | self.later) & OURS.keys()

    def visit_Import(self, node: ast.Import) -> None:
        (self.later if self._depth else self.now).update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, "a relative import"
        assert node.module is not None
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            (self.later if self._depth else self.now).add(inner if inner in OURS else node.module)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> Imports:
    visitor = Imports()
    visitor.visit(parsed(path))
    return visitor


def files_that_import(*packages: str) -> set[str]:
    """Return the paths of our files that import one of `packages` or a module in it."""
    found = set()
    for path in SOURCES:
        known = imports(path).now | imports(path).later
        if any(name == package or name.startswith(f"{package}.") for name in known for package in packages):
            found.add(path.relative_to(ROOT).as_posix())
    return found


def loaded_with(name: str) -> set[str]:
    """Return every module that importing `name` loads, as far as our files tell; packages load their __init__ too."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        found.add(module)
        if module in OURS:
            waiting += imports(OURS[module]).now
            waiting += [package for package in OURS if module.startswith(f"{package}.")]
    return found
