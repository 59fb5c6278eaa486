"""Blocks of hand-written pages that a command writes: they stand between two comments, the first of which names it."""

import re
from pathlib import Path

from pipeline.errors import InputError

_END = "<!-- To here -->"


def marks(command: str) -> tuple[str, str]:
    """The comments around the block that `command` writes."""
    return f"<!-- Written by `{command}` -->", _END


def replaced(text: str, page: Path, command: str, block: str) -> str:
    """The page's text with the block of `command` in its place. Raises InputError where its comments are missing."""
    begin, end = marks(command)
    pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise InputError(f"{page} needs the comments {begin} and {end} once each")
    return pattern.sub(lambda _: f"{begin}\n{block}\n{end}", text)
