"""F22: no key of W&B, and no password of a git remote, gets into any file, message or upload of a sweep."""

import base64
import gzip
import io
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from helpers.real_commands import figure
from helpers.wandb_server import StandIn

pytest_plugins = ["helpers.wandb_server"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean")]

ROOT = Path(__file__).parents[2]
VARIABLE, NETRC, SETTINGS, REMOTE = (f"canary{kind}" + 33 * kind for kind in "vnsr")
SMALL = ["data=synthetic", "model.width=0.125", "train.epochs=2", "prune_rate=0.1,0.5"]
# What the ends of sweeps and `sync` add, whatever the launch has sent already.
AFTER = """
import sys
from pathlib import Path
from hidden_subnet.store import sweeps
from hidden_subnet.store.read import read_run
from hidden_subnet.trackers.summary import report_sweep
from hidden_subnet.trackers.sync import sync
sweep = sweeps.read(Path(sys.argv[1]))
runs = [read_run(folder) for folder in sweep.runs]
assert [run.state for run in runs] == ["done", "done"]
figures = list(sweep.out.glob("figures/*.png"))
assert report_sweep(sweep.configs[0], sweep.name, sweep.folder, runs, figures, print, again=True)
for run in runs:
    (run.folder / "wandb_sent.json").unlink()
sys.exit(sync([sweep.folder], print))
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A copy of the program in a repository of its own, whose remote has a password in its address, and a change."""
    code = tmp_path / "code"
    for name in ("hidden_subnet", "hydra_plugins", "conf", "sweeps"):
        shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "launch.py", code)
    git = ["git", "-C", code, "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (
        ["init", "-q"],
        ["remote", "add", "origin", f"https://me:{REMOTE}@git.example.org/me/code.git"],
        ["add", "."],
        ["commit", "-qm", "all"],
    ):
        subprocess.run([*git, *command], check=True)
    with (code / "hidden_subnet" / "seeding.py").open("a") as file:
        file.write("# changed\n")
    return code


def test_f22_no_secret_is_written_or_sent(
    tmp_path: Path, code: Path, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    host = server.url.removeprefix("http://")
    netrc = home / ".netrc"
    netrc.write_text(
        f"machine {host}\n login user\n password {NETRC}\nmachine 127.0.0.1\n login user\n password {NETRC}\n"
    )
    netrc.chmod(0o600)
    settings = home / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"[default]\nbase_url = {server.url}\n")

    said = ""
    for name, mode, variable in (
        ("online", "online", VARIABLE),
        ("by_netrc", "online", None),
        ("by_settings", "online", None),
        ("offline", "offline", VARIABLE),
    ):
        if name == "by_settings":
            netrc.unlink()
            settings.write_text(f"[default]\nbase_url = {server.url}\napi_key = {SETTINGS}\n")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(code)}
        if variable:
            environment["WANDB_API_KEY"] = variable
        out = tmp_path / name
        command = ["-m", *SMALL, "tracker=wandb", f"tracker.mode={mode}", f"out={out}"]
        said += python(code, environment, str(code / "launch.py"), *command)
        (sweep,) = (out / ".sweeps").iterdir()
        said += python(code, environment, "-c", AFTER, str(sweep))
        assert len(list(out.glob("*/wandb/*run-*/*.wandb"))) >= 2
        assert (out / "results.csv").exists()

    # They were in use: the positive control of what goes in.
    keys = {base64.b64decode(header.removeprefix("Basic ")).decode() for header in server.authorizations if header}
    assert keys == {f"api:{VARIABLE}", f"api:{NETRC}", f"api:{SETTINGS}"}
    assert len(server.runs) == 4 * 3  # `sync`, in AFTER, sends those of tracker.mode=offline too
    assert "git.example.org" in subprocess.check_output(["git", "-C", code, "remote", "-v"], text=True)

    secrets = (VARIABLE, NETRC, SETTINGS, REMOTE)
    folders = [tmp_path / name for name in ("online", "by_netrc", "by_settings", "offline", "home", "cwd")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    files = [path for path in files if path not in (netrc, settings)]
    hits = [f"{path}: {where}" for path in files for where in found(path.read_bytes(), secrets)]
    hits += [f"sent: {where}" for where in found(bytes(server.seen), secrets)]
    hits += [f"printed: {where}" for where in found(said.encode(), secrets)]
    for path in files:
        if path.suffix == ".wandb":
            hits += [f"{path}: {where}" for where in found(records(path), secrets)]
    figure(f"F22: {len(secrets)} secrets, {len(files)} files, 4 sweeps (3 online, 1 offline): {len(hits)} hits")
    assert hits == []
    assert len(files) > 50


def python(cwd: Path, environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def records(path: Path) -> bytes:
    """A .wandb file as W&B's own reader tells it: in the file, a string may go on in the next block."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    return subprocess.run(command, capture_output=True, check=True).stdout


def found(content: bytes, secrets: Sequence[str]) -> Iterator[str]:
    """Where a secret stands in `content`, in plain or as a header carries it, or within archives in it."""
    for secret in secrets:
        for spelled in (secret.encode(), base64.b64encode(f"api:{secret}".encode()).rstrip(b"=")[:-1]):
            if spelled in content:
                yield secret[:8]
    if content[:2] == b"\x1f\x8b":
        yield from found(gzip.decompress(content), secrets)
    elif zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                yield from found(archive.read(name), secrets)


def test_the_search_finds(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner", gzip.compress(b"a" + REMOTE.encode()))
    for content in (
        VARIABLE.encode(),
        b"x" + pickle.dumps({"key": VARIABLE}),
        gzip.compress(VARIABLE.encode()),
        base64.b64encode(f"api:{VARIABLE}".encode()),
    ):
        assert list(found(content, [VARIABLE, REMOTE])) == ["canaryvv"]
    assert list(found(packed.getvalue(), [VARIABLE, REMOTE])) == ["canaryrr"]
    assert list(found(b"canary", [VARIABLE, REMOTE])) == []
