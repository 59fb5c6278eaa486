"""docs/first-study.md word by word in a fresh clone, with the embedded networks and with a small Stable Diffusion."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import requests
from clone import ENVIRONMENT, Clone, stages_run
from free_port import free_port

FIRST_RUN = ".venv/bin/guidedrift run --study mine --yes"
ANOTHER_SCALE = ".venv/bin/guidedrift run --study mine arms.my_negative.scale=2 --yes"


def test_the_guide_word_by_word(followed: Clone) -> None:
    compare = json.loads((followed.folder / "metrics/compare.json").read_text())
    assert {arm["arm"]: arm["scale"] for arm in compare["arms"]} == {
        "unguided": 1,
        "cfg": 3,
        "my_negative": 2,  # the last run is that of another scale
        "autoguidance": 1.5,
    }
    assert [found["arm"] for found in compare["alignment"]] == ["unguided"]
    assert "my_negative" in followed.said[".venv/bin/dvc metrics show"][0]
    planned, *_ = followed.said[".venv/bin/guidedrift plan --study mine"]
    assert "negative prompt: worst quality, bad anatomy, watermark" in planned
    assert "images: 80, of which 80 are to be generated" in planned
    assert "shift from unguided" in followed.said[".venv/bin/guidedrift report --numbers"][0]
    assert followed.said[".venv/bin/guidedrift report"] == [f"{followed.folder / 'reports/index.html'}\n"]
    aside = followed.said[".venv/bin/guidedrift compare mine@1 mine"][0]
    assert re.search(r"^ +mine \(mine@1\) +mine \(mine\)$", aside, re.MULTILINE)
    first, last = re.findall(r"^  my_negative +([\d.]+) \(.*\) +([\d.]+) \(.*\)$", aside, re.MULTILINE)[0]
    assert first != last, "another scale, another shift"
    assert "my_negative" in (followed.folder / "reports/index.html").read_text()
    listed = followed.said["make publish REPO=anna/mine DRY_RUN=1"][0]
    assert "nothing was sent" in listed
    assert "private anna/mine" in listed


def test_the_guide_makes_again_only_what_a_change_touches(followed: Clone) -> None:
    first, second = followed.said[FIRST_RUN]
    assert {"generate", "measure", "metrics@my_negative", "compare", "track"} <= stages_run(first)
    assert stages_run(second) == set()
    made = {"generate", "measure", "metrics@my_negative"}
    after = {"sample", "rates", "compare", "dataset", "report", "track"}
    third = followed.said[ANOTHER_SCALE][0]
    assert stages_run(third) == made | after
    assert "my_negative: 2 of 2 shards, because of arms.my_negative.scale" in third
    assert "(2 of 10 shards generated, 8 kept)" in third


def test_mlflow_serves_the_study_of_the_guide(followed: Clone) -> None:
    port = free_port()
    command = ["make", "-o", ".venv/.ready", "mlflow", f"PORT={port}"]
    server = subprocess.Popen(
        command, cwd=followed.folder, env=ENVIRONMENT, stdout=subprocess.PIPE, start_new_session=True
    )
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


def test_the_guide_with_a_stable_diffusion_checkpoint(clone: Clone, pipelines_folder: Path) -> None:
    # The arm of both networks, from the checkpoint to its scores: what comes after reads no checkpoint.
    shutil.copytree(pipelines_folder / "sd", clone.folder / "models/mine")
    shutil.copytree(pipelines_folder / "sd_guide", clone.folder / "models/mine_guide")
    clone.shell('make params OVERRIDES="study=mine"')
    clone.shell(".venv/bin/dvc repro metrics@autoguidance")
    drawn = pq.read_table(clone.folder / "data/sets/autoguidance")
    assert set(drawn["arm"].to_pylist()) == {"autoguidance"}
    assert json.loads((clone.folder / "metrics/autoguidance.json").read_text())["n"] == len(drawn) == 16
