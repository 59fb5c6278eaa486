"""Keeps a run's results in git: `python -m docs.kept_results` writes docs/results/default.json.

What `make repro` makes is not in git, since another kind of processor computes other last digits. README.md quotes this
file, so its figures change when somebody decides so and not with the machine. Run it where the default study has run.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, run_stage
from pipeline.layout import PARAMS
from pipeline.results.comparison import COMPARISON, Comparison, load_comparison
from pipeline.storage.files import write_atomically
from pipeline.study.study import Study, load_study

KEPT = Path("docs/results/default.json")
COMMAND = "python -m docs.kept_results"
# More than any page quotes, and few enough that a diff of two runs shows what differs between them.
_DIGITS = 5


def rounded(content: Any) -> Any:
    """JSON content with every number that is not whole at `_DIGITS` significant digits."""
    if isinstance(content, float):
        return float(f"{content:.{_DIGITS}g}")
    if isinstance(content, dict):
        return {key: rounded(value) for key, value in content.items()}
    if isinstance(content, list):
        return [rounded(value) for value in content]
    return content


def kept(comparison: Comparison) -> bytes:
    """The file's bytes. Raises InputError for another study than the default one."""
    if comparison.study != "default":
        raise InputError(f"params.yaml holds study '{comparison.study}'; {KEPT} keeps 'default', so run `make repro`")
    # No checksum: git has one of its own, and this file's diffs are read.
    return f"{json.dumps(rounded(comparison.model_dump(mode='json')), indent=2)}\n".encode()


def load_kept(study: Study, root: Path = Path()) -> Comparison:
    """The kept results below `root`. Raises InputError where they are missing, malformed or not of this study."""
    return load_comparison(root / KEPT, study)


def main() -> None:
    argparse.ArgumentParser(prog=COMMAND, description=__doc__).parse_args()
    content = kept(load_comparison(COMPARISON, load_study(PARAMS)))
    write_atomically(KEPT, content)
    print(f"{KEPT}: {len(content) / 1000:.0f} kB; `python -m docs.readme` writes README.md from it")


if __name__ == "__main__":
    run_stage(main)
