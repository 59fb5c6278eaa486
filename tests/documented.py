"""Commands and files that the documentation shows."""

import re
from pathlib import Path

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A file is named by the last words before its block, which are in backticks.
_FILE = re.compile(r"`((?:conf|prompts)/\S+\.\w+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(document: Path) -> list[str]:
    """The shell commands of a Markdown file's ```sh blocks in order, without their comments."""
    blocks = [text for language, text in _BLOCK.findall(document.read_text("utf-8")) if language == "sh"]
    lines = [re.split(r"(?:^|\s+)# ", line)[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def files(document: Path) -> dict[str, str]:
    """The files that a Markdown file shows in full, each exactly as it stands in its block."""
    return dict(_FILE.findall(document.read_text("utf-8")))


def blocks(document: Path) -> list[str]:
    """Everything that stands in blocks, in order."""
    return [text for _, text in _BLOCK.findall(document.read_text("utf-8"))]
