"""Whether this machine and this clone have what a study needs, one line each."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline.command.plan import plan_of
from pipeline.errors import InputError
from pipeline.layout import PARAMS
from pipeline.networks.checkpoints import locate
from pipeline.study.study import load_study

# What libraries and the embedded networks take in two processes.
_LEAST_MEMORY = 4 * 2**30
_GPUS = """
import torch
print(*(torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())), sep=", ")
"""
_MARKS = {True: "ok  ", False: "NO  "}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `fine` is False where a study would stop."""

    fine: bool
    what: str

    def __str__(self) -> str:
        return f"{_MARKS[self.fine]}{self.what}"


def checks() -> Iterator[Check]:
    """What the machine, the environment and the study in params.yaml have."""
    yield Check(sys.version_info >= (3, 11), f"Python {sys.version.split()[0]} (3.11 or later)")
    memory = psutil.virtual_memory().available
    yield Check(memory >= _LEAST_MEMORY, f"{memory / 2**30:.1f} GiB of memory free (4 or more), {os.cpu_count()} cores")
    yield _gpus()
    yield Check(shutil.which("git") is not None, "git, which DVC needs")
    try:
        study = load_study(PARAMS)
    except InputError as error:
        yield Check(False, str(error))
        return
    yield Check(True, f"{PARAMS}: study '{study.name}', {len(study.arms)} arms")
    try:
        if study.generated:
            yield Check(True, f"model {study.model.name}: {locate(study.model.main, study.model.config).path}")
    except InputError as error:
        yield Check(False, str(error))
    for extractor in study.features.extractors.values():
        for path, fault in extractor.kind.faults(extractor.weights, extractor.hub).items():
            yield Check(path.is_file(), str(path) if path.is_file() else fault)
    needed, free = plan_of(study).disk, shutil.disk_usage(Path.cwd()).free
    yield Check(free > needed, f"{free / 1e9:.0f} GB of disk free, the study takes about {needed / 1e9:.1f} GB")


def _gpus() -> Check:
    # In another process: torch takes seconds to load, and a broken one must not stop the rest.
    done = subprocess.run([sys.executable, "-c", _GPUS], capture_output=True, text=True, check=False)
    if done.returncode:
        return Check(False, f"torch cannot be imported: {done.stderr.strip().splitlines()[-1]}; run make setup")
    return Check(True, f"GPU: {done.stdout.strip() or 'none; images are generated on the processor'}")
