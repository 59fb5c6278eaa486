"""`dvc repro` on a small study in a repository of its own: the real stages, the real DVC, the shipped networks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from repository_copy import copy_repository

SMALL = """# @package _global_
defaults:
  - /model: tinybooru
  - /prompts: tinybooru
  - /text: a1111
  - /sampler: ddim
  - /features: clip
  - /metrics: default
  - /tracking: local
  - /arm:
      - unguided
      - cfg
  - _self_

name: small
baseline: unguided
reference:
  pictures: 32
  world_seed: 0
generate:
  pictures: 16
  first_seed: 0
  shard: 8
  batch: 8
sampler:
  steps: 3
metrics:
  resamples: 100
"""


def run(project, *command, ok=True):
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "HF_HUB_OFFLINE": "1",
        "LABEL_STUDIO_URL": "",
        "LABEL_STUDIO_API_KEY": "",
        "COLUMNS": "400",  # DVC cuts a table that is wider than the terminal
    }
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert not ok or done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


# DVC cannot see what people do in Label Studio, nor what only the configuration names, so these look every time.
ASKING = {"push", "pull", "weights"}


def stages_run(said):
    """The stages that ran by what DVC said, but for those that always do."""
    return {line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")} - ASKING


def would_run(project):
    """The stages that `dvc repro` would run now."""
    return stages_run(run(project, "dvc", "repro", "--dry").stdout)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The tracked and new files of this repository in a git repository of their own, with a small study, run once."""
    folder = tmp_path_factory.mktemp("clone")
    copy_repository(folder)
    (folder / "dvc.lock").unlink(missing_ok=True)
    shutil.rmtree(folder / "metrics", ignore_errors=True)
    (folder / "conf/study/small.yaml").write_text(SMALL)
    config = folder / "conf/config.yaml"
    config.write_text(config.read_text().replace("study: default", "study: small"))
    run(folder, sys.executable, "-m", "pipeline.compose")
    run(folder, "git", "init", "-q")
    run(folder, "git", "config", "user.name", "test")
    run(folder, "git", "config", "user.email", "test@localhost")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "clone")
    run(folder, "dvc", "repro")
    # Experiments are compared with the commit that they start from.
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "the small study")
    return folder


def test_everything_is_made(project):
    for name in (
        "data/sets/unguided/part-00001.parquet",
        "data/trace/cfg/part-00000.parquet",
        "data/features/reference/clip.safetensors",
        "data/scores/cfg.parquet",
        "metrics/cfg.json",
        "metrics/compare.json",
        "plots/arms.csv",
        "data/dataset/README.md",
        "reports/index.html",
        "mlflow.db",
    ):
        assert (project / name).is_file(), name
    compare = json.loads((project / "metrics/compare.json").read_text())
    assert [arm["arm"] for arm in compare["arms"]] == ["unguided", "cfg"]
    assert compare["arms"][0]["against_baseline"] is None
    assert compare["arms"][1]["scores"]["fd"]["n"] == 16
    assert compare["provenance"]["extractor_digest"]


def test_a_second_repro_does_nothing(project):
    said = run(project, "dvc", "repro").stdout
    assert stages_run(said) == set()
    for stage in ASKING:
        assert f"{stage}: " in said
    assert said.count("no Label Studio is running") == len(ASKING - {"weights"})


def test_metrics_and_plots_show(project):
    shown = json.loads(run(project, "dvc", "metrics", "show", "--json").stdout)
    values = shown[""]["data"]["metrics/cfg.json"]["data"]
    assert set(values) == {"fd", "precision", "recall", "coverage", "clip_score", "aesthetic", "malformed", "n"}
    detail = json.loads((project / "metrics/detail/cfg.json").read_text())
    assert {"density", "kid", "cmmd", "vendi"} <= set(detail["scores"])
    table = run(project, "dvc", "metrics", "show").stdout
    assert max(len(line) for line in table.splitlines()) <= 120
    page = run(project, "dvc", "plots", "show").stdout
    assert "index.html" in page


def test_another_scale_redraws_no_other_arm(project):
    run(project, sys.executable, "-m", "pipeline.compose", "arms.cfg.scale=5")
    stages = would_run(project)
    assert {s for s in stages if s.startswith(("reference", "generate", "features", "score"))} == {"generate@cfg"}
    run(project, sys.executable, "-m", "pipeline.compose")
    assert would_run(project) == set()


def test_another_metric_setting_regenerates_no_picture(project):
    run(project, sys.executable, "-m", "pipeline.compose", "metrics.resamples=120")
    stages = would_run(project)
    assert {"score@cfg", "score@unguided", "compare"} <= stages
    assert not {s for s in stages if s.startswith(("generate", "features"))}
    run(project, sys.executable, "-m", "pipeline.compose")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_experiment_with_another_scale_draws_that_arm_alone(project):
    kept, changed = project / "data/sets/unguided", project / "data/sets/cfg"
    before, stamps = contents(changed), {p: p.stat().st_mtime_ns for p in kept.iterdir()}
    done = run(project, "dvc", "exp", "run", "-S", "arms.cfg.scale=5")
    arm = {"generate@cfg", "features@cfg", "score@cfg"}
    assert stages_run(done.stdout) == {*arm, "sample", "rates", "compare", "dataset", "report", "track"}
    assert {p: p.stat().st_mtime_ns for p in kept.iterdir()} == stamps
    assert contents(changed).keys() == before.keys()
    assert contents(changed) != before
    arms = json.loads((project / "metrics/compare.json").read_text())["arms"]
    assert [arm["scale"] for arm in arms] == [1.0, 5.0]


def test_experiments_show_where_they_differ(project):
    """After the experiment above: its scale, and numbers of the arm that it changed."""
    (project / ".venv").symlink_to(sys.prefix)
    shown = run(project, "make", "-o", ".venv/.ready", "experiments").stdout
    assert "arms.cfg.scale" in shown
    assert "metrics/cfg.json:fd" in shown
    assert "metrics/unguided.json" not in shown
    assert "data/sets" not in shown


def test_an_experiment_with_a_wrong_value_is_refused_by_the_study(project):
    done = run(project, "dvc", "exp", "run", "-S", "arms.cfg.scale=-1", "generate@cfg", ok=False)
    assert done.returncode != 0
    assert "arms.cfg.scale is -1" in done.stdout + done.stderr
