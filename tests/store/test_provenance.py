"""provenance.json records where a run comes from: the command, the code, the versions, the machine."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs import QUIET
from helpers.secrets import KINDS

from hidden_subnet.store import files
from hidden_subnet.store.liveness import this_process
from hidden_subnet.store.provenance import git_state
from hidden_subnet.store.redact import LEFT_OUT, redacted
from hidden_subnet.sweep.execute import LaunchInfo, execute

ROOT = Path(__file__).parents[2]


def test_a_run_records_where_it_comes_from(compose: Any, tmp_path: Path) -> None:
    config = compose("data=synthetic", "method=random", "model.width=0.125", "tracker=none", f"out={tmp_path}")
    command = {"command": "launch.py -m seed=0", "directory": "/somewhere", "git": {"commit": "abc", "dirty": True}}
    outcome = execute(config, QUIET, LaunchInfo("a-sweep", "a-worker", "a-launch", command))
    assert outcome.state == "done"
    said = json.loads((outcome.folder / files.PROVENANCE).read_text())
    assert {key: said[key] for key in command} == command
    assert said["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert said["versions"]["torch"] == torch.__version__.split("+")[0]
    assert said["versions"]["python"] == sys.version.split()[0]
    assert (said["worker"], said["launch"], said["slurm"]) == ("a-worker", "a-launch", None)
    [attempt] = said["attempts"]
    assert (attempt["number"], attempt["state"], attempt["host"]) == (1, "done", said["host"])
    assert not (outcome.folder / files.ATTEMPTS).exists()
    assert len([path for path in outcome.folder.rglob("*") if path.is_file()]) <= 10


def test_slurm_names_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "15")
    assert this_process("w", 90).slurm == "15"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    holder = this_process("w", 90)
    assert (holder.slurm, holder.restart) == ("12_3", 2)


@pytest.fixture
def copy_of_the_package(tmp_path: Path) -> Path:
    """A folder like a clone of the project."""
    here = tmp_path / "clone"
    shutil.copytree(ROOT / "hidden_subnet", here / "hidden_subnet", ignore=shutil.ignore_patterns("__pycache__"))
    (here / "hidden_subnet" / "__init__.py").write_text("")
    return here


def git_of(here: Path) -> Any:
    code = "import json; from hidden_subnet.store.provenance import of_command; print(json.dumps(of_command()))"
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=here, capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(here)},
    )  # fmt: skip
    return json.loads(said.stdout)["git"]


def test_the_commit_and_what_differs_from_it(copy_of_the_package: Path) -> None:
    here = copy_of_the_package
    assert git_of(here) is None
    commit_all(here)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True).stdout.strip()
    assert git_of(here) == {"commit": commit, "dirty": False, "diff": ""}
    key = "0123456789abcdef" * 3
    (here / "hidden_subnet" / "store" / "redact.py").open("a").write(f"# changed\nAPI_KEY = '{key}'\n# and more\n")
    said = git_of(here)
    assert said["dirty"]
    assert said["diff"].rstrip().splitlines()[-3:] == [
        "+# changed", "[a line that looks like a secret is left out]", "+# and more",
    ]  # fmt: skip
    assert key not in said["diff"]


def test_a_repository_that_only_contains_the_installed_package_is_ignored(copy_of_the_package: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=copy_of_the_package.parent, check=True)
    assert git_of(copy_of_the_package) is None


def test_the_repository_of_the_working_directory_is_not_taken(
    copy_of_the_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout of another version, from whose folder, or hook, a run is started."""
    other = tmp_path / "other"
    (other / "hidden_subnet").mkdir(parents=True)
    (other / "hidden_subnet" / "__init__.py").write_text("")
    commit_all(other)
    monkeypatch.chdir(other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert git_state(other) is not None
    assert git_state(copy_of_the_package) is None


def commit_all(here: Path) -> None:
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=here, check=True)


def test_a_long_diff_is_cut(copy_of_the_package: Path) -> None:
    here = copy_of_the_package
    commit_all(here)
    (here / "hidden_subnet" / "__init__.py").write_text(("#" * 999 + "\n") * 300)
    diff = git_of(here)["diff"]
    head, _, note = diff.rpartition("\n... ")
    assert 199_000 <= len(head) <= 200_000
    assert head.endswith("\n+" + "#" * 999)
    characters, _, rest = note.partition(" ")
    assert 100_000 < int(characters) < 102_000
    assert rest == "more characters are cut"


def test_looking_for_secrets_in_long_lines_takes_no_time() -> None:
    """As in a diff of a minified file; with a match tried at each letter this would take hours."""
    assert redacted("x" * 1_000_000 + "\nshort") == "x" * 2000 + "\nshort"
    for word in ("wandb-", "api", "password", "eyJaaaaaaaaaaaa.", " ", '"'):
        line = "+" + word * (1999 // len(word))
        assert len(redacted("\n".join(100 * [line])).splitlines()) == 100


CONTEXTS = [
    "x = '{}'\n",
    "{}\n",
    'send(to, "{}", 3)\n',
    "  - {}  # of the account\n",
    "export NAME={}\n",
]
SPLIT = [
    'x = (\n    "{}"\n    "{}"\n    "{}"\n)\n',
    'x = "{}" + \\\n    "{}" + \\\n    "{}"\n',
    'x = "{}"\nx += "{}"\nx += "{}"\n',
    "x={}\\\n{}\\\n{}\n",
]
NAMED = {
    "password": [
        "password = '{}'\n",
        '{{"Password": "{}"}}\n',
        "DB_PASSWORD={}\n",
        "mysql --password {}\n",
        "pwd: {}\n",
    ],
    "password of a database": ["url = 'mysql://me:{}@host/db'\n", "curl -u me:{} https://host\n"],
    "password of netrc": ["machine host login me password {}\n"],
    "bearer token": [
        "curl -H 'Authorization: Bearer {}'\n",
        'headers["Authorization"] = f"Bearer {}"\n',
        "access_token: {}\n",
    ],
}
"""Those that only a name or the words around them tell."""


def diff_of(here: Path, files: dict[str, str]) -> str:
    """The recorded diff of these new files beside one that was there."""
    for name, content in files.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(content)
    subprocess.run(["git", "add", "-f", "-N", "."], cwd=here, check=True)
    return str(git_of(here)["diff"])


def pieces(secret: str) -> list[str]:
    third = -(-len(secret) // 3)
    return [secret[at : at + third] for at in range(0, len(secret), third)]


def test_no_secret_of_any_kind_is_in_the_recorded_diff(copy_of_the_package: Path) -> None:
    here = copy_of_the_package
    commit_all(here)
    files, searched = {}, set()
    for number, (kind, secret) in enumerate(KINDS.items()):
        texts = [form.format(secret) for form in NAMED.get(kind, CONTEXTS)]
        searched.add(secret)
        if kind not in NAMED:
            texts += [form.format(*pieces(secret)) for form in SPLIT]
            searched |= set(pieces(secret))
        files[f"a{number}.py"] = "# code\n".join(["", *texts, ""])
    pem = [f"-----BEGIN {name}PRIVATE KEY-----" for name in ("", "RSA ", "OPENSSH ", "ENCRYPTED ")]
    lines = [KINDS["Azure"][:64], KINDS["PyPI"][20:84], "aB3="]
    for number, begin in enumerate(pem):
        block = "\n".join([begin, *lines, begin.replace("BEGIN", "END")])
        files[f"b{number}.py"] = f'x = """{block}"""\nmore = 1\n'
        files[f"c{number}.py"] = f"x = {block!r}\n"
    searched |= set(lines)
    names = ["server.pem", ".env", ".env.local", "deploy/id_ed25519", "conf/credentials.json", ".netrc", "x.tfvars"]
    for name in names:
        files[name] = "harmless-to-look-at\n"
    said = diff_of(here, files)
    assert len(KINDS) >= 20
    assert [secret for secret in searched if secret in said] == []
    assert "harmless" not in said
    for name in [*files, *names]:
        assert f"b/{name}" in said
    assert said.count("+# code") == sum(text.count("# code\n") for text in files.values())
    assert said.count("+more = 1") == len(pem)
    assert said.count(LEFT_OUT) < 400


def test_code_is_not_taken_for_a_secret() -> None:
    code = "\n".join(f"+{line}" for line in (ROOT / "hidden_subnet" / "training" / "run.py").read_text().splitlines())
    assert redacted(code) == code
