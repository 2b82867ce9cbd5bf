"""A run that fails leaves for others to read: its error in any case, without control characters and keys."""

from pathlib import Path

import pytest
from helpers.runs import QUIET, small
from helpers.secrets import KINDS

from hidden_subnet.store import files
from hidden_subnet.store.claims import run_status
from hidden_subnet.store.liveness import LivenessProbe
from hidden_subnet.store.printable import CONTROL
from hidden_subnet.sweep.execute import Outcome, RunObserver, execute
from hidden_subnet.training.callbacks import Row

CLIPBOARD = "\x1b]52;c;aGk=\x07 \x9b2J \u202e end"
SHOWN = "?]52;c;aGk=? ?2J ? end"
WITH_FORMS = ["W&B", "Hugging Face", "GitHub", "GitHub, fine-grained", "GitLab", "OpenAI", "Stripe", "AWS", "Google"]
WITH_FORMS += ["Slack", "npm", "PyPI", "SendGrid", "NVIDIA", "JWT"]
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nabcdefghijklmnop\n-----END RSA PRIVATE KEY-----"


def failing(out: Path, error: Exception) -> Outcome:
    """Execute a run that ends with the error at its first row; it fails as if training had raised it."""

    def on_row(row: Row) -> None:
        raise error

    return execute(small(out, epochs=1), RunObserver(on_row, QUIET.on_step, QUIET.say))


def written(outcome: Outcome) -> str:
    """All that the failed attempt says about its end."""
    attempt = files.working(outcome.folder)
    texts = [(attempt / name).read_text() for name in (files.ERROR, files.LOG, "ended.json")]
    return "\n".join([*texts, outcome.message])


def test_control_characters_of_an_error_are_not_written(tmp_path: Path) -> None:
    outcome = failing(tmp_path, ValueError(CLIPBOARD))
    assert outcome.state == "failed"
    assert outcome.message == f"ValueError: {SHOWN}"
    assert not CONTROL.search(written(outcome))
    assert files.last_error_line(outcome.folder) == f"ValueError: {SHOWN}"
    assert "Traceback (most recent call last)" in files.read_error(outcome.folder)


@pytest.mark.parametrize("service", WITH_FORMS)
def test_keys_in_an_error_are_not_written(tmp_path: Path, service: str) -> None:
    outcome = failing(tmp_path, ValueError(f"refused with {KINDS[service]}: 403"))
    assert KINDS[service] not in written(outcome)
    assert outcome.message == "ValueError: refused with [a key is left out]: 403"


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        (f"cannot read {PEM} of me", ["MIIEpAIBAAKCAQEA", "abcdefghijklmnop"]),
        (PEM.partition("-----END")[0], ["MIIEpAIBAAKCAQEA", "abcdefghijklmnop"]),
        ("mysql://me:pa55word@host/db is down", ["pa55word"]),
        (f"WANDB_API_KEY={KINDS['W&B, older']}", [KINDS["W&B, older"]]),
    ],
    ids=["private key", "half of it", "database", "older key of W&B"],
)
def test_other_secrets_in_an_error_are_not_written(tmp_path: Path, text: str, secrets: list[str]) -> None:
    outcome = failing(tmp_path, RuntimeError(text))
    assert not [each for each in secrets if each in written(outcome)]
    assert "[a key is left out]" in written(outcome)


def test_a_name_that_is_no_text_does_not_hide_the_error(tmp_path: Path) -> None:
    outcome = failing(tmp_path, FileNotFoundError(2, "No such file", "/data/\udcff.png"))
    assert outcome.state == "failed"
    assert files.last_error_line(outcome.folder) == r"FileNotFoundError: [Errno 2] No such file: '/data/\udcff.png'"
    assert run_status(outcome.folder, LivenessProbe(tmp_path)).state == "failed"
    outcome = failing(tmp_path, ValueError("\udcff"))
    assert outcome.state == "failed"
    assert files.last_error_line(outcome.folder) == r"ValueError: \udcff"
