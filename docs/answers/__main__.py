"""Writes docs/answers.md: `python -m docs.answers`, from the claims and from what is kept of their studies."""

import argparse
from pathlib import Path

from docs.answers.claims import load_claims
from docs.answers.measured import load_measured
from docs.answers.page import page
from pipeline.errors import run_stage
from pipeline.storage.files import write_atomically

PAGE = Path("docs/answers.md")


def written() -> str:
    """The page as it follows from the repository. Raises InputError."""
    claims = load_claims()
    kept = {study: load_measured(study, numbers) for study, numbers in claims.wanted.items()}
    return page(claims, kept)


def main() -> None:
    argparse.ArgumentParser(prog="python -m docs.answers", description=__doc__).parse_args()
    text = written()
    write_atomically(PAGE, text.encode())
    print(f"{PAGE}: {len(list(load_claims()))} claims")


if __name__ == "__main__":
    run_stage(main)
