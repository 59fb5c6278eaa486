"""A run changes nothing that git tracks, on whatever processor: `git pull` goes on, and reports name a clean commit."""

import json
import os
import shutil

from clone import ENVIRONMENT, Clone
from repository_copy import LOCK

# The kernels of another kind of processor: those that torch, oneDNN and MKL have for one without AVX.
OLDER_PROCESSOR = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
# What is made by `make repro`, as in .gitignore.
MADE = ("data", "metrics", "plots", "reports", ".dvc/cache", ".dvc/tmp")


# As few arms and feature spaces as can be compared.
STUDY = """# @package _global_
# Two arms.
defaults:
  - /setup: embedded
  - /arm: [unguided, cfg]
  - override /features: [clip]
  - _self_

name: two_arms
baseline: unguided
"""


def numbers(clone: Clone) -> list[float]:
    """Every score of every arm."""
    arms = json.loads((clone.folder / "metrics/compare.json").read_text())["arms"]
    return [score["value"] for arm in arms for score in arm["scores"].values()]


def test_a_clone_is_clean_after_runs_whose_last_digits_differ(clone: Clone, monkeypatch) -> None:
    config = clone.folder / "conf/config.yaml"
    config.write_text(config.read_text().replace("study: default", "study: two_arms"))
    (clone.folder / "conf/study/two_arms.yaml").write_text(STUDY)
    clone.shell("make params")
    clone.commit()
    made = []
    for processor in ({}, OLDER_PROCESSOR):
        for name, value in processor.items():
            monkeypatch.setitem(ENVIRONMENT, name, value)
        clone.shell("dvc repro metrics report")
        # DVC refuses a lock file that git ignores. It is nobody's but this folder's, so git does not track it either.
        assert clone.shell("git status --porcelain") == f"?? {LOCK}\n"
        assert "with changes that are not committed" not in (clone.folder / "reports/index.html").read_text()
        made.append(numbers(clone))
        for name in MADE:
            shutil.rmtree(clone.folder / name)
        os.remove(clone.folder / LOCK)
    assert made[0] != made[1], "the processors are to differ"
