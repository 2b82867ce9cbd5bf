"""The rules of the layout (docs/how_a_run_goes.md): who may import whom, and where things are."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
from helpers.imports import OURS, ROOT, SOURCES, files_that_import, imports, loaded_with, parsed

# From low to high; nothing imports from a higher layer.
LAYERS = [
    {"errors", "seeding", "signals"},
    {"config"},
    {"store"},
    {"masks", "methods", "models", "data", "training"},
    {"sweep"},
    {"analysis", "report", "trackers"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
SCIENCE = LAYERS[3]


def part_of(module: str) -> str:
    """The folder (or root file) of the package that a module belongs to; "" for the package itself."""
    words = module.split(".")
    return words[1] if words[0] == "hidden_subnet" and len(words) > 1 else ""


def test_the_scan_sees_imports() -> None:
    trainer = imports(ROOT / "hidden_subnet" / "training" / "trainer.py")
    assert {"torch", "torch.nn.functional", "hidden_subnet.methods.base"} <= trainer.now
    launch = imports(ROOT / "hidden_subnet" / "cli" / "launch.py")
    assert "hydra" in launch.later
    assert "hydra" not in launch.now
    assert "torch" in loaded_with("hidden_subnet.masks.layers")


def test_the_root_of_the_package_holds_five_modules_at_most() -> None:
    found = {path.stem for path in (ROOT / "hidden_subnet").glob("*.py") if not path.stem.startswith("__")}
    assert found == {"errors", "seeding", "signals"}
    folders = {path.name for path in (ROOT / "hidden_subnet").iterdir() if (path / "__init__.py").exists()}
    assert folders | found == LEVEL.keys()


@pytest.mark.parametrize("module", [name for name in OURS if part_of(name) in LEVEL])
def test_nothing_imports_from_a_higher_layer(module: str) -> None:
    level = LEVEL[part_of(module)]
    for other in imports(OURS[module]).ours:
        if other.startswith("hydra_plugins."):
            # Those that have Hydra compose settings.
            assert module in ("hidden_subnet.cli.launch", "hidden_subnet.cli.python_api"), f"{module} imports {other}"
        elif other == "hidden_subnet":
            assert part_of(module) == "cli", f"{module} imports {other}"  # for __version__
        else:
            assert LEVEL[part_of(other)] <= level, f"{module} imports {other}"


def test_a_sweep_starts_without_pandas() -> None:
    assert files_that_import("pandas") == {"hidden_subnet/report/results.py"}
    for module in ("cli.launch", "cli.sweep", "cli.worker", "sweep.fork_server", "report.results"):
        assert "pandas" not in loaded_with(f"hidden_subnet.{module}")


def test_the_public_names_are_the_only_imports_of_the_package_itself() -> None:
    package = imports(ROOT / "hidden_subnet" / "__init__.py")
    assert not package.now & OURS.keys()  # `--help` imports the package and must not wait for torch
    assert {part_of(name) for name in package.ours} <= {"analysis", "report"}


def test_imports_have_no_cycles() -> None:
    edges = {name: imports(path).ours - {name} for name, path in OURS.items()}
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        path.append(name)
        for other in sorted(edges[name]):
            visit(other)
        path.pop()
        done.add(name)

    for name in edges:
        visit(name)


@pytest.mark.parametrize("folder", ["config", "store", "errors", "seeding", "signals"])
def test_settings_and_files_need_no_torch(folder: str) -> None:
    for module in [name for name in OURS if part_of(name) == folder]:
        heavy = {name.split(".")[0] for name in loaded_with(module)} & {"torch", "torchvision", "wandb", "matplotlib"}
        assert heavy <= ({"torch"} if module == "hidden_subnet.store.checkpoints" else set()), module


def test_only_composing_knows_hydra() -> None:
    known = files_that_import("hydra", "omegaconf")
    inside = {"hidden_subnet/config/convert.py", "hidden_subnet/cli/launch.py", "hidden_subnet/cli/python_api.py"}
    assert inside <= known
    rest = known - inside
    assert rest
    assert all(file.startswith("hydra_plugins/hidden_subnet/") for file in rest)


def test_reports_and_trackers_do_not_know_the_commands() -> None:
    users = files_that_import("hidden_subnet.cli")
    assert "hidden_subnet/__main__.py" in users
    assert not [file for file in users if file.startswith(("hidden_subnet/report/", "hidden_subnet/trackers/"))]


def test_each_tracker_is_known_to_one_file() -> None:
    assert files_that_import("wandb") == {"hidden_subnet/trackers/wandb_tracker.py"}
    known = files_that_import("tensorboard", "tensorboardX", "torch.utils.tensorboard")
    assert known == {"hidden_subnet/trackers/tensorboard_tracker.py"}


def test_modules_are_imported_by_name_in_one_place_only() -> None:
    assert files_that_import("importlib") - {
        "hidden_subnet/__init__.py",  # the version of the installed package, and the public names
        "hidden_subnet/analysis/export.py",  # is onnx installed?
        "hidden_subnet/config/own_parts.py",  # what the user names with use=
        "hidden_subnet/data/digits.py",  # finds the folder of a package
        "hidden_subnet/training/acceleration.py",  # is triton installed?
        "hidden_subnet/store/provenance.py",  # versions of packages
        "hydra_plugins/hidden_subnet/errors.py",  # is a plugin installed?
        "hydra_plugins/hidden_subnet/optuna_study.py",  # the version of Optuna
    } <= {"hidden_subnet/config/registries.py", "hidden_subnet/cli/help.py"}


def test_the_science_reaches_the_disk_through_the_store() -> None:
    for path in SOURCES:
        part = path.relative_to(ROOT).parts[1] if path.is_relative_to(ROOT / "hidden_subnet") else ""
        if part in SCIENCE - {"data"}:  # reading images is what data/ is for
            text = path.read_text()
            assert ".write_text(" not in text, path
            assert ".write_bytes(" not in text, path
            assert "open(" not in text, path


def test_no_class_of_a_method_is_asked_for_outside_of_methods() -> None:
    pattern = r"isinstance\([a-z_.]*method|\.trains =="
    found = subprocess.run(
        ["grep", "-rnE", pattern, "hidden_subnet", "hydra_plugins", "--include=*.py"],
        cwd=ROOT, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    assert [line for line in found if not line.startswith(("hidden_subnet/methods/", "hidden_subnet/config/"))] == []


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


PUBLIC = [path for path in SOURCES if path.relative_to(ROOT).parts[1:2] in [("masks",), ("methods",), ("models",)]]
PUBLIC += [path for path in SOURCES if path.relative_to(ROOT).parts[1:2] == ("training",)]


def undocumented(path: Path) -> list[str]:
    """Public functions and classes at the top of a file without a docstring."""
    found = []
    for node in parsed(path).body:
        is_public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        if is_public and ast.get_docstring(node) is None:
            found.append(node.name)
    return found


def test_what_to_type_begins_with_the_program_that_was_called() -> None:
    """A text for the user takes LAUNCH or PROGRAM: an installed package is called hidden-subnet."""
    for path in SOURCES:
        if path.name == "program.py":
            continue
        tree = parsed(path)
        documents = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documents:
                assert not re.search(r"python (launch\.py|-m hidden_subnet)", node.value), (path, node.lineno)


def test_public_names_of_the_science_have_docstrings() -> None:
    assert len(PUBLIC) > 40
    assert {str(path): names for path in PUBLIC if (names := undocumented(path))} == {}


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    others = [path for folder in ("benchmarks", "examples", "tests") for path in (ROOT / folder).rglob("*.py")]
    for path in [*SOURCES, *others]:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                first = (ast.get_docstring(node) or "").split(" ")[0]
                assert first not in ("Of", "What"), (path, first)
        if path != Path(__file__):
            assert " anew" not in path.read_text(), path
