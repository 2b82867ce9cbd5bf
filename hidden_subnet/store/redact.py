"""Recognise keys of known services, leave them out of errors and logs, and out of a diff what may be a secret."""

import re
from collections.abc import Iterator

KEYS = re.compile(
    r"(?<![\w-])(?:"
    r"wandb_v\d+_\w{20,}|hf_(?=[a-z]*[0-9A-Z])[A-Za-z0-9]{20,}|nvapi-[\w-]{20,}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|gl(?:pat|dt|rt|cbt|ptt|ft|soat|imt|agent)-[\w-]{20,}|dckr_pat_[\w-]{20,}"
    r"|sk-(?:proj|svcacct|admin|ant|or)-[\w-]{20,}|sk-(?=[a-zA-Z]*\d)[A-Za-z0-9]{32,}|[rs]k_(?:live|test)_\w{16,}"
    r"|npm_[A-Za-z0-9]{30,}|pypi-AgE[\w-]{40,}"
    r"|A[KS]IA[0-9A-Z]{16}|AIza[\w-]{35}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}|xox[abeprs]-[\w-]{10,}"
    r"|SG\.[\w-]{16,}\.[\w-]{16,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}(?:\.[\w-]*)?"
    r")|(?i:wandb|api)[\w.-]{0,40}?(?i:key)['\"]?\s*[=:]\s*['\"]?[0-9a-f]{40}(?!\w)"  # an older key of W&B
    r"|-----BEGIN [A-Z0-9 ]*PRIVATE KEY|AccountKey=[\w+/]{40,}"
    r"|\w://[^\s/:@]+:[^\s/@$]+@"  # a database's address with its password
)
"""Forms of keys that have no other meaning. 40 hexadecimal digits alone may be a commit."""

_ASSIGNED = re.compile(
    r"(?i)(?:pass(?:w|phrase|code)|pwd|secret|token|credential|authorization|webhook"
    r"|(?:api|access|account|client|encryption|host|private|signing|ssh|wandb).?key)"
    r"[\w.-]{0,40}['\"]?\]?\s*(?::?=|=>|:)\s*[^\s=]"
)
_SPOKEN = re.compile(
    r"(?i)(?<![\w-])(?:--?)?(?:password|passwd|bearer|basic|token)\s+['\"]?[^\s'\"]{4,}|\s-u\s*\S+:\S+"
)
_WORD = re.compile(r"[A-Za-z0-9+/=]{16,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEY_FILE = re.compile(
    r"(?i)\.(?:pem|key|p12|pfx|p8|jks|keystore|kdbx?|ppk|gpg|asc|age|ovpn|tfvars|tfstate|crt|cer|der)$"
    r"|(?:^|/)(?:id_(?:rsa|dsa|ecdsa|ed25519)[^/]*|\.env[^/]*|[._]netrc|\.pgpass|\.my\.cnf|\.(?:npm|pypi|docker)(?:rc|cfg)"
    r"|\.htpasswd|\.git-credentials|kubeconfig[^/]*|[^/]*(?:credential|secret|service.?account)[^/]*"
    r"\.(?:json|ya?ml|toml|ini|cfg|conf|txt|env|xml|properties))$"
)
_HEADER = re.compile(r"diff --git .*? \"?b/(.*?)\"?$")
_GOES_ON = re.compile(r"['\"]\s*[\\+.]?\s*\\?$|^.?\s*[A-Za-z0-9+/=_-]{16,}$")
_STARTS = re.compile(r"^.?\s*(?:\w+ *\+=|[+.])?\s*[a-zA-Z]{0,2}['\"]|^.?\s*[A-Za-z0-9+/=_-]+['\")]*$")
"""End of a line, and start of the next one, that together may be one string, or base64."""
_BETWEEN = re.compile(r"['\"]\s*(?:\w+ *\+=|[+.])?\s*[a-zA-Z]{0,2}['\"]")
"""Text between two strings that are one: quotes, a plus, `key +=`."""

_FOLDERS = re.compile(
    r"(?<=[\"'])[~/][^\"'\n]*/(?=[^\"'/\n]*[\"'])|(?<![\w./:…])(?:~|\.\.?)?/(?:[^\s/'\",:;=()\[\]]+/)+"
)
"""The folders of a path: an absolute one, or one from the home or the working directory; not those of an address."""

LEFT_OUT = "[a line that looks like a secret is left out]"


_KEY_BLOCK = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY.*?(?:-----END [A-Z0-9 -]*|\Z)", re.DOTALL)
KEY_LEFT_OUT = "[a key is left out]"


def without_keys(text: str) -> str:
    """Replace the keys of known services in an error, a traceback or a message by a note; the rest stays as it is."""
    return KEYS.sub(KEY_LEFT_OUT, _KEY_BLOCK.sub(KEY_LEFT_OUT, text))


def without_folders(text: str) -> str:
    """Replace the folders of each path in a text: /home/me/nets/net.py becomes …/net.py."""
    return _FOLDERS.sub("…/", text)


def redacted(diff: str) -> str:
    """Replace each line of a git diff that may be, or be a part of, a secret by a note; rather too many than too few.

    Of files that hold keys, by their names, only the name is left. Lines are cut at 2,000 characters.
    """
    kept: list[str] = []
    in_key_file = in_block = False
    for group in _joined(line[:2000] for line in diff.split("\n")):
        if header := _HEADER.match(group[0]):
            in_key_file, in_block = bool(_KEY_FILE.search(header[1])), False
            kept += [group[0], *["[the file may hold keys and is left out]"] * in_key_file]
        elif not in_key_file:
            text = "".join(re.sub(r"^[+ -]?\s*|[\s\\]+$", "", line) for line in group)
            in_block = in_block or "-----BEGIN " in text
            kept += [LEFT_OUT] * len(group) if in_block or _may_be_secret(group, text) else group
            in_block = in_block and "-----END " not in text
    return "\n".join(kept)


def _joined(lines: Iterator[str]) -> Iterator[list[str]]:
    """Group a line with those that continue its string, so that a key over several lines is seen as one."""
    group: list[str] = []
    for line in lines:
        if group and not group[-1].endswith("\\") and not (_GOES_ON.search(group[-1]) and _STARTS.search(line)):
            yield group
            group = []
        group.append(line)
    yield group


def _may_be_secret(group: list[str], text: str) -> bool:
    whole = _BETWEEN.sub("", text)
    return any(
        KEYS.search(each) or _ASSIGNED.search(each) or _SPOKEN.search(each) or any(map(_is_opaque, _WORD.findall(each)))
        for each in {*group, text, whole}
    )


def _is_opaque(word: str) -> bool:
    """Whether letters and digits are mixed as in a key: 32 or more, or with many changes between their kinds."""
    changes = len(re.findall(r"[a-z]+|[A-Z]+|[0-9]+|[^a-zA-Z0-9]+", word)) - 1
    mixed = re.search("[0-9]", word) and re.search("[a-zA-Z]", word)
    return bool(mixed) and (len(word) >= 32 or changes >= 0.35 * len(word))
