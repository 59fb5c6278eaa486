r"""Emphasis: how people weigh the words of a prompt.

A1111 (AUTOMATIC1111's web UI):  `(x)` is weight 1.1, `(x:1.3)` weight 1.3, `[x]` weight 1/1.1; they multiply when
nested; brackets left open reach to the end, surplus closing ones are text; `\(` is the character itself; the word
`BREAK` ends a section, and the next section starts a new chunk.
NovelAI:  `{` and `]` multiply what follows by 1.05, `}` and `[` divide it by 1.05; they need not be closed, or opened.
plain:  the text is what it says.

Parsing takes any text and never raises; strict_check.py is the strict look at prompts that someone configured.
"""

import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import groupby
from typing import Literal, NamedTuple

import numpy as np

Syntax = Literal["plain", "a1111", "novelai"]

# Weights stay within +-LARGEST, so that thousands of brackets cannot make an embedding infinite in half precision.
LARGEST = 1000.0

_ROUND, _SQUARE = 1.1, 1 / 1.1
CURLY = 1.05
# Steps of 1.05. 1.05^140 is 926, and 1.05^-1790 the smallest weight that single precision holds in full.
_HIGHEST, _LOWEST = 140, -1790
_BREAK = "BREAK"

# A weight may have spaces around it (A1111 1.6 and later); `:1.2.3)` is none, so its parts are text.
_A1111_TOKENS = re.compile(r"\\[()\[\]\\]|\\|[(\[\])]|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)|[^\\()\[\]:]+|:")
_A1111_BREAK = re.compile(rf"\s*\b{_BREAK}\b\s*")
_A1111_SPECIAL = re.compile(r"[\\()\[\]]")
_NOVELAI_TOKENS = re.compile(r"[{}\[\]]|[^{}\[\]]+")


class Span(NamedTuple):
    """A run of text of one weight; 1 is the network's own reading."""

    text: str
    weight: float


# A prompt is its sections, which BREAK separates; a section is its spans, no two neighbours of one weight.
Prompt = tuple[tuple[Span, ...], ...]


def parse(text: str, syntax: Syntax) -> Prompt:
    """Read a prompt; any text has a reading. There is at least one section; sections can be empty."""
    if syntax == "a1111":
        return _parse_a1111(text)
    if syntax == "novelai":
        return (_merged(_novelai_spans(text)),)
    return (_merged([Span(text, 1.0)]),)


def write(prompt: Prompt, syntax: Syntax) -> str:
    """A text that `parse` reads as this prompt.

    A1111's syntax can write every prompt. NovelAI's takes the nearest power of 1.05 and has no escapes, so its
    brackets are left out of the text; plain leaves out the weights; both write a space for a break.
    """
    if syntax == "a1111":
        return _write_a1111(prompt)
    spans: list[Span] = []
    for section in prompt:
        if spans and section:
            # Without it, the last word of one section and the first of the next would be one.
            spans.append(Span(" ", section[0].weight))
        spans += section
    if syntax == "novelai":
        return _write_novelai(spans)
    return "".join(span.text for span in spans)


def _parse_a1111(text: str) -> Prompt:
    tokens = list(_A1111_TOKENS.finditer(text))
    texts: list[str | None] = []  # None is BREAK
    weights = np.ones(len(tokens) + text.count(_BREAK) * 2)
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(start: int, factor: float) -> None:
        part = weights[start : len(texts)]
        np.clip(part * factor, -LARGEST, LARGEST, out=part)

    for match in tokens:
        token = match[0]
        if token.startswith("\\"):
            # An escaped character; a backslash before anything else is dropped.
            texts.append(token[1:])
        elif token in opened:
            opened[token].append(len(texts))
        elif match["weight"] and opened["("]:
            multiply(opened["("].pop(), float(match["weight"]))
        elif token == ")" and opened["("]:
            multiply(opened["("].pop(), _ROUND)
        elif token == "]" and opened["["]:
            multiply(opened["["].pop(), _SQUARE)
        else:
            first, *others = _A1111_BREAK.split(token)
            texts.append(first)
            for other in others:
                texts += [None, other]
    for bracket, factor in (("(", _ROUND), ("[", _SQUARE)):
        for start in opened[bracket]:
            multiply(start, factor)

    sections: list[list[Span]] = [[]]
    for piece, weight in zip(texts, weights.tolist(), strict=False):
        if piece is None:
            sections.append([])
        else:
            sections[-1].append(Span(piece, weight))
    return tuple(_merged(section) for section in sections)


def _write_a1111(prompt: Prompt) -> str:
    sections = [
        "".join(
            _escaped(span.text) if span.weight == 1 else f"({_escaped(span.text)}:{_decimal(span.weight)})"
            for span in section
        )
        for section in prompt
    ]
    text = sections[0]
    for section in sections[1:]:
        # BREAK swallows the spaces around it; a lone backslash, which is dropped, keeps those of the text.
        before = "\\" if text[-1:].isspace() else " "
        after = "\\" if section[:1].isspace() else " "
        text = f"{text}{before}{_BREAK}{after}{section}"
    return text


def _novelai_spans(text: str) -> Iterable[Span]:
    level = 0  # whole steps, so that a bracket opened and closed is exactly 1
    for match in _NOVELAI_TOKENS.finditer(text):
        if match[0] in ("{", "]"):
            level += 1
        elif match[0] in ("}", "["):
            level -= 1
        else:
            yield Span(match[0], CURLY ** max(_LOWEST, min(_HIGHEST, level)))


def _write_novelai(spans: Sequence[Span]) -> str:
    text, level = "", 0
    for span in spans:
        # A weight of 0 or less has no nearest power; it becomes the lowest.
        weight = min(max(span.weight, CURLY**_LOWEST), CURLY**_HIGHEST)
        target = round(math.log(weight) / math.log(CURLY))
        text += ("{" if target > level else "[") * abs(target - level) + re.sub(r"[{}\[\]]", "", span.text)
        level = target
    return text


def _merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    written = (span for span in spans if span.text)
    groups = groupby(written, key=lambda span: span.weight)
    return tuple(Span("".join(span.text for span in group), weight) for weight, group in groups)


def _decimal(weight: float) -> str:
    # Exactly this float again when read, and without an exponent, which the syntax does not know.
    return format(Decimal(repr(weight)), "f")


def _escaped(text: str) -> str:
    # The dropped backslash keeps the letters of BREAK a word of the text.
    return _A1111_SPECIAL.sub(lambda match: "\\" + match[0], text).replace(_BREAK, "BREA\\K")
