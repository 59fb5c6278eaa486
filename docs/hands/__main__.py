"""Writes docs/hands.md and docs/hands.svg: `python -m docs.hands`, from what is kept of study=hands."""

import argparse

from docs.hands.kept import load_all
from docs.hands.page import FIGURE, PAGE, write_page
from pipeline.errors import run_stage


def main() -> None:
    argparse.ArgumentParser(prog="python -m docs.hands", description=__doc__).parse_args()
    kept = load_all()
    write_page(kept)
    print(f"{PAGE} and {FIGURE}: {len(kept)} stages of training")


if __name__ == "__main__":
    run_stage(main)
