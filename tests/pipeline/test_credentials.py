"""Tokens and passwords stay out of configurations, errors and everything that is made of them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from compositions import composed
from repository_copy import ROOT

from pipeline.compose import compose
from pipeline.credentials import check_private, credential_in, credential_patterns
from pipeline.errors import InputError, run_stage
from pipeline.study.study import parse_study

# Made up here, of the shapes that the real ones have.
SECRETS = {
    "a Hugging Face token": "hf_" + "aB3" * 10,
    "a GitHub token": "ghp_" + "a1B2" * 9,
    "an AWS key": "AKIA" + "ABCD" * 4,
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "credentials in an address": "s3://key:secret@bucket",
}


@pytest.mark.parametrize(("what", "secret"), SECRETS.items())
def test_a_credential_is_found_and_never_shown(params: dict[str, Any], what: str, secret: str) -> None:
    assert credential_in(f"before {secret} after") == what
    params["arms"]["cfg"]["description"] = f"drawn with {secret}"
    with pytest.raises(InputError, match=f"test holds {what}") as raised:
        parse_study(params, "test")
    assert secret not in str(raised.value)


def test_the_default_study_holds_none() -> None:
    assert credential_in(json.dumps(composed())) is None


def test_values_of_secret_variables_and_passwords_in_addresses_are_looked_for() -> None:
    environment = {
        "HF_TOKEN": "no-known-shape",
        "MLFLOW_TRACKING_URI": "https://ann:open-sesame@host",
        "HOME": "/home/ann",
    }
    patterns = credential_patterns(environment)
    assert credential_in("x no-known-shape x", patterns) == "the value of HF_TOKEN"
    assert credential_in("x open-sesame x", patterns) == "the password in MLFLOW_TRACKING_URI"
    assert credential_in("ann is at /home/ann", patterns) is None


@pytest.mark.parametrize("uri", ["https://ann:pw@host/x", "postgresql://ann:pw@host/db", "https://host/x?key=pw1"])
def test_an_address_with_a_password_is_refused_without_showing_it(params: dict[str, Any], uri: str) -> None:
    params["tracking"]["uri"] = uri
    with pytest.raises(InputError, match=r"credentials") as raised:
        parse_study(params, "test")
    assert "pw" not in str(raised.value).replace("password", "").replace("PASSWORD", "")


def test_a_study_reads_no_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "no-known-shape")
    with pytest.raises(InputError, match="reads no environment variable") as raised:
        compose(ROOT / "conf", ["name=${oc.env:HF_TOKEN}"])
    assert "no-known-shape" not in str(raised.value)


@pytest.mark.parametrize("mode", [0o640, 0o644, 0o660, 0o602])
def test_a_file_with_a_credential_is_its_owner_s_alone(tmp_path: Path, mode: int) -> None:
    (tmp_path / "token").write_text("x")
    (tmp_path / "token").chmod(mode)
    with pytest.raises(InputError, match=rf"others can reach it \(mode {mode:03o}\); run: chmod 600"):
        check_private(tmp_path / "token")
    (tmp_path / "token").chmod(0o600)
    check_private(tmp_path / "token")


def test_an_error_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def stage() -> None:
        raise InputError("arm '\x1b[2J\x1b]0;x\x07\u202e' is unknown\nhere")

    with pytest.raises(SystemExit):
        run_stage(stage)
    assert capsys.readouterr().err == "error: arm '\\x1b[2J\\x1b]0;x\\x07\\u202e' is unknown here\n"


def test_mlflow_s_pages_are_on_loopback_and_their_command_holds_no_password(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.tracking import server

    commands: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda _, command: commands.append(command))
    monkeypatch.setattr(sys, "argv", ["server"])
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    server.main()
    (command,) = commands
    assert command[command.index("--host") + 1] == "127.0.0.1"
    # Of a server with a password the address alone is told, and nothing is started.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ann:open-sesame@host/x")
    server.main()
    assert len(commands) == 1
    assert "open-sesame" not in capsys.readouterr().out
