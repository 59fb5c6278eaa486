"""Credentials: how they look in a text, and how they are kept out of it.

They come from the environment or from files that their owner alone can read, never from the configuration, which is
committed, logged to MLflow and published.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import InputError

# Shapes that are credentials wherever they stand. Each is specific enough that a prompt or a tokenizer has none.
_SHAPES = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{16,}",
    "a GitHub token": r"\b(gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})",
    "an API key": r"\b(sk-[\w-]{20,}|AIza[\w-]{30,}|xox[abprs]-[\w-]{10,})",
    "an AWS key": r"\b(AKIA|ASIA)[A-Z0-9]{16}\b",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a JSON web token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{5,}",
    "credentials in an address": r"\b[a-z][a-z0-9+.-]*://[^\s/@:\"']+:[^\s/@\"']+@",
    "a secret": r"(?i)\b(api[_-]?key|(access|auth)[_-]?token|secret|password|token)[\"']?\s*[:=]\s*[\"']?[\w-]{20,}",
}
_PATTERNS = {what: re.compile(shape) for what, shape in _SHAPES.items()}
# Names of environment variables whose values are secrets, and how long a value must be to be looked for.
_SECRET_VARIABLE = re.compile(r"(?i)(token|secret|password|passwd|api_?key|credential)")
_PASSWORD_IN_ADDRESS = re.compile(r"://[^\s/@:]*:([^\s/@]+)@")
_SHORTEST_SECRET = 8


def credential_patterns(environment: Mapping[str, str] = os.environ) -> dict[str, re.Pattern[str]]:
    """What finds credentials in a text, by what each is: their shapes, and the values that `environment` holds.

    Those are the values of variables named like secrets, and the passwords in addresses, such as MLFLOW_TRACKING_URI's.
    """
    patterns = dict(_PATTERNS)
    for variable, value in environment.items():
        if _SECRET_VARIABLE.search(variable) and len(value) >= _SHORTEST_SECRET:
            patterns[f"the value of {variable}"] = re.compile(re.escape(value))
        for password in _PASSWORD_IN_ADDRESS.findall(value):
            if len(password) >= _SHORTEST_SECRET:
                patterns[f"the password in {variable}"] = re.compile(re.escape(password))
    return patterns


def credential_in(text: str, patterns: Mapping[str, re.Pattern[str]] | None = None) -> str | None:
    """What kind of credential a text holds, never the credential itself; None for none."""
    return next((what for what, pattern in (patterns or credential_patterns()).items() if pattern.search(text)), None)


def masked(text: str) -> str:
    """`text` without the credentials of the addresses in it."""
    return re.sub(r"\?\S*", "?***", re.sub(r"//\S*@", "//***@", text))


def check_private(path: Path) -> None:
    """Raise InputError where anybody but its owner may read or change a file that holds a credential."""
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise InputError(f"{path} holds a credential and others can reach it (mode {mode:03o}); run: chmod 600 {path}")
