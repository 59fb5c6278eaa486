"""Keeps how right interrogation is, and writes docs/interrogator.md's table: `python -m docs.interrogator_figures`.

It needs the reference set of the default study (`make repro`), and then a minute.
"""

import json
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from docs.kept_results import rounded
from docs.written_block import replaced
from eval.interrogation.accuracy import IMAGES, Accuracy, Measured, print_accuracy
from eval.notation import count, quoted_percent
from pipeline.errors import InputError, run_stage
from pipeline.storage.files import write_atomically
from pipeline.study.study import load_study

PAGE = Path("docs/interrogator.md")
KEPT = Path("docs/results/interrogator.json")
COMMAND = "python -m docs.interrogator_figures"


def load_kept(root: Path = Path()) -> Measured:
    """What is kept below `root`. Raises InputError where it is missing or malformed."""
    try:
        return TypeAdapter(Measured).validate_json((root / KEPT).read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(f"{root / KEPT}: {error}; `{COMMAND}` writes it") from None


def block(measured: Measured) -> str:
    """The block of docs/interrogator.md."""
    said = (
        f"How right that is, on {count(measured.images)} held-out images of the embedded world whose exact tags are\n"
        f"known, with the {count(measured.reference)} reference images of the default study, of whose {measured.known} "
        f"tags {measured.readable} can be read\n(brackets are 95 % intervals over images, CLIP {measured.clip}):"
    )
    rows = [
        "| images | of tags with a chance of 0.5 and more, right | of tags shown, found "
        "| how far chances lie from shares |",
        "|---|---|---|---|",
        _row("of good quality, as the reference set", measured.good),
        _row("of every quality and with flaws", measured.every),
    ]
    return "\n".join([said, "", *rows])


def _row(images: str, measured: Accuracy) -> str:
    shares = [quoted_percent(share, 1) for share in (measured.precision, measured.recall)]
    return f"| {images} | {' | '.join(shares)} | {measured.calibration_error:.3f} |"


def main() -> None:
    measured = print_accuracy(load_study(), IMAGES)
    write_atomically(KEPT, f"{json.dumps(rounded(asdict(measured)), indent=1)}\n".encode())
    PAGE.write_text(replaced(PAGE.read_text("utf-8"), PAGE, COMMAND, block(measured)), "utf-8")
    print(f"{KEPT}, {PAGE}; `python -m docs.answers` reads the first")


if __name__ == "__main__":
    run_stage(main)
