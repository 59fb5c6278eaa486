"""What belongs to arms that a study does not have is kept aside: neither DVC nor a later stage takes it along."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path


def set_aside(place: Path, wanted: Collection[str], aside: Path) -> list[str]:
    """Move what is in `place` and not `wanted` to `aside`/<name of place>, and back what is wanted and lies there.

    Names of files or folders directly in `place`. Whether what comes back still fits is for the stage to find out, as
    with what never left. Returns the names that were moved, either way.
    """
    store = aside / place.name
    moved = []
    for found in sorted(place.glob("*")):
        if found.name.endswith(".tmp"):  # what a killed write has left
            found.unlink()
        elif found.name not in wanted:
            _move(found, store / found.name)
            moved.append(found.name)
    for name in wanted:
        if not (place / name).exists() and (store / name).exists():
            _move(store / name, place / name)
            moved.append(name)
    return moved


def _move(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)
