"""Whether a study is what was written, to the bit, and what params.yaml asks for; says what to regenerate.

Every shard, feature file and table is compared with the checksum it carries, the study's plan and what it was made of,
and every output against the hash in dvc.lock, computed from its bytes: DVC takes a file that kept its size and time
stamp for unchanged. Ends with 0 where all is well and with 1 where something is to be regenerated.
"""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from pipeline.errors import run_stage
from pipeline.integrity.artefact_checks import Artefact, Finding, study_artefacts
from pipeline.integrity.locked_outputs import LockedFile, folder_md5, locked_files, md5_of
from pipeline.stage_arguments import stage_parser
from pipeline.study.study import Study, load_study


def verify(study: Study) -> tuple[int, list[Finding]]:
    """How many files the study in the working folder has, and what is wrong with which. Raises InputError."""
    artefacts, locked = list(study_artefacts(study)), list(locked_files())
    # Hashing and decoding leave Python, so threads are enough.
    with ThreadPoolExecutor(os.cpu_count()) as pool, tqdm(desc="verify", unit="file", disable=None) as bar:
        bar.reset(len(artefacts) + len(locked))

        def checked(artefact: Artefact) -> Finding | None:
            bar.update()
            return artefact.finding()

        own = {found.path: found for found in pool.map(checked, artefacts) if found is not None}
        whole = {artefact.path for artefact in artefacts} - set(own)

        def compared(file: LockedFile) -> Finding | None:
            bar.update()
            # A folder that stands for its files is another than recorded where one of them is.
            told = file.path in own or any(file.path in path.parents for path in own)
            return None if told else _recorded(file, file.path in whole)

        recorded = [found for found in pool.map(compared, locked) if found is not None]
    paths = {artefact.path for artefact in artefacts} | {file.path for file in locked}
    return len(paths), sorted([*own.values(), *recorded], key=lambda found: found.path)


def _recorded(file: LockedFile, whole: bool) -> Finding | None:
    """How a file differs from dvc.lock; `whole` says that it has its own checksum and fits the study."""
    if not file.path.exists():
        return Finding(file.path, f"{file.path} does not exist; `dvc repro` makes it", damaged=True)
    if file.md5 is None:
        return Finding(file.path, f"{file.path} is not in dvc.lock; run `dvc repro`", damaged=False)
    if (folder_md5 if file.path.is_dir() else md5_of)(file.path) == file.md5:
        return None
    if whole or file.path.is_dir():
        return Finding(file.path, f"{file.path} is not what dvc.lock records; run `dvc repro`", damaged=False)
    fault = "is not what dvc.lock records; delete it and run `dvc repro`"
    return Finding(file.path, f"{file.path} {fault}", damaged=True)


def repair(findings: Sequence[Finding]) -> list[Path]:
    """Delete what is damaged, and DVC's copies of it where they are damaged too; returns what was deleted.

    `dvc repro` then restores it from a whole copy, or regenerates it.
    """
    copies = {file.path: file for file in locked_files()}
    deleted = []
    for found in findings:
        if not found.damaged:
            continue
        copy = copies.get(found.path)
        if copy is not None and copy.cached is not None and copy.cached.is_file() and md5_of(copy.cached) != copy.md5:
            copy.cached.unlink()
        if found.path.is_file():
            found.path.unlink()
            deleted.append(found.path)
    return deleted


def main() -> None:
    parser = stage_parser("pipeline.integrity.verify", __doc__)
    parser.add_argument("--repair", action="store_true", help="delete what is damaged, so that it is regenerated")
    arguments = parser.parse_args()
    count, findings = verify(load_study())
    for found in findings:
        print(found.fault)
    damaged = sum(found.damaged for found in findings)
    print(f"verify: {count} files, {damaged} damaged or missing, {len(findings) - damaged} not up to date")
    if arguments.repair and damaged:
        deleted = repair(findings)
        print(f"verify: {len(deleted)} damaged files deleted; next: make repro")
    elif damaged:
        print(
            "next: python -m pipeline.integrity.verify --repair deletes the damaged files, "
            "and make repro regenerates them"
        )
    if findings:
        sys.exit(1)


if __name__ == "__main__":
    run_stage(main)
