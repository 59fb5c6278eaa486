"""docs/first-study.md word by word in a fresh clone, with the embedded networks and with a small Stable Diffusion."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from documented import commands, files
from repository_copy import copy_repository

ROOT = Path(__file__).parent.parent.parent
GUIDE, README = ROOT / "docs/first-study.md", ROOT / "README.md"
# The guide's study with few pictures and steps.
SMALL = (
    "generate.pictures=16 generate.shard=8 generate.batch=8 generate.watched=1 reference.pictures=32 sampler.steps=3 "
    "metrics.resamples=100"
)
FIRST_REPRO = 'make repro OVERRIDES="study=mine"'
# Commands that this test does not run: what it is given instead, what other tests run (tests/test_documentation.py).
ELSEWHERE = (
    ".venv/bin/hf download",
    "make setup",
    "make label-studio",
    "make publish REPO=<owner>/<name>",
    "make mlflow",
)
ENVIRONMENT = {
    # Under `make test` these would make each `make` here a part of that one, which announces the folders it enters.
    **{name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}},
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_OFFLINE": "1",
    "LABEL_STUDIO_URL": "",
    "LABEL_STUDIO_API_KEY": "",
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}


def shell(project: Path, command: str) -> str:
    # The environment is this one, whatever its files' dates say about making it anew.
    command = re.sub(r"^make ", "make -o .venv/.ready ", command)
    done = subprocess.run(
        command, shell=True, cwd=project, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The tracked and new files of this repository in a git repository of their own, with this environment."""
    folder = tmp_path / "clone"
    copy_repository(folder)
    (folder / ".venv").symlink_to(sys.prefix)
    for command in ("git init -q", "git add -A", "git -c user.name=t -c user.email=t@localhost commit -qm clone"):
        shell(folder, command)
    return folder


@pytest.mark.parametrize("checkpoint", ["embedded", "stable diffusion"])
def test_the_guide_word_by_word(clone: Path, checkpoint: str, pipelines_folder: Path) -> None:
    for name, text in files(GUIDE).items():
        (clone / name).write_text(text)
    if checkpoint == "stable diffusion":
        shutil.copytree(pipelines_folder / "sd", clone / "models/mine")
        shutil.copytree(pipelines_folder / "sd_guide", clone / "models/mine_guide")
    said = {}
    for command in commands(GUIDE):
        stands_in = command.startswith("cp -r models/tinybooru")
        if (stands_in and checkpoint != "embedded") or (command.startswith(ELSEWHERE) and "DRY_RUN" not in command):
            continue
        if checkpoint != "embedded" and command.startswith("make repro") and said.get(FIRST_REPRO):
            continue  # labels and another scale know nothing of checkpoints, and minutes are dear
        small = command.replace("study=mine", f"study=mine {SMALL}").replace("<owner>/<name>", "anna/mine")
        said[command] = shell(clone, small)
    compare = json.loads((clone / "metrics/compare.json").read_text())
    assert {arm["arm"]: arm["scale"] for arm in compare["arms"]} == {
        "unguided": 1,
        "cfg": 3,
        "my_negative": 2 if checkpoint == "embedded" else 3,  # the last `make repro` is that of another scale
        "autoguidance": 1.5,
    }
    assert [found["arm"] for found in compare["alignment"]] == ["unguided"]
    assert "my_negative" in said[".venv/bin/dvc metrics show"]
    assert "my_negative" in (clone / "reports/index.html").read_text()
    listed = said["make publish REPO=<owner>/<name> DRY_RUN=1"]
    assert "nothing was sent" in listed
    assert "private anna/mine" in listed
    assert_mlflow_serves(clone)


def assert_mlflow_serves(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["make", "-o", ".venv/.ready", "mlflow", f"PORT={port}"]
    server = subprocess.Popen(command, cwd=project, env=ENVIRONMENT, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert server.stdout is not None
        first = server.stdout.readline().decode()
        assert f"http://127.0.0.1:{port}/#/experiments/1/runs?viewStateShareKey=mine" in first
        search = f"http://127.0.0.1:{port}/api/2.0/mlflow/registered-models/get?name=guidedrift-mine"
        while server.poll() is None:
            try:
                found = requests.get(search, timeout=10).json()
                break
            except requests.RequestException:
                time.sleep(1)
        assert found["registered_model"]["aliases"][0]["alias"] == "current"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def test_the_changes_of_the_readme_compose(clone: Path) -> None:
    # Each is drawn in the small by other tests; here the words are what counts.
    for command in commands(README):
        if not command.startswith("make repro OVERRIDES="):
            continue
        before = (clone / "params.yaml").read_text()
        shell(clone, command.replace("make repro", "make params"))
        assert (clone / "params.yaml").read_text() != before, command
