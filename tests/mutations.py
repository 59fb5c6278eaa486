"""Hostile inputs: valid ones with some of their bytes or values changed. Random bytes alone never get past a header."""

import copy
import random
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

_PLACE = st.integers(0, 2**16 - 1)  # a place as a share of the length
_KINDS = ("flip", "cut", "repeat", "insert", "overwrite", "truncate", "splice")


def mutated(valid: Sequence[bytes], tokens: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of the valid inputs after up to six edits; `tokens` are what its format makes much of."""
    token = st.one_of(st.sampled_from(tokens), st.binary(max_size=8))
    edit = st.tuples(st.sampled_from(_KINDS), _PLACE, _PLACE, token)
    return st.builds(_edited, st.just(valid), st.integers(0, len(valid) - 1), st.lists(edit, max_size=6))


def random_mutation(chance: random.Random, valid: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """The same without hypothesis, which takes ten times as long to draw and to remember what it has drawn."""
    edits = []
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        token = chance.choice(tokens) if chance.random() < 0.8 else chance.randbytes(chance.randrange(9))
        edits.append((chance.choice(_KINDS), chance.randrange(2**16), chance.randrange(2**16), token))
    return _edited(valid, chance.randrange(len(valid)), edits)


def _edited(valid: Sequence[bytes], number: int, edits: list[tuple[str, int, int, bytes]]) -> bytes:
    content = valid[number]
    for kind, one, other, token in edits:
        a, b = (place * len(content) >> 16 for place in sorted((one, other)))
        match kind:
            case "flip" if content:
                content = content[:a] + bytes([content[a] ^ 1 << other % 8]) + content[a + 1 :]
            case "cut":
                content = content[:a] + content[b:]
            case "repeat":
                # A hundred times at most, and short pieces alone: the size of a file is bounded elsewhere.
                content = content[:b] + content[a:b][:50] * (other % 100) + content[b:]
            case "insert":
                content = content[:a] + token + content[a:]
            case "overwrite":
                content = content[:a] + token + content[a + len(token) :]
            case "truncate":
                content = content[:a]
            case "splice":
                content = content[:a] + valid[other % len(valid)][b:]
    return content


# Values that a key of another type is not ready for.
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 7, 10**9, 2**31, 2**64, 10**400, 0.0, -0.0, 0.5, 1e308, 1e-320),
    *(
        float("inf"),
        float("-inf"),
        float("nan"),
        "",
        " ",
        "\n",
        "\0",
        "\ud800",
        "é" * 300,
        "x" * 10_000,
        "../x",
        "/etc",
    ),
    *("C:\\x", "~", "a/../../b", "hub:../..", "hub:a/b@../c", "x.ckpt", "x.safetensors", "(x:1)", "(x:abc)", "1e3"),
    *("sqlite:////tmp/x", "file:///tmp", "http://a:b@c/d", "postgresql://u:secretsecret@h/d", "${oc.env:HOME}", "arm"),
    *([], [[]], [None], ["a"] * 50, {}, {"": ""}, {"name": "x"}, {1: 2}, {None: None}, {"a\nb": 1}, b"\xff", (1, 2)),
    *({"name": "mix"}, {"source": "grid", "axes": [["a"] * 1000] * 3}, {"from": "cfg", "strength": 1}),
)


_SWAPS = ("value", "value", "remove", "rename", "exchange")


def swapped(content: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with up to four of its values replaced, removed, renamed or exchanged with each other."""
    edit = st.tuples(
        st.sampled_from(_SWAPS),
        st.lists(st.integers(0, 31), min_size=1, max_size=5),
        st.lists(st.integers(0, 31), min_size=1, max_size=5),
        st.one_of(st.integers(0, len(_VALUES) - 1), st.integers(), st.floats(), st.text(max_size=20)),
    )
    return st.lists(edit, min_size=1, max_size=4).map(lambda edits: _swapped(content, edits))


def random_swap(chance: random.Random, content: dict[str, Any]) -> dict[str, Any]:
    """The same without hypothesis."""
    edits = []
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        ways = [[chance.randrange(32) for _ in range(chance.randint(1, 5))] for _ in range(2)]
        value = chance.choice(
            (chance.randrange(len(_VALUES)), chance.gauss(0, 100), chance.randbytes(4).decode("latin-1"))
        )
        edits.append((chance.choice(_SWAPS), *ways, value))
    return _swapped(content, edits)  # type: ignore[arg-type]


def _swapped(content: dict[str, Any], edits: list[tuple[str, list[int], list[int], Any]]) -> dict[str, Any]:
    result = copy.deepcopy(content)
    for kind, one, other, value in edits:
        holder, key = _place(result, one)
        if holder is None:
            continue
        if kind == "value":
            # A copy: a later edit may put the value into itself, which no YAML without aliases says.
            holder[key] = (
                copy.deepcopy(_VALUES[value]) if isinstance(value, int) and 0 <= value < len(_VALUES) else value
            )
        elif kind == "exchange":
            place, name = _place(result, other)
            if place is not None:
                holder[key] = copy.deepcopy(place[name])
        elif isinstance(holder, dict):
            old = holder.pop(key)
            if kind == "rename":
                holder[value if not isinstance(value, float) else str(value)] = old
        else:
            del holder[key]
    return result


def _place(content: Any, way: list[int]) -> tuple[Any, Any]:
    holder, key = None, None
    for step in way:
        if isinstance(content, dict) and content:
            holder, key = content, list(content)[step % len(content)]
        elif isinstance(content, list) and content:
            holder, key = content, step % len(content)
        else:
            break
        content = holder[key]
    return holder, key
