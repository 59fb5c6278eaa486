"""Errors that a user can mend, and how a stage ends on one."""

import sys
from collections.abc import Callable


class InputError(Exception):
    """Bad input: the message names the key or file, the value seen and the way out, in one line."""


def run_stage(stage: Callable[[], None]) -> None:
    """Run a stage; an InputError becomes one line on standard error and exit code 2."""
    try:
        stage()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
