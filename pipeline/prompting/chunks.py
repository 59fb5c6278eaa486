"""Cutting a long prompt into chunks of the text encoder's context, as A1111 does.

CLIP reads 75 tokens between its begin and end marks. A1111 reads a longer prompt 75 tokens at a time and joins the
embeddings. Where a chunk is full and one of its last 20 tokens is a comma, the words after the last comma move to
the next chunk, so that a tag is not cut in two (its setting "comma padding backtrack", 20 by default).
"""

from collections.abc import Sequence
from dataclasses import dataclass

COMMA_BACKTRACK = 20


@dataclass(frozen=True)
class WeightedToken:
    """A token of the vocabulary and its weight in the prompt.

    A token below 0 is a vector of an embedding, which is not cut in two: from its first on, `together` of them are.
    """

    token: int
    weight: float
    together: int = 1


Chunk = tuple[WeightedToken, ...]


def cut(sections: Sequence[Sequence[WeightedToken]], capacity: int, comma: int | None) -> list[Chunk]:
    """The chunks of a prompt, at least one, each of at most `capacity` tokens.

    Each section starts a new chunk; an empty last section has none. An embedding has at most `capacity` vectors.
    `comma` is the comma's token, None where the vocabulary has none.
    """
    chunks: list[Chunk] = []
    for section in sections:
        current: list[WeightedToken] = []
        last_comma: int | None = None
        for item in section:
            if len(current) == capacity:
                kept = capacity
                near = last_comma is not None and capacity - last_comma <= COMMA_BACKTRACK
                if near and last_comma is not None and item.token != comma:
                    kept = last_comma + 1
                chunks.append(tuple(current[:kept]))
                current, last_comma = current[kept:], None
            if len(current) + item.together > capacity:
                chunks.append(tuple(current))
                current, last_comma = [], None
            if item.token == comma:
                last_comma = len(current)
            current.append(item)
        if current or section is not sections[-1]:
            chunks.append(tuple(current))
    return chunks or [()]
