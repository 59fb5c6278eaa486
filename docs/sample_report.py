"""Keeps the report of the default study in git, with fewer images: `python -m docs.sample_report`.

Readers of the README see with it what a run makes before they run anything. Run it where the default study has run.
"""

import argparse
from pathlib import Path

from eval.report.page import report
from pipeline.errors import InputError, run_stage
from pipeline.layout import PARAMS
from pipeline.storage.files import write_atomically
from pipeline.study.study import load_study

SAMPLE = Path("docs/sample-report.html")
# Base64 characters of the gallery's images, so that the file stays small enough for git.
GALLERY_BYTES = 300_000


def main() -> None:
    argparse.ArgumentParser(prog="python -m docs.sample_report", description=__doc__).parse_args()
    study = load_study(PARAMS)
    if study.name != "default":
        raise InputError(f"{PARAMS} holds study '{study.name}'; {SAMPLE} keeps 'default', so run `make repro`")
    page = report(study, gallery_bytes=GALLERY_BYTES).encode()
    write_atomically(SAMPLE, page)
    print(f"{SAMPLE}: {len(page) / 1e6:.1f} MB")


if __name__ == "__main__":
    run_stage(main)
