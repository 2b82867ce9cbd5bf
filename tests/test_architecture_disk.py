"""Who reaches the disk: run folders only through store/folders.py; every other way to a file is listed here by name."""

import ast
import re

import pytest
from helpers.imports import ROOT, parsed

PARTS = ("store", "sweep", "trackers", "report", "cli", "analysis", "training")
ATTRIBUTES = {
    "chmod", "copyfile", "copytree", "exists", "FileIO", "fwalk", "glob", "hardlink_to", "is_dir", "is_fifo", "is_file",
    "is_symlink", "iterdir", "lchmod", "listdir", "loadtxt", "lstat", "makedirs", "memmap", "mkdir", "open",
    "open_code", "read_bytes", "read_csv", "read_text", "readlink", "rename", "rglob", "rmdir", "rmtree", "samefile",
    "savefig", "savetxt", "scandir", "stat", "symlink_to", "to_csv", "tofile", "touch", "unlink", "utime", "walk",
    "write_bytes", "write_text",
}  # fmt: skip
"""Attributes of a path, an array or a module by which a file is reached, called or not."""
OF_OS = re.compile(
    r"O_[A-Z]+|[RWX]_OK|ST_RDONLY|PathLike|_exit|close|cpu_count|devnull|dup2?|environ|execv|fchmod|fdopen|fs\w+|"
    r"get(cwd|e?uid|p?pid)|kill|path|pathsep|sched_getaffinity|sep|set_inheritable|setsid|stat_result|supports_\w+|"
    r"write|path\.(abspath|expanduser|isabs|isdir|join|lexists|realpath|relpath|samestat)"
)
"""Attributes of os for descriptors, processes and names, and isdir and lexists, which only say that something is there.
All others count."""
MODULES = {
    "bz2", "codecs", "ctypes", "fileinput", "fsspec", "glob", "gzip", "linecache", "lzma", "mmap", "posix", "runpy",
    "shelve", "shutil", "sqlite3", "subprocess", "tarfile", "tempfile", "zipfile",
}  # fmt: skip
"""Modules that reach files by names of their own."""
LISTED = {
    "cli/assert_resumes.py": ("tempfile.TemporaryDirectory", "runs that are thrown away"),
    "analysis/export.py": ("torch.save", "a file in memory"),
    "analysis/load.py": ("is_file", "a file of masks that the user names"),
    "cli/evaluate.py": ("is_file", "the checkpoint that the user names"),
    "cli/help.py": ("glob read_text", "the options in conf/"),
    "cli/launch.py": ("os.open", "the null device"),
    "cli/report.py": ("is_file", "a preset"),
    "cli/results.py": ("mkdir", "the folder to which the user has results written"),
    "cli/rm.py": ("is_symlink", "whether what the user typed is a link"),
    "cli/terminal.py": ("os.open", "the null device"),
    "report/drawn.py": ("savefig", "a file in memory"),
    "report/plan.py": ("is_dir os.listdir", "the folder of the runs itself"),
    "report/published.py": ("open", "published.csv, a file of the package"),
    "store/access.py": (
        "iterdir lstat os.access os.path.exists os.readlink os.statvfs stat",
        "owners and rights; nothing is opened",
    ),
    "store/checkpoints.py": ("torch.load torch.save zipfile", "files in memory"),
    "store/child_processes.py": ("tempfile", "sockets"),
    "store/claims.py": ("os.access", "rights"),
    "store/content.py": (
        "mkdir open os.open os.stat read_text replace stat unlink write_text",
        "files that the user names, and the cache of their digests",
    ),
    "store/files.py": ("mkdir os.path.exists", "the folder of the runs itself, which may be a link"),
    "store/find.py": (
        "is_dir is_symlink iterdir lstat os.path.isfile",
        "the folder of the runs itself; what the user typed",
    ),
    "store/folders.py": (
        "mkdir os.link os.listdir os.mkdir os.open os.rename os.replace os.rmdir os.stat os.unlink os.utime",
        "the module that does it",
    ),
    "store/liveness.py": (
        "os.listdir os.lstat os.open os.stat os.unlink os.utime tempfile.TemporaryFile tempfile.gettempdir",
        "/dev/shm; heartbeats, through folders.inside",
    ),
    "store/machine.py": ("os.readlink read_bytes read_text", "/proc and /sys"),
    "store/pretrained.py": ("exists is_dir is_file", "the file of weights that the user names"),
    "store/provenance.py": ("subprocess", "git"),
    "store/slurm_queue.py": ("subprocess", "squeue"),
    "store/sweeps.py": ("mkdir", "the folder of the runs itself"),
    "sweep/console.py": ("os.open", "the null device"),
    "sweep/gpus.py": ("subprocess", "nvidia-smi"),
    "sweep/other_images.py": ("os.path.islink", "a folder of images"),
    "sweep/places.py": (
        "chmod lstat mkdir os.open os.stat read_text tempfile",
        "locks in the temporary folder; /proc",
    ),
    "sweep/preflight.py": ("exists is_dir mkdir tempfile.TemporaryFile", "the folder of the runs itself"),
    "sweep/slurm.py": ("subprocess", "scontrol"),
    "sweep/slurm_array.py": (
        "chmod is_file mkdir read_bytes rglob",
        "the code of this package; a folder in the user's home",
    ),
    "trackers/__init__.py": ("open", "the function `open` of a TrackerEntry"),
    "trackers/entry.py": ("open", "the function `open` of a TrackerEntry"),
    "trackers/wandb_environment.py": ("read_text", "the file of parameters that `wandb agent` names"),
    "trackers/summary.py": ("open", "an image in memory"),
    "training/finished.py": ("is_file", "the checkpoint that the user names"),
    "training/given_mask.py": ("is_dir", "the run or file that the user names"),
    "training/acceleration.py": ("ctypes shutil", "the allocator of libc; whether there is a compiler"),
    "training/distributed.py": ("ctypes", "prctl"),
    "training/profiling.py": ("read_bytes tempfile.TemporaryDirectory", "a trace in a temporary folder"),
}
"""By file: each name by which it reaches files without store/folders.py, and what it reaches. W&B and TensorBoard write
to `wandb` and `tensorboard` in a run's folder; these are made, read and removed through store/folders.py."""


def reaches(tree: ast.Module) -> set[str]:
    """The names in a file by which it may reach the disk other than through `folders`, however they are used."""
    found, owners = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= _imported(node)
        elif isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            owners.add(node.value)
            if owner in ("os", "os.path"):
                name = f"{owner}.{node.attr}"
                found |= set() if OF_OS.fullmatch(name.removeprefix("os.")) else {name}
            elif owner in ("torch", "numpy", "np") and node.attr in ("load", "save"):
                found.add(f"{owner}.{node.attr}")
            elif owner != "folders" and node.attr in ATTRIBUTES:
                found.add(node.attr)
        elif isinstance(node, ast.Name) and (node.id == "open" or (node.id == "os" and node not in owners)):
            found.add(node.id)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            renames = node.func.attr == "replace" and len(node.args) == 1 and not node.keywords
            found |= {"replace"} if renames else set()
    return found


def _imported(node: ast.Import | ast.ImportFrom) -> set[str]:
    if isinstance(node, ast.Import):  # under another name, its attributes would be overlooked
        renamed = {f"{each.name} as {each.asname}" for each in node.names if each.name == "os" and each.asname}
        return renamed | {each.name for each in node.names if each.name.partition(".")[0] in MODULES}
    module = node.module or ""
    if module.partition(".")[0] in MODULES | {"os"}:
        return {f"{module}.{each.name}" for each in node.names}
    return {each.name for each in node.names if each.name in ATTRIBUTES - {"stat"}}


@pytest.mark.parametrize("part", PARTS)
def test_run_folders_are_reached_through_one_module(part: str) -> None:
    found = {}
    for path in (ROOT / "hidden_subnet" / part).rglob("*.py"):
        if names := reaches(parsed(path)):
            found[path.relative_to(ROOT / "hidden_subnet").as_posix()] = " ".join(sorted(names))
    assert found == {file: names for file, (names, _) in LISTED.items() if file.startswith(f"{part}/")}


@pytest.mark.parametrize(
    "code",
    [
        "path.read_text()", "open(path)", "map(Path.read_bytes, paths)", "read = path.open", "partial(os.open, path)",
        "from os import open as get", "from os import *", "import os as system", "system = os", "os.truncate(path, 0)",
        "os.remove(path)", "import shutil", "from shutil import rmtree", "import tempfile as t", "io.open(path)",
        "io.FileIO(path)", "from io import FileIO", "path.replace(other)", "torch.load(path)", "folder().open(path)",
        "folders[0].read_text()", "os.path.getsize(path)", "subprocess.run(['cat', path])\nimport subprocess",
        "array.tofile(path)", "frame.to_csv(path)", "figure.savefig(path)", "from hidden_subnet.x import read_text",
    ],
)  # fmt: skip
def test_no_way_to_a_file_is_overlooked(code: str) -> None:
    assert reaches(ast.parse(code))


def test_what_reaches_no_file_is_not_listed() -> None:
    code = "import os, stat\nfolders.read_text(p)\nos.getpid()\nos.path.join(a, b)\na.replace('b', 'c')\nos.close(1)"
    assert reaches(ast.parse(code)) == set()
