"""Writes docs/answers.md: `python -m docs.answers`, from the claims and from what is kept of their studies."""

import argparse

from docs.answers.page import write_page
from pipeline.errors import run_stage


def main() -> None:
    argparse.ArgumentParser(prog="python -m docs.answers", description=__doc__).parse_args()
    write_page()


if __name__ == "__main__":
    run_stage(main)
