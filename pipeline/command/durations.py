"""How long the stages of a study take on this machine: as they took here before, else as on a machine that is named."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.storage.files import write_atomically

# Kept with DVC's own temporary files, which git does not see.
RECORD = Path(".dvc/tmp/guidedrift/seconds.json")
# Of the default study with 1,728 images on two cores of an AMD EPYC (docs/benchmarks.md, study_*_seconds). The stages
# that wait for people or show numbers take as long for any study.
ELSEWHERE = "two cores of an AMD EPYC"
_IMAGES_THERE = 1728
_FIXED = {
    "preflight": 6.0,
    "reference": 10.0,
    "metrics": 0.5,
    "sample": 3.0,
    "push": 2.0,
    "pull": 2.0,
    "rates": 4.0,
    "dataset": 5.0,
    "report": 8.0,
    "track": 10.0,
}
_BY_IMAGE = {"measure": 60.0, "compare": 30.0}
# Importing libraries, whatever the number of images.
_START = 8.0
# One evaluation of the embedded networks on one core: study_generate_seconds over the default study's 92,160.
EMBEDDED_EVALUATION = 0.0052


def stage_seconds(images: int, arms: int) -> dict[str, float]:
    """Seconds of every stage but `generate`, for a study of `images` in all."""
    found = {stage: seconds * (arms if stage == "metrics" else 1) for stage, seconds in _FIXED.items()}
    found |= {stage: _START + (seconds - _START) * images / _IMAGES_THERE for stage, seconds in _BY_IMAGE.items()}
    for stage, (seconds, then) in _recorded().items():
        by_image = stage in _BY_IMAGE and then
        found[stage] = _START + max(0.0, seconds - _START) * images / then if by_image else seconds
    return found


def remember(seconds: Mapping[str, float], images: int) -> None:
    """Keep what the stages that ran took, for a study of `images` in all."""
    kept = {stage: list(entry) for stage, entry in _recorded().items()}
    kept |= {stage: [round(value, 1), images] for stage, value in seconds.items() if stage != "generate"}
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(RECORD, f"{json.dumps(kept, indent=1)}\n".encode())


def workers(images: int, threads: int) -> int:
    """How many processes generate on this machine's cores (pipeline/execution/executor.py)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(images // 128, cores // threads))


def in_words(seconds: float) -> str:
    """A duration as people say it: `40 s`, `6 min`, `2 h 10 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _recorded() -> dict[str, tuple[float, int]]:
    try:
        content = json.loads(RECORD.read_text("utf-8"))
        return {str(stage): (float(seconds), int(images)) for stage, (seconds, images) in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
