"""Untrusted text inside Markdown: prompts and descriptions are shown as they were written, and are never markup."""

import html
import re

# Everything that begins markup within a line, also links that need no brackets (http://, www., addresses).
_MARKUP = re.compile(r"[`*_{}\[\]#!|~$:@]|(?<=www)\.", re.IGNORECASE)


def plain(text: str) -> str:
    """`text` as one line of Markdown that shows exactly it, in a table's cell or within a line."""
    line = html.escape(" ".join(text.split()), quote=False)
    # A backslash is an entity because the Hub's pages begin a formula at two of them before a parenthesis.
    return _MARKUP.sub(lambda found: "\\" + found[0], line.replace("\\", "&bsol;"))


def fenced(text: str, language: str = "") -> str:
    """`text` as a code block; no line of it can end the block."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
