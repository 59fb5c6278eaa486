r"""Emphasis: the parses that A1111 documents, NovelAI's rules, and laws for any text."""

import re
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.prompting.emphasis import LARGEST, Span, parse, write

SYNTAXES = ["plain", "a1111", "novelai"]
# Texts in which brackets, weights and breaks are frequent, beside any text at all.
PIECES = st.sampled_from(
    [*r"()[]{}\:|,. _", "BREAK", "a", "B", ":1.3)", ":0.0001)", ":-2)", ":abc)", ":1.2.3)", " ", "\n", ":(", "^_^", "é"]
)
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=30).map("".join))


def spans(text, syntax="a1111"):
    """The spans of a prompt of one section, as plain tuples."""
    (section,) = parse(text, syntax)
    return [tuple(span) for span in section]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1.0),
                ("house", 1.5730000000000004),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641000000000006),
                (".", 1.1),
            ],
        ),
    ],
)
def test_the_parses_that_a1111_documents(text, expected):
    assert spans(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[x]", [("x", 1 / 1.1)]),
        ("(bad:0.0001), (comic:0.0001)", [("bad", 0.0001), (", ", 1.0), ("comic", 0.0001)]),
        ("( x : 1.3 )", [(" x ", 1.3)]),
        ("(x:.5)(y:-1)", [("x", 0.5), ("y", -1.0)]),
        ("x) y]", [("x) y]", 1.0)]),
        ("x:1.3)", [("x:1.3)", 1.0)]),
        ("(x:abc)", [("x:abc", 1.1)]),
        ("(x:1.2.3)", [("x:1.2.3", 1.1)]),
        (r"a\\b \n", [(r"a\b n", 1.0)]),
        (":|", [(":|", 1.0)]),
        # As in A1111, an emoticon's bracket is a bracket; a backslash makes it a character.
        (":(, rain", [(":", 1.0), (", rain", 1.1)]),
        (r":\(, rain", [(":(, rain", 1.0)]),
        ("", []),
    ],
)
def test_a1111_syntax_as_its_users_know_it(text, expected):
    assert spans(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{x}", [("x", 1.05)]),
        ("{{x}}, y", [("x", 1.05**2), (", y", 1.0)]),
        ("[x], y", [("x", 1 / 1.05), (", y", 1.0)]),
        ("{x", [("x", 1.05)]),
        ("x}, y", [("x", 1.0), (", y", 1 / 1.05)]),
        ("x], y", [("x", 1.0), (", y", 1.05)]),
        ("{a [b] c}", [("a ", 1.05), ("b", 1.0), (" c", 1.05)]),
        ("(x:1.3), :(, :|", [("(x:1.3), :(, :|", 1.0)]),
        (r"\{x", [("\\", 1.0), ("x", 1.05)]),
        ("a BREAK b", [("a BREAK b", 1.0)]),
    ],
)
def test_novelai_syntax_as_its_users_know_it(text, expected):
    assert [(t, pytest.approx(w)) for t, w in expected] == spans(text, "novelai")


def test_break_separates_sections_also_within_brackets():
    assert parse("a BREAK b", "a1111") == ((Span("a", 1.0),), (Span("b", 1.0),))
    assert parse("(a BREAK b:1.2)", "a1111") == ((Span("a", 1.2),), (Span("b", 1.2),))
    assert parse("BREAK", "a1111") == ((), ())
    assert parse("OUTBREAK, breaks", "a1111") == ((Span("OUTBREAK, breaks", 1.0),),)


@pytest.mark.parametrize("syntax", SYNTAXES)
@given(text=TEXTS)
@settings(max_examples=400)
def test_any_text_has_a_reading_and_writing_it_down_gives_the_same_one(syntax, text):
    prompt = parse(text, syntax)
    assert parse(write(prompt, syntax), syntax) == prompt
    for section in prompt:
        assert all(span.text and abs(span.weight) <= LARGEST for span in section)
        assert all(a.weight != b.weight for a, b in pairwise(section))


@given(text=TEXTS)
def test_a1111_can_write_what_novelai_says(text):
    prompt = parse(text, "novelai")
    assert parse(write(prompt, "a1111"), "a1111") == prompt


def test_a_novelai_preset_reads_in_a1111_as_people_translate_it():
    assert write(parse("nsfw, {bad}, {{error}}", "novelai"), "a1111") == "nsfw, (bad:1.05), (error:1.1025)"
    assert write(parse("nsfw, (bad), text", "a1111"), "novelai") == "nsfw, {{bad[[, text"
    # A break has no counterpart, and must not join two words; brackets that are text stay text.
    assert write(parse("a cat BREAK (a dog:1.1)", "a1111"), "novelai") == "a cat{{ a dog"
    assert write(parse("a cat BREAK a dog BREAK", "a1111"), "plain") == "a cat a dog"
    assert write(parse(r"Character \(Series\), ;\)", "a1111"), "novelai") == "Character (Series), ;)"
    assert write(parse("{{{{a}}}}, a (b)", "novelai"), "a1111") == r"(a:1.2155062500000002), a \(b\)"


@given(text=st.text(alphabet="ab :(),.[]123", max_size=40))
def test_weights_of_one_change_nothing(text):
    """Brackets of weight 1 around a plain text read as the text."""
    plain = re.sub(r"[()\[\]:]", "", text)
    assert parse(f"({plain}:1)", "a1111") == parse(f"({plain}:1.0)", "a1111") == parse(plain, "plain")


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("piece", ["(x", "[x", "{x", "x)", "(x:9)", "(((", "a, ", "😀", "((x:99999)"])
def test_the_work_grows_as_the_text_does(syntax, piece):
    text = (piece * 10_000)[:10_000]
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        (section,) = parse(text, syntax)
    finally:
        sys.setprofile(before)
    assert calls <= 15 * len(text), "about 12 calls a character at worst, whatever the length"
    assert all(abs(span.weight) <= LARGEST for span in section)


FIELD_NOTE = "(bad:0.0001), (comic:0.00001), (cropped:0.0005), (worst:0.5)"


def test_a_weight_far_below_one_becomes_the_nearest_power_of_1_05():
    """ln 0.0001 / ln 1.05 is -188.8, ln 0.00001 / ln 1.05 is -236.0, and for 0.0005 it is -155.8."""
    written = write(parse(FIELD_NOTE, "a1111"), "novelai")
    weights = {text.strip(", "): weight for text, weight in spans(written, "novelai")}
    assert weights["bad"] == 1.05**-189 == pytest.approx(0.0001, rel=0.025)
    assert weights["comic"] == 1.05**-236 == pytest.approx(0.00001, rel=0.025)
    assert weights["cropped"] == 1.05**-156
    assert weights["worst"] == 1.05**-14


@pytest.mark.parametrize("text", ["(x:0)", "(x:-1)", f"({'[' * 3000}x"])
def test_no_weight_of_novelai_is_zero_or_less(text):
    (span,) = spans(write(parse(text, "a1111"), "novelai"), "novelai")
    assert 0 < span[1] < 1e-30
