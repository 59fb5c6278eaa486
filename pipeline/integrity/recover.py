"""Removes what a killed `dvc repro` left half written; `make repro` begins with this.

DVC writes its lock files in place, so a kill in that moment leaves half of one, and DVC refuses it from then on.
Without dvc.lock it looks at every stage again, restores what it has in its cache, and each stage keeps what is
finished.
"""

import json
from pathlib import Path

import yaml
from dvc.lock import LockError, make_lock
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from voluptuous import Invalid

from pipeline.errors import run_stage
from pipeline.stage_arguments import stage_parser

LOCK = Path("dvc.lock")
STATE = Path(".dvc/tmp")


def recover() -> list[Path]:
    """Delete the lock files that cannot be read; returns which. Where another DVC is at work, they are its own."""
    STATE.mkdir(parents=True, exist_ok=True)
    damaged = []
    for path, guard, readable in (
        (LOCK, "lock", _is_lockfile),
        (STATE / "rwlock", "rwlock.lock", _is_json),
    ):
        try:
            with make_lock(str(STATE / guard), tmp_dir=str(STATE)):
                if path.exists() and not readable(path.read_bytes()):
                    path.unlink()
                    damaged.append(path)
        except LockError:
            continue
    return damaged


def _is_lockfile(content: bytes) -> bool:
    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.load(content, Loader=yaml.CSafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError, Invalid):
        return False
    return True


def _is_json(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content), dict)
    except ValueError:
        return False


def main() -> None:
    stage_parser("pipeline.integrity.recover", __doc__).parse_args()
    for path in recover():
        print(f"recover: {path} was half written when DVC was killed; deleted, what is finished is kept")


if __name__ == "__main__":
    run_stage(main)
