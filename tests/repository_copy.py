"""This repository's tracked and new files as another folder, for tests that run its commands there."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
# What the default study measures with and git does not hold (eval/features/efficientnet.py).
CONVERTED = Path("models/extractors/efficientnet_lite0.safetensors")
# DVC's record of this folder's outputs, which git neither holds nor may ignore.
LOCK = "dvc.lock"


def copy_repository(folder: Path) -> None:
    """Copy what git tracks or would track to `folder`, as it is here, and link what `make setup` converts."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if name != LOCK and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    if (ROOT / CONVERTED).is_file():
        (folder / CONVERTED).symlink_to(ROOT / CONVERTED)
