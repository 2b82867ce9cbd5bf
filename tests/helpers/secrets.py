"""Made-up secrets of many kinds; each is put together here, so that no scanner takes this file for a leak."""

import base64
import random
import string

_DRAW = random.Random(7)


def _word(length: int, letters: str = string.ascii_letters + string.digits) -> str:
    return "".join(_DRAW.choice(letters) for _ in range(length))


def _lower(length: int) -> str:
    return _word(length, "0123456789abcdef")


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


KINDS = {
    "W&B": "wandb_" + "v1_" + _word(60),
    "W&B, older": _lower(40),
    "Hugging Face": "hf" + "_" + _word(34),
    "GitHub": "gh" + "p_" + _word(36),
    "GitHub, fine-grained": "github" + "_pat_" + _word(22) + "_" + _word(59),
    "GitLab": "gl" + "pat-" + _word(20),
    "OpenAI": "sk" + "-proj-" + _word(48),
    "Stripe": "sk" + "_live_" + _word(24),
    "AWS": "AK" + "IA" + _word(16, string.ascii_uppercase + string.digits),
    "AWS, secret": _word(40),
    "Google": "AI" + "za" + _word(35),
    "Azure": base64.b64encode(_DRAW.randbytes(64)).decode(),
    "Slack": "xox" + "b-" + _word(12, string.digits) + "-" + _word(24),
    "npm": "npm" + "_" + _word(36),
    "PyPI": "pypi" + "-AgEIcHlwaS5vcmc" + _word(120),
    "SendGrid": "SG" + "." + _word(22) + "." + _word(43),
    "NVIDIA": "nvapi" + "-" + _word(64),
    "JWT": ".".join([_encoded('{"alg":"HS256"}'), _encoded('{"sub":"1234567890"}'), _word(43)]),
    "bearer token": _word(24, string.ascii_lowercase),
    "password": "hunter2",
    "password of a database": "pa55word",
    "password of netrc": "letmein",
    "Heroku": "-".join(_lower(length) for length in (8, 4, 4, 4, 12)),
    "Telegram": _word(10, string.digits) + ":AA" + _word(33),
}
