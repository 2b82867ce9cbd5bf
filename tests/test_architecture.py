"""Who may know whom: the rules of the design that reading the imports can decide."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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
    found = set()
    for path in SOURCES:
        known = imports(path).now | imports(path).later
        if any(name == package or name.startswith(f"{package}.") for name in known for package in packages):
            found.add(path.relative_to(ROOT).as_posix())
    return found


def test_the_scan_sees_imports() -> None:
    training = imports(ROOT / "hidden_subnet" / "training.py")
    assert {"torch", "torch.optim", "hidden_subnet.layers"} <= training.now
    launch = imports(ROOT / "launch.py")
    assert "hydra" in launch.later
    assert "hydra" not in launch.now
    assert "hidden_subnet.record" in imports(ROOT / "hidden_subnet" / "experiment.py").now


def test_only_the_config_and_the_plugins_know_hydra() -> None:
    known = files_that_import("hydra", "omegaconf")
    assert {"launch.py", "hidden_subnet/config.py"} <= known
    rest = known - {"launch.py", "hidden_subnet/config.py"}
    assert rest
    assert all(file.startswith("hydra_plugins/hidden_subnet/") for file in rest)


def test_each_tracker_is_known_to_one_file() -> None:
    assert files_that_import("wandb") == {"hidden_subnet/trackers/wandb_tracker.py"}
    known = files_that_import("tensorboard", "tensorboardX", "torch.utils.tensorboard")
    assert known == {"hidden_subnet/trackers/tensorboard_tracker.py"}


# What of ours each part may import; the part itself is always allowed.
MAY_IMPORT: dict[str, set[str]] = {
    "seeding": set(),
    "schedules": set(),
    "masks": set(),
    "radix_kernels": set(),
    "radix_select": {"masks", "radix_kernels"},
    "models": set(),
    "inits": {"seeding"},
    "data": {"seeding", "signals"},
    "signals": set(),
    "remade": set(),
    "layers": {"inits", "remade", "seeding"},
    "methods": {"layers", "masks", "radix_select", "remade", "seeding"},
    "course": {"settings", "identity", "inits", "layers", "methods", "schedules"},
    "training": {"layers"},
    "settings": set(),
    "config": {"settings"},
    "norm": {"layers"},
    "identity": {"config", "settings"},
    "check": {"check_data", "check_model", "settings", "data", "dataset", "identity", "models"},
    "check_data": {"settings", "data", "dataset"},
    "check_model": {"settings", "data", "dataset", "models"},
    "dataset": {"settings", "data"},
    "feed": {"settings", "data", "dataset", "feed_files", "identity"},
    "feed_files": {"settings", "data", "dataset", "feed"},
    "record": {"config", "settings", "identity"},
    "checkpoints": {"record"},
    "weights": {"checkpoints"},
    "optimizers": {"settings"},
    "pretrained": {"check", "commands", "settings", "record"},
    "trackers": {"check", "claims", "owners", "config", "settings", "identity", "record", "report"},
    "owners": set(),
    "claims": {"owners", "record"},
    "provenance": {"owners", "redact"},
    "report": {"claims", "owners", "config", "settings", "dataset", "identity", "models", "record"},
}


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_parts_know_only_what_they_build_on(part: str) -> None:
    files = [path for name, path in OURS.items() if name.split(".")[:2] == ["hidden_subnet", part]]
    assert files
    for path in files:
        known = {name for name in imports(path).now | imports(path).later if name.startswith("hidden_subnet.")}
        assert {name.split(".")[1] for name in known} <= MAY_IMPORT[part] | {part}, path


def loaded_with(name: str) -> set[str]:
    """Every module that importing `name` loads, as far as our own files tell; packages load their __init__ too."""
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


@pytest.mark.parametrize(
    "name",
    [
        "launch",
        "hidden_subnet.config",
        "hidden_subnet.settings",
        "hidden_subnet.identity",
        "hidden_subnet.check",
        "hidden_subnet.check_model",
        "hidden_subnet.record",
        "hidden_subnet.data.info",
        "hidden_subnet.pretrained",
        "hidden_subnet.data.listing",
        "hidden_subnet.dataset",
        "hidden_subnet.models.plan",
        "hidden_subnet.claims",
        "hidden_subnet.sweep.slurm",
        "hidden_subnet.sweep.job",
        "hidden_subnet.sweep.manifest",
        "hidden_subnet.sweep.sweep",
        "hidden_subnet.sweep.forking",
        *(name for name in OURS if name.startswith("hydra_plugins.")),
    ],
)
def test_what_help_needs_loads_no_torch(name: str) -> None:
    assert name in OURS
    heavy = {module.split(".")[0] for module in loaded_with(name)} & {"torch", "torchvision", "wandb", "matplotlib"}
    assert not heavy


def test_layers_load_torch() -> None:
    """So that the test above can fail."""
    assert "torch" in loaded_with("hidden_subnet.layers")


def test_no_file_is_long() -> None:
    for path in [*SOURCES, *ROOT.glob("benchmarks/**/*.py")]:
        assert len(path.read_text().splitlines()) <= 400, path


def test_nothing_is_found_by_a_string() -> None:
    """Neither `_target_`, which runs any callable (Hydra's plugins need it), nor attributes by computed name."""
    for path in SOURCES:
        if not path.is_relative_to(ROOT / "hydra_plugins"):
            assert "_target_" not in path.read_text(), path
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("getattr", "eval", "exec", "__import__"), (path, node.lineno)
    for path in [*ROOT.glob("conf/**/*.yaml"), *ROOT.glob("sweeps/*.yaml")]:
        assert "_target_" not in path.read_text(), path
