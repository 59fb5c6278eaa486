"""DVC's remote on a real S3 server: pushed, lost, pulled, the same; and read from a bucket in place."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from small_study import write_study

from eval.features.extraction import SetFeatures, load_features, save_features
from pipeline.layout import SETS
from pipeline.storage.remote_path import path_of
from pipeline.storage.shards import read_set, set_fingerprint


def dvc(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_study_that_was_pushed_is_pulled_the_same(tmp_path, bucket):
    write_study(tmp_path)
    before = set_fingerprint(tmp_path / SETS / "cfg")
    dvc(tmp_path, "init", "--no-scm", "-q")
    dvc(tmp_path, "add", "-q", str(SETS))
    dvc(tmp_path, "remote", "add", "--default", "storage", f"{bucket}/guidedrift")
    dvc(tmp_path, "push", "-q")
    shutil.rmtree(tmp_path / SETS)
    shutil.rmtree(tmp_path / ".dvc/cache")
    dvc(tmp_path, "pull", "-q")
    assert set_fingerprint(tmp_path / SETS / "cfg") == before


def test_sets_and_features_are_read_where_they_are(tmp_path, bucket):
    write_study(tmp_path)
    there = path_of(f"{bucket}/default")
    for path in (tmp_path / SETS / "cfg").iterdir():
        (there / SETS / "cfg" / path.name).write_bytes(path.read_bytes())
    assert read_set(there / SETS / "cfg").equals(read_set(tmp_path / SETS / "cfg"))
    assert set_fingerprint(there / SETS / "cfg") == set_fingerprint(tmp_path / SETS / "cfg")
    features = SetFeatures(["a", "b"], torch.rand(2, 8), torch.rand(2, 8), {"set": "x"})
    save_features(there / "clip.safetensors", features)
    assert torch.equal(load_features(there / "clip.safetensors").images, features.images)
