"""Which Label Studio a study uses, and its errors in one line without secrets.

The SDK takes seconds to import, so this module does without it until there is a server to talk to: a study without
one must not wait for it.
"""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr, StringConstraints, ValidationError

from pipeline.credentials import check_private
from pipeline.errors import InputError, printable

if TYPE_CHECKING:
    from label_studio_sdk.client import LabelStudio

SERVER_FOLDER = Path(".label-studio")
CREDENTIALS = SERVER_FOLDER / "credentials.json"
URL_VARIABLE, KEY_VARIABLE = "LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY"
# Not `make repro`, which would compose the default study's params.
GO_ON = "`.venv/bin/dvc repro`"
HOW_TO_START = (
    f"`make label-studio` starts a server (in another terminal), or {URL_VARIABLE} and {KEY_VARIABLE} name one; then "
    f"{GO_ON} sends the images"
)

_TIMEOUT = 60.0


class ServerUnavailable(InputError):
    """No server is there, or the one that is there does not answer or refuses."""


class Credentials(BaseModel):
    """What `make label-studio` generated: the address, the login and the token of the local server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Whoever could change it to another machine's would be sent the token.
    url: Annotated[str, StringConstraints(pattern=r"^http://127\.0\.0\.1:[0-9]{1,5}$")]
    username: str
    password: SecretStr
    token: SecretStr


@dataclass(frozen=True)
class Connection:
    """A server's address, its key, and where that key came from (for errors)."""

    url: str = field(repr=False)
    key: SecretStr
    source: str

    @property
    def shown(self) -> str:
        """The address without the credentials that it may hold."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def has_port_or_none(url: str) -> bool:
    """Whether the port of an address is a number that a port can be, or left out."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def configured(root: Path = Path()) -> Connection | None:
    """The server that the environment names, else the running one that `make label-studio` started, else None.

    Raises InputError where the environment names half of one, or the credentials file is damaged.
    """
    named = {name: os.environ.get(name, "").strip() for name in (URL_VARIABLE, KEY_VARIABLE)}
    if all(named.values()):
        url = named[URL_VARIABLE].rstrip("/")
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc or not has_port_or_none(url):
            raise InputError(f"{URL_VARIABLE} is no http or https address; set it to one such as http://127.0.0.1:8080")
        return Connection(url, SecretStr(named[KEY_VARIABLE]), KEY_VARIABLE)
    if any(named.values()):
        missing = next(name for name, value in named.items() if not value)
        raise InputError(f"{missing} is not set; a server is named by {URL_VARIABLE} and {KEY_VARIABLE} together")
    credentials = read_credentials(root / CREDENTIALS)
    if credentials is None or not answers(credentials.url):
        return None
    return Connection(credentials.url, credentials.token, str(root / CREDENTIALS))


def required(root: Path = Path()) -> Connection:
    """The configured server. Raises ServerUnavailable where there is none, otherwise as `configured`."""
    connection = configured(root)
    if connection is None:
        raise ServerUnavailable(f"no Label Studio is running; {HOW_TO_START}")
    return connection


def read_credentials(path: Path) -> Credentials | None:
    """The local server's credentials; None where there are none.

    Raises InputError where the file is damaged or others can read it.
    """
    try:
        check_private(path)
        return Credentials.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        raise InputError(f"{path} is damaged; delete {path.parent} to begin anew (its labels go with it)") from None


def write_credentials(path: Path, credentials: Credentials) -> None:
    """Write the credentials so that nobody else can read them (mode 600 from the first byte on)."""
    content = {
        "url": credentials.url,
        "username": credentials.username,
        "password": credentials.password.get_secret_value(),
        "token": credentials.token.get_secret_value(),
    }
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
    os.replace(temporary, path)


def answers(url: str, timeout: float = 2.0) -> bool:
    """Whether a Label Studio answers at `url`."""
    try:
        # Of http or https: the environment's address and that of the credentials are looked at before.
        with urllib.request.urlopen(f"{url}/health", timeout=timeout) as response:  # noqa: S310
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


@contextmanager
def client_of(connection: Connection) -> Iterator["LabelStudio"]:
    """The SDK's client; whatever the server refuses in the block becomes a ServerUnavailable in one line.

    `str(ApiError)` holds the response's headers, a session cookie among them, so it is never shown.
    """
    import httpx
    from label_studio_sdk.client import LabelStudio
    from label_studio_sdk.core.api_error import ApiError

    try:
        key = connection.key.get_secret_value()
        yield LabelStudio(  # type: ignore[no-untyped-call]
            base_url=connection.url,
            api_key=key,
            timeout=_TIMEOUT,
            # Its server sends an answer in two parts; on a kept connection the second waits 40 ms for the client's
            # delayed acknowledgement (Nagle's algorithm).
            headers={"Connection": "close"},
        )
    except httpx.HTTPError as error:
        raise ServerUnavailable(
            f"Label Studio at {connection.shown} does not answer ({type(error).__name__}); "
            "what was done so far is kept: start it again and repeat the command"
        ) from None
    except ApiError as error:
        if error.status_code in (401, 403):
            raise ServerUnavailable(
                f"Label Studio at {connection.shown} refuses the key from {connection.source} "
                f"({error.status_code}); take a valid one from its page 'Account & Settings', then repeat the command"
            ) from None
        reason = printable(_reason(error.body))
        for secret in (connection.key.get_secret_value(), urlsplit(connection.url).password):
            reason = reason.replace(secret, "***") if secret else reason
        raise ServerUnavailable(
            f"Label Studio at {connection.shown} refuses ({error.status_code}): {reason[:300]}; "
            "what was done so far is kept: mend that and repeat the command"
        ) from None


def _reason(body: Any) -> str:
    if isinstance(body, dict):
        return str(body.get("validation_errors") or body.get("detail") or "no reason given")
    return str(body)
