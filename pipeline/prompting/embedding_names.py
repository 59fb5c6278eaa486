"""Embeddings in a text: learned vectors that stand for words, called by the names of their files.

A1111 reads a word that is the name of a file in embeddings/ as that file, ComfyUI `embedding:name`; both are read here
in A1111's syntax. Capitals do not matter, the longest name counts, and a name is a whole word: `bad` is not found in
`badly` or `bad-hands`.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pipeline.prompting.emphasis import Syntax, parse
from pipeline.prompting.named_files import named_files, unknown_name

EMBEDDINGS = Path("embeddings")

_CALLED = r"embedding:(?P<called>[^\s,:()\[\]{}|]+)"


class Piece(NamedTuple):
    """Words of a text, or the name of an embedding in their place."""

    text: str
    is_embedding: bool = False


def pieces(text: str, names: Collection[str]) -> Iterator[Piece]:
    """A text in pieces, embeddings by their `names` in lower case; an unknown one is text."""
    end = 0
    if names:
        longest_first = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        pattern = rf"(?<![\w-])(?:embedding:)?(?P<name>{longest_first})(?![\w-])"
        for match in re.finditer(pattern, text, re.IGNORECASE):
            if match.start() > end:
                yield Piece(text[end : match.start()])
            yield Piece(match["name"].lower(), is_embedding=True)
            end = match.end()
    if text[end:] or not end:
        yield Piece(text[end:])


def embeddings_in(texts: Iterable[str], syntax: Syntax, known: Mapping[str, Path]) -> dict[str, Path]:
    """The files of the embeddings that some texts call, by name; other syntaxes than A1111's call none.

    Raises ValueError for `embedding:name` without a file.
    """
    found: dict[str, Path] = {}
    if syntax != "a1111":
        return found
    for text in dict.fromkeys(texts):
        if not known and "embedding:" not in text:
            continue
        for piece in (
            piece for section in parse(text, syntax) for span in section for piece in pieces(span.text, known)
        ):
            if piece.is_embedding:
                found[piece.text] = known[piece.text]
            elif missing := re.search(rf"(?<!\w){_CALLED}", piece.text):
                name = missing["called"]
                raise ValueError(f"embedding:{name} names no file; {unknown_name(name, EMBEDDINGS, known)}")
    return dict(sorted(found.items()))


def known_embeddings() -> dict[str, Path]:
    """The files in embeddings/ by name. Raises ValueError where two share one."""
    return named_files(EMBEDDINGS)
