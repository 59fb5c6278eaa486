r"""The strict look at prompts that someone configured: whatever would not get what it asks for is refused.

`emphasis.parse` reads any text, so a malformed weight, or a feature of another tool, silently becomes words of the
prompt. Here such a text is an error that says what to write instead. `plain` has no syntax and is never refused.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from pipeline.prompting.emphasis import CURLY, LARGEST, Syntax

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_WEIGHT = re.compile(rf"\s*{_NUMBER}\s*")
# The step of prompt editing may have an exponent.
_STEP = re.compile(rf"\s*{_NUMBER}(?:[eE][+-]?\d+)?\s*")
# A weight that stands after its brackets, or in brackets that are never closed.
_WEIGHT_AFTER = re.compile(rf":\s*(?P<weight>{_NUMBER})\s*(?=,|$)")
# InvokeAI's: (red)1.3, (red)++.
_COMPEL_AFTER = re.compile(rf"(?P<weight>{_NUMBER})(?=[\s,)\]]|$)|(?P<signs>\++|-+)(?=[\s,)\]]|$)")
_COMPEL_SIGNS = re.compile(r"(?<=[^\W\d_])(?P<signs>\+{2,}|-{2,})(?=[\s,)\]]|$)")
_COMPEL_MORE, _COMPEL_LESS = 1.1, 0.9
# Of other tools: red:1.3, red::1.3. Numbers of three digits are years and speeds of films.
_WITHOUT_BRACKETS = re.compile(r"(?<=[^\W\d_])::?(?P<weight>[+-]?\d*\.\d+|[+-]\d+|\d{1,2})(?=\s*,|\s+[^\s)\]]|\s*$)")
_WORDS_BEFORE = re.compile(r"[^,:()\[\]{}|\n]*\Z")
_LONGEST_WORDS = 200
_V4_NUMERIC = re.compile(rf"(?<![\w.:])(?P<weight>{_NUMBER})::(?=[^:]*[^\W\d_])(?P<text>[^:]+)(?:::|$)")
_WORD = re.compile(r"[^\W\d_]{3}")
_FACE = re.compile(r"\d")
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_ESCAPABLE = "()[]{}|\\"
# The full-width forms of ASCII, which keyboards for Chinese and Japanese write.
_FULL_WIDTH = {0xFEE0 + code: code for code in range(0x21, 0x7F)}
_SHOWN = 80

_LORA = re.compile(r"<lora:[^<>]*>")
# InvokeAI and diffusers call an embedding by its token: <cat-toy>.
_BRACKETED = r"<(?=[\w.-]{3,}>)[^\W\d_][\w.-]*>"
# Features of other tools that a pattern finds, and what to write instead.
_FEATURES = {
    "an extra network": (
        re.compile(r"<\w+:[^<>]*>|<(?:lora|lyco|lycoris|hypernet|embedding|ti):", re.IGNORECASE),
        "leave it out",
    ),
    "a wildcard": (
        re.compile(
            r"__(?!_)[~@]?(?=[\w*])[\w*/.-]+?(?:\([^()\n]*\))?__"
            r"|(?<!\w)__[~@]?[\w*/.-]{1,30}(?: [\w*/.-]{1,30}){1,4}__(?!\w)"
        ),
        "write one of its values, or choose prompts=grid for all of them",
    ),
    "a variable": (re.compile(r"\$\{\w+[^{}]*\}?"), "write its value"),
    "the placeholder of a style": (re.compile(r"\{prompt\}"), "write the prompt itself in its place"),
}
_A1111_FEATURES = {
    "an embedding in another tool's syntax": (
        re.compile(_BRACKETED),
        "write the name of its file in embeddings/, without < and >",
    ),
    "composition": (re.compile(r"\bAND(?:_PERP|_SALT|_TOPK)?\b"), "leave it out"),
    "a regional prompt": (re.compile(r"\bADD(?:BASE|COMM|COL|ROW)\b"), "leave it out"),
    "a blend": (re.compile(r"\)\.(?:blend|and)\([^()]*\)?"), "write the words to draw"),
    "a swap": (re.compile(r"\.swap\([^()]*\)?"), "write the words to draw"),
    "a comment": (
        re.compile(r"(?<!\\)#[^\n]*"),
        r"leave it out, or write \# where the sign is part of the text",
    ),
}
_NOVELAI_FEATURES = {
    "an embedding": (
        re.compile(rf"(?<!\w)embedding:[^\s,:()\[\]{{}}|]+|{_BRACKETED}"),
        "write the words that it stands for, or choose text=a1111",
    ),
}
_NOVELAI_NUMERIC = re.compile(r"(?<![\d.])(?P<weight>-?[\d.]+)::(?P<text>[^:]*)(?:::)?")
# Brackets and the bar; a full-width bracket of another kind is a face or a title.
_NOVELAI_FULL_WIDTH = re.compile("[\uff5b\uff5d\uff3b\uff3d\uff5c]")
_NOVELAI_CHOICE = re.compile(r"\|\|[^|]+(?:\|[^|]+)+\|\|")
_MOST_BRACES = 20
# Smaller weights are not written out.
_LEAST = 1e-30


def check_prompt(text: str, syntax: Syntax) -> None:
    """Raise ValueError where a configured prompt asks for what it would not get.

    The message quotes the place, says what to write instead, and ends with the number of its first character.
    """
    if syntax == "plain":
        return
    if syntax == "a1111" and (found := _LORA.search(text)):
        raise _refused(
            found[0],
            found.start(),
            "is a LoRA, which A1111 reads in prompts alone; write it into every prompt, or name it in model.loras",
        )
    own = _A1111_FEATURES if syntax == "a1111" else _NOVELAI_FEATURES
    for feature, (pattern, instead) in (_FEATURES | own).items():
        if found := pattern.search(text):
            raise _refused(found[0], found.start(), f"is {feature}, which is not offered here; {instead}")
    if syntax == "novelai":
        _check_novelai(text)
        return
    for pair in _pairs(text):
        _check_pair(text, pair)
    _check_other_tools_weights(text)
    narrow = text.translate(_FULL_WIDTH)
    if narrow != text:
        for pair in _pairs(narrow):
            _check_full_width(text, narrow, pair)


@dataclass
class _Pair:
    """A bracket and the one that closes it, or the end of the text.

    `colons` are those after its last inner round or square bracket, where a weight can stand; `bars` those directly
    inside.
    """

    bracket: str
    start: int
    bars: list[int] = field(default_factory=list)
    colons: list[int] = field(default_factory=list)
    end: int = 0
    closed: bool = True


def _pairs(text: str) -> Iterator[_Pair]:
    # In one pass: an open bracket leaves the stack once.
    opened: list[_Pair] = []
    colons: list[int] = []
    count = dict.fromkeys(_CLOSING, 0)
    for at, character in _unescaped(text):
        if character == ":":
            colons.append(at)
        elif character == "|":
            if opened:
                opened[-1].bars.append(at)
        elif character in _CLOSING:
            opened.append(_Pair(character, at))
            count[character] += 1
        else:
            bracket = next(left for left, right in _CLOSING.items() if right == character)
            # Braces are text in the emphasis of A1111, so they never cut other brackets.
            if count[bracket] and (bracket != "{" or opened[-1].bracket == "{"):
                while opened[-1].bracket != bracket:
                    count[opened.pop().bracket] -= 1
                count[bracket] -= 1
                pair = opened.pop()
                pair.end, pair.colons = at, [colon for colon in colons if colon > pair.start]
                yield pair
        if character in "()[]":
            colons = []
    if opened:
        last = opened[-1]
        last.end, last.colons, last.closed = len(text), [colon for colon in colons if colon > last.start], False
        yield last


def _unescaped(text: str) -> Iterator[tuple[int, str]]:
    # Brackets, bars and colons; a backslash before one makes it text. A colon has no escape in A1111's syntax, and
    # that of embedding:name is part of a name.
    skipped = -1
    for match in re.finditer(r"[()\[\]{}|:\\]", text):
        at = match.start()
        if at == skipped or (match[0] == ":" and text.endswith("embedding", 0, at)):
            continue
        if match[0] != "\\":
            yield at, match[0]
        elif text[at + 1 : at + 2] in _ESCAPABLE:
            skipped = at + 1


def _check_pair(text: str, pair: _Pair) -> None:
    if pair.closed and pair.bracket != "{" and _escaped_twice(text, pair):
        left, right = text[pair.start], text[pair.end]
        meant = rf"\{left}{text[pair.start + 1 : pair.end - 2]}\{right}"
        raise _refused(
            text[pair.start - 2 : pair.end + 1],
            pair.start - 2,
            f"has its brackets escaped twice, which makes them emphasis; write {_short(meant)}",
        )
    if pair.bracket == "(":
        if not pair.closed:
            _check_unclosed(text, pair)
        elif pair.colons:
            _check_weight(text, pair)
        else:
            _check_without_weight(text, pair)
    elif pair.closed and pair.bars:
        what = "alternation" if pair.bracket == "[" else "a dynamic prompt"
        raise _refused(
            _whole(text, pair),
            pair.start,
            f"is {what}, which is not offered here; write one of its values, or choose prompts=grid for all of them; "
            r"write \| where the bar is part of the text",
        )
    elif pair.closed and pair.bracket == "{":
        _check_braces(text, pair)
    elif pair.closed and _ends_in_a_step(text, pair):
        raise _refused(
            _whole(text, pair),
            pair.start,
            r"is prompt editing, which is not offered here; write the words to draw, or \[ and \] where the brackets "
            "are part of the text",
        )


def _check_weight(text: str, pair: _Pair) -> None:
    whole, content = _whole(text, pair), text[pair.start + 1 : pair.end]
    colon = pair.colons[-1]
    words, weight = text[pair.start + 1 : colon], text[colon + 1 : pair.end]
    if _STEP.fullmatch(weight) and not _WEIGHT.fullmatch(weight) and _LEAST <= abs(float(weight)) <= LARGEST:
        meant = format(Decimal(weight.strip()), "f")
        raise _refused(
            whole,
            pair.start,
            f"has the weight {_short(weight.strip())!r}, and exponents are not read; write {_weighted(words, meant)}",
        )
    if not _WEIGHT.fullmatch(weight):
        raise _refused(
            whole,
            pair.start,
            f"has the weight {_short(weight.strip())!r}, which is not a number; write (x:1.3), or \\( and \\) where "
            f"the brackets are part of the text, or {_weighted(content, '1.1')} where the colon is part of it",
        )
    if abs(float(weight)) > LARGEST:
        raise _refused(whole, pair.start, f"has a weight beyond {LARGEST:g}; write a smaller one")
    if _FACE.fullmatch(weight) and _begins_a_word(words):
        bare = words.rstrip(" ,")
        meant = f"{_weighted(bare, weight)} for that weight, or " if bare else ""
        raise _refused(
            whole,
            pair.start,
            f"has the weight {weight}; write {meant}{_weighted(content, '1.1')} where :{weight} is an emoticon",
        )
    if len(pair.colons) > 1 and _WEIGHT.fullmatch(text, pair.colons[-2] + 1, colon):
        inner, first = text[pair.start + 1 : pair.colons[-2]], text[pair.colons[-2] : colon]
        if not inner.endswith("\\") and not _is_time_or_face(inner):
            raise _refused(
                whole,
                pair.start,
                f"has two weights; write {_weighted(inner, weight)}, or "
                f"{_weighted(inner + chr(92) + first, weight)} where {first} is part of the text",
            )


def _check_without_weight(text: str, pair: _Pair) -> None:
    content = text[pair.start + 1 : pair.end]
    if found := _WEIGHT_AFTER.match(text, pair.end + 1):
        raise _refused(
            _whole(text, pair) + found[0],
            pair.start,
            f"has its weight outside the brackets; write {_weighted(content, found['weight'])}",
        )
    if found := _COMPEL_AFTER.match(text, pair.end + 1):
        raise _refused(
            _whole(text, pair) + found[0],
            pair.start,
            f"has its weight outside the brackets; write {_weighted(content, found['weight'] or _of_signs(found))}",
        )
    # artist:(name) and saber_(fate): the brackets belong to the name.
    if text[pair.start - 1 : pair.start] in (":", "_") and text[pair.start - 2 : pair.start - 1].isalnum():
        begin = pair.start - 1
        while begin and (text[begin - 1].isalnum() or text[begin - 1] == "_") and pair.start - begin < _SHOWN:
            begin -= 1
        name = text[begin : pair.start]
        escaped = _short(name + r"\(" + content + r"\)")
        raise _refused(
            name + _whole(text, pair),
            begin,
            f"loses its brackets, which are emphasis; write {escaped}, or {name}{_weighted(content, '1.1')} where "
            "emphasis is meant",
        )


def _check_unclosed(text: str, pair: _Pair) -> None:
    for colon in pair.colons[-1:]:
        found, words = _WEIGHT_AFTER.match(text, colon), text[pair.start + 1 : colon]
        if found and not _is_time_or_face(words):
            raise _refused(
                text[pair.start : found.end()],
                pair.start,
                f"has a weight in brackets that are not closed; write {_weighted(words, found['weight'])}",
            )


def _check_braces(text: str, pair: _Pair) -> None:
    # One letter or a face is left alone, and so is what was a dynamic prompt without its backslash.
    start, end = pair.start, pair.end
    words, weight = text[start + 1 : end], ""
    if not _WORD.search(words) or "\\|" in words:
        return
    while start and text[start - 1] == "{" and text[end + 1 : end + 2] == "}":
        start, end = start - 1, end + 1
    if pair.colons and (own := _WEIGHT.fullmatch(text, pair.colons[-1] + 1, pair.end)):
        words, weight = text[pair.start + 1 : pair.colons[-1]], own[0]
    meant = _weighted(words, weight or f"{min(LARGEST, CURLY ** min(_SHOWN, pair.start - start + 1)):.5g}")
    raise _refused(
        text[start : end + 1],
        start,
        f"has braces, which are text in A1111's syntax; write {meant} for emphasis, or \\{{ and \\}} where the braces "
        "are part of the text",
    )


def _check_other_tools_weights(text: str) -> None:
    if found := _V4_NUMERIC.search(text):
        raise _refused(
            found[0],
            found.start(),
            "is NovelAI's numeric emphasis, which is text in A1111's syntax; write "
            f"{_weighted(found['text'].strip(), found['weight'])}",
        )
    for pattern in (_WITHOUT_BRACKETS, _COMPEL_SIGNS):
        if found := pattern.search(text):
            before = _WORDS_BEFORE.search(text, max(0, found.start() - _LONGEST_WORDS), found.start())
            words = before[0].lstrip() if before else ""
            if pattern is _COMPEL_SIGNS:
                words = words.rpartition(" ")[2]
            sign = found[0]
            escaped = f"\\{sign}" if sign[0] == ":" else f"{sign[0]}\\{sign[1:]}"
            weight = _of_signs(found) if pattern is _COMPEL_SIGNS else found["weight"]
            raise _refused(
                words + sign,
                found.start() - len(words),
                f"has a weight without brackets; write {_weighted(words, weight)}, or {_short(words + escaped)} where "
                f"{sign} is part of the text",
            )


def _of_signs(found: re.Match[str]) -> str:
    # What InvokeAI's signs after a word stand for.
    signs = found["signs"]
    return f"{min(LARGEST, (_COMPEL_MORE if signs[0] == '+' else _COMPEL_LESS) ** min(len(signs), _SHOWN)):.4g}"


def _check_full_width(text: str, narrow: str, pair: _Pair) -> None:
    # Full-width brackets alone are faces and titles; with a weight, a step or a bar they are meant as syntax.
    marks = (pair.start, pair.end, *pair.colons[-1:], *pair.bars)
    if not pair.closed or all(text[at] == narrow[at] for at in marks):
        return
    if pair.bracket != "(":
        _check_pair(narrow, pair)
    elif any(_WEIGHT.fullmatch(narrow, colon + 1, pair.end) for colon in pair.colons[-1:]):
        raise _refused(
            _whole(text, pair),
            pair.start,
            f"has full-width characters, which are read as text; write {_short(_whole(narrow, pair))}",
        )


def _check_novelai(text: str) -> None:
    if found := _NOVELAI_NUMERIC.search(text):
        raise _refused(
            found[0],
            found.start(),
            f"is the numeric emphasis of V4, which is not offered here; {_in_braces(found['weight'], found['text'])}",
        )
    if found := _NOVELAI_CHOICE.search(text):
        raise _refused(
            found[0],
            found.start(),
            "chooses at random in NovelAI (the prompt randomizer), which is not offered here; write one of its values, "
            "or choose prompts=grid for all of them",
        )
    if "|" in text:
        raise _refused(
            "|",
            text.index("|"),
            "splits the prompt in NovelAI (prompt mixing), which is not offered here; leave it out, or choose "
            "text=a1111, where it is text",
        )
    if found := _NOVELAI_FULL_WIDTH.search(text):
        raise _refused(
            found[0],
            found.start(),
            f"is a full-width character, which is read as text; write {found[0].translate(_FULL_WIDTH)}",
        )


def _in_braces(weight: str, text: str) -> str:
    # What braces write instead of `weight::text::`.
    try:
        level = round(math.log(float(weight)) / math.log(CURLY))
    except (ValueError, OverflowError):
        level = 0
    if not 0 < abs(level) <= _MOST_BRACES:
        return "write {x} for 1.05 times the weight, or [x] for 1/1.05 of it"
    left, right = "{}" if level > 0 else "[]"
    return f"write {_short(left * abs(level) + text.strip() + right * abs(level))}"


def _escaped_twice(text: str, pair: _Pair) -> bool:
    # YAML and JSON double a backslash between double quotes, and only there.
    return text.endswith("\\\\", 0, pair.start) and text.endswith("\\\\", 0, pair.end)


def _ends_in_a_step(text: str, pair: _Pair) -> bool:
    return any(
        text[colon - 1] != "\\" and _STEP.fullmatch(text, colon + 1, pair.end) is not None for colon in pair.colons[-1:]
    )


def _begins_a_word(before: str) -> bool:
    return not before or before[-1].isspace() or before[-1] == ","


def _is_time_or_face(before: str) -> bool:
    # 16:9, 12:30 and :3 are text.
    return _begins_a_word(before.rstrip("0123456789"))


def _weighted(words: str, weight: str) -> str:
    return _short(f"({words}:{weight.strip()})")


def _whole(text: str, pair: _Pair) -> str:
    return text[pair.start : pair.end + 1]


def _refused(found: str, start: int, reason: str) -> ValueError:
    return ValueError(f"{_short(found)!r} {reason} (character {start + 1})")


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]} ..."
