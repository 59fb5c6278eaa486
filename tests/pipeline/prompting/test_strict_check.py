"""The strict check: what a configured prompt asks for and would not get is refused, with what to write instead."""

import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from repository_copy import ROOT
from test_emphasis import SYNTAXES, TEXTS

from pipeline.prompting.emphasis import parse, write
from pipeline.prompting.strict_check import check_prompt


def refusal(text, syntax):
    """What the check says of a text; empty where it passes."""
    try:
        check_prompt(text, syntax)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a, (x:abc)",
            r"'(x:abc)' has the weight 'abc', which is not a number; write (x:1.3), or \( and \) where the brackets "
            "are part of the text, or (x:abc:1.1) where the colon is part of it (character 4)",
        ),
        ("y, (a (b) c: abc)", "has the weight 'abc'"),
        ("(x:1.2.3)", "has the weight '1.2.3'"),
        ("(x:1,3)", "has the weight '1,3'"),
        ("(x:)", "has the weight ''"),
        ("(x:1e3)", "has the weight '1e3', and exponents are not read; write (x:1000)"),
        ("(x:1e-4), y", "'(x:1e-4)' has the weight '1e-4', and exponents are not read; write (x:0.0001) (character 1)"),
        ("(x:1e9)", "has the weight '1e9', which is not a number"),
        ("(x:1e-400)", "which is not a number"),
        ("(smile, :d)", "or (smile, :d:1.1) where the colon is part of it"),
        ("(x:5000)", "has a weight beyond 1000; write a smaller one"),
        ("(a:1.2:1.1)", r"has two weights; write (a:1.1), or (a\:1.2:1.1) where :1.2 is part of the text"),
        ("(red eyes:2:.5)", r"has two weights; write (red eyes:.5), or (red eyes\:2:.5)"),
        (
            "(smile, :3)",
            "has the weight 3; write (smile:3) for that weight, or (smile, :3:1.1) where :3 is an emoticon",
        ),
        ("(:3)", "has the weight 3; write (:3:1.1) where :3 is an emoticon"),
        ("(cat :9)", "has the weight 9; write (cat:9) for that weight, or (cat :9:1.1)"),
        ("(red):1.3, eyes", "'(red):1.3' has its weight outside the brackets; write (red:1.3)"),
        ("(red:1.3, eyes", "'(red:1.3' has a weight in brackets that are not closed; write (red:1.3)"),
    ],
)
def test_a_weight_that_would_not_act_is_refused(text, message):
    assert message in refusal(text, "a1111")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "portrait, Jason Momoa:0.1, blah",
            r"'Jason Momoa:0.1' has a weight without brackets; write (Jason Momoa:0.1), or Jason Momoa\:0.1 where :0.1 "
            "is part of the text (character 11)",
        ),
        ("girl on a swing:1.2 green grass:1.0", "'girl on a swing:1.2' has a weight without brackets"),
        ("a dog:10 wearing a hat", "write (a dog:10)"),
        ("(red hair:1.2, blue eyes:0.8)", "'red hair:1.2' has a weight without brackets; write (red hair:1.2)"),
        ("cat::1.5 dog::-1", "write (cat:1.5)"),
        ("(cyborg)1.1, y", "'(cyborg)1.1' has its weight outside the brackets; write (cyborg:1.1)"),
        ("(a cat)++", "write (a cat:1.21)"),
        (
            "a ball++ in the forest",
            r"'ball++' has a weight without brackets; write (ball:1.21), or ball+\+ where ++ is",
        ),
        ("rain---", "write (rain:0.729)"),
        (
            "1.2::red hair::, x",
            "'1.2::red hair::' is NovelAI's numeric emphasis, which is text in A1111's syntax; write (red hair:1.2)",
        ),
        (
            "{{masterpiece}}, x",
            r"'{{masterpiece}}' has braces, which are text in A1111's syntax; write (masterpiece:1.1025) for "
            r"emphasis, or \{ and \} where the braces are part of the text (character 1)",
        ),
        ("{red hair:1.2}", "write (red hair:1.2) for emphasis"),
    ],
)
def test_a_weight_in_the_syntax_of_another_tool_is_refused_with_its_own_value(text, message):
    assert message in refusal(text, "a1111")


@pytest.mark.parametrize("text", [r"artoria \\(fate\\)", r"\\[x\\]"])
def test_brackets_that_are_escaped_twice_are_refused(text):
    meant = text.replace("\\\\", "\\")
    message = refusal(text, "a1111")
    assert f"has its brackets escaped twice, which makes them emphasis; write {meant.split()[-1]} " in message
    assert refusal(meant, "a1111") == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("artist:(name)", r"write artist:\(name\), or artist:(name:1.1) where emphasis is meant (character 1)"),
        ("1girl, saber_(fate)", r"'saber_(fate)' loses its brackets, which are emphasis; write saber_\(fate\)"),
    ],
)
def test_brackets_of_a_name_are_not_lost_silently(text, message):
    assert message in refusal(text, "a1111")


@pytest.mark.parametrize(
    ("text", "found", "feature"),
    [
        ("a, [cat:dog:0.5]", "[cat:dog:0.5]", "prompt editing"),
        ("[a [b] c:0.5]", "[a [b] c:0.5]", "prompt editing"),
        ("[(a:1.2):b:10]", "[(a:1.2):b:10]", "prompt editing"),
        ("[a::1e-1]", "[a::1e-1]", "prompt editing"),
        ("[cat|dog]", "[cat|dog]", "alternation"),
        ("[a (b) | [c] d]", "[a (b) | [c] d]", "alternation"),
        ("{red|blue} hair", "{red|blue}", "a dynamic prompt"),
        ("{2$$red|{light|dark} blue}", "{light|dark}", "a dynamic prompt"),
        ("a cat AND a dog", "AND", "composition"),
        ("<hypernet:style:0.8>", "<hypernet:style:0.8>", "an extra network"),
        ("<embedding:x>", "<embedding:x>", "an extra network"),
        ("<lycoris:x", "<lycoris:", "an extra network"),
        ("__color__ hair", "__color__", "a wildcard"),
        ("__clothes/summer*__", "__clothes/summer*__", "a wildcard"),
        ("__~color__ hair", "__~color__", "a wildcard"),
        ("__@color__", "__@color__", "a wildcard"),
        ("a __hair color__", "__hair color__", "a wildcard"),
        ("__dress(season=winter)__", "__dress(season=winter)__", "a wildcard"),
        ("${animal} on a table", "${animal}", "a variable"),
        ("${season=winter} x", "${season=winter}", "a variable"),
        ("painting of {prompt}, bold", "{prompt}", "the placeholder of a style"),
        ("<cat-toy> on a table", "<cat-toy>", "an embedding in another tool's syntax"),
        ("a man AND_PERP a hat", "AND_PERP", "composition"),
        ("a room ADDCOMM a cat", "ADDCOMM", "a regional prompt"),
        ('("a cat", "a dog").blend(0.7, 0.3)', ").blend(0.7, 0.3)", "a blend"),
        ("a cat.swap(dog)", ".swap(dog)", "a swap"),
        ("a cat # a note", "# a note", "a comment"),
    ],
)
def test_a_feature_of_another_tool_is_refused_in_a1111s_syntax(text, found, feature):
    assert refusal(text, "a1111").startswith(f"{found!r} is {feature}, which is not offered here; ")


@pytest.mark.parametrize("text", ["embedding:EasyNegative, bad", "(embedding:bad-hands-5:1.2)", "(embedding:x), y"])
def test_a1111s_syntax_calls_embeddings_by_name(text):
    assert refusal(text, "a1111") == ""


def test_a_lora_outside_a_prompt_is_refused():
    assert refusal("bad <lora:style:0.8>", "a1111") == (
        "'<lora:style:0.8>' is a LoRA, which A1111 reads in prompts alone; write it into every prompt, or name it in "
        "model.loras (character 5)"
    )


@pytest.mark.parametrize(
    ("text", "found", "instead"),
    [
        ("\uff08x\uff1a1.3\uff09", "\uff08x\uff1a1.3\uff09", "write (x:1.3)"),
        ("a, (x\uff1a1.3)", "(x\uff1a1.3)", "write (x:1.3)"),
        ("(x:\uff11.3\uff09", "(x:\uff11.3\uff09", "write (x:1.3)"),
    ],
)
def test_a_weight_in_full_width_characters_is_refused(text, found, instead):
    message = refusal(text, "a1111")
    assert message.startswith(f"{found!r} has full-width characters, which are read as text; {instead}")


def test_alternation_in_full_width_characters_is_refused_too():
    assert "is alternation" in refusal("\uff3bcat\uff5cdog\uff3d", "a1111")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a | b:2", "'|' splits the prompt in NovelAI (prompt mixing), which is not offered here; leave it out"),
        ("smile, :|", "choose text=a1111, where it is text (character 9)"),
        ("|_|", "'|' splits the prompt"),
        ("1.5::cat::", "'1.5::cat::' is the numeric emphasis of V4, which is not offered here; write {{{{{{{{cat}}"),
        ("0.9::cat", "write [[cat]]"),
        ("-1::cat::", "write {x} for 1.05 times the weight, or [x] for 1/1.05 of it"),
        ("\uff5bcat\uff5d", "is a full-width character, which is read as text; write { (character 1)"),
        ("||red|blue|| hair", "'||red|blue||' chooses at random in NovelAI (the prompt randomizer)"),
        (f"{'9' * 400}::a::", "write {x} for 1.05 times the weight, or [x] for 1/1.05 of it"),
        ("__color__ hair", "is a wildcard"),
        ("{prompt}, x", "is the placeholder of a style"),
        ("<lora:x:1>", "is an extra network"),
        ("embedding:x", "is an embedding"),
    ],
)
def test_what_novelai_would_read_otherwise_is_refused(text, message):
    assert message in refusal(text, "novelai")


KAOMOJI = [
    *(
        "^_^",
        ">_<",
        ":(, rain",
        "(o)_(o)",
        "T_T",
        ">__<, ^__^",
        "<3, >:<",
        "<o>_<o>",
        ":3",
        "(smile), :3",
        ";)",
        "\\(^o^)/",
    ),
    *("(\u00b4\u30fb\u03c9\u30fb`)", "\uff08\u00b4\u30fb\u03c9\u30fb\uff40\uff09", ":D", "xD", "=_="),
]
WELL_FORMED = [
    *("", "(unbalanced", "x)", "style:adventurer, 12:30", "(a:b:1.2)", "{[x", "(x:1.3)", "( x : 1.3 )", "[x]", "{x}"),
    *("(16:9:1.2)", "(at 12:30, rain", "((a:1.2):1.1)", "style:(anime:1.2)", "saber (fate)", "[style:anime]", "(x:-1)"),
    *(r"\(x:abc\)", r"artist:\(name\)", r"saber_\(fate\)", r"(a\:1.2:1.1)", "(:3:1.1)"),
    *(
        "16:9, 12:30",
        "iso:100",
        "re:zero",
        "18+, A+",
        "well-known, a - b",
        r"c+\+",
        r"\#1",
        r"f\:1.8",
        "a__b",
        "<br>",
        "<3",
    ),
]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("text", KAOMOJI + WELL_FORMED)
def test_emoticons_and_well_formed_prompts_pass(syntax, text):
    check_prompt(text, syntax)


@pytest.mark.parametrize("text", [":|", "|_|", r"[a\|b]", r"{red\|blue}", "(a|b)"])
def test_a_bar_is_text_in_a1111s_syntax_outside_its_square_and_curly_brackets(text):
    check_prompt(text, "a1111")


@pytest.mark.parametrize("text", ["12::30", "a: 2", "iso:100", r"saber \(fate\)", "{o_o}", "(solo)2boys", "--no hands"])
def test_numbers_signs_and_faces_are_no_weights_of_another_tool(text):
    check_prompt(text, "a1111")


@pytest.mark.parametrize("text", ["(x:abc)", "<lora:x:1>", "{a|b}", "__a__", "\uff08x\uff1a1.3\uff09"])
def test_plain_has_no_syntax_to_check(text):
    check_prompt(text, "plain")


@pytest.mark.parametrize(
    ("text", "instead", "reading"),
    [
        ("(smile, :3)", "(smile, :3:1.1)", [("smile, :3", 1.1)]),
        ("artist:(name)", r"artist:\(name\)", [("artist:(name)", 1.0)]),
        ("(a:1.2:1.1)", r"(a\:1.2:1.1)", [("a:1.2", 1.1)]),
        ("(x:abc)", "(x:abc:1.1)", [("x:abc", 1.1)]),
        ("Momoa:0.1", r"Momoa\:0.1", [("Momoa:0.1", 1.0)]),
        ("cat::1.5", r"cat\::1.5", [("cat::1.5", 1.0)]),
        ("c++", r"c+\+", [("c++", 1.0)]),
        ("(a cat)++", "(a cat:1.21)", [("a cat", 1.21)]),
        ("{{cats}}", "(cats:1.1025)", [("cats", 1.1025)]),
    ],
)
def test_what_a_refusal_says_to_write_passes_and_reads_as_it_says(text, instead, reading):
    assert instead in refusal(text, "a1111")
    check_prompt(instead, "a1111")
    (section,) = parse(instead, "a1111")
    assert [tuple(span) for span in section] == reading


@given(text=TEXTS)
def test_a_written_prompt_has_weights_that_the_check_takes(text):
    written = write(parse(text.replace("|", "").replace("AND", ""), "a1111"), "a1111")
    message = refusal(written, "a1111")
    assert "not a number" not in message
    assert "weight beyond" not in message


@given(text=TEXTS, syntax=st.sampled_from(SYNTAXES))
def test_a_refusal_is_one_line_that_ends_with_the_place(text, syntax):
    message = refusal(text, syntax)
    if message:
        assert "(character " in message
        assert len(message) < 1000


@pytest.mark.parametrize("syntax", ["a1111", "novelai"])
@pytest.mark.parametrize(
    "piece",
    [
        "(",
        "()",
        "[",
        "[]",
        "{|",
        "a|",
        "{a|b",
        "])}",
        "({[",
        "__a",
        "<a:",
        "1",
        "(:3",
        "\uff08",
        "a:1 ",
        "{abc",
        "abc}",
        "__a b",
        "a::",
        "a+",
        "#",
    ],
)
def test_the_work_of_the_check_grows_as_the_text_does(syntax, piece):
    text = (piece * 10_000)[:10_000]
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        refusal(text, syntax)
    finally:
        sys.setprofile(before)
    assert calls <= 30 * len(text)


def documented():
    """The rows on prompts of docs/compatibility.md: a syntax, a prompt, and the sentence; empty where it is read."""
    section = (ROOT / "docs/compatibility.md").read_text("utf-8").split("\n## Prompts\n")[1].split("\n## ")[0]
    syntaxes = []
    for line in section.splitlines():
        if line.startswith("With "):
            syntaxes = re.findall(r"`text=(\w+)`", line)
        elif line.startswith("| ") and not line.startswith("| prompt"):
            prompts, outcome = re.split(r"(?<!\\) \| ", line.strip("| "))
            said = outcome[1:].split("`")[0] if outcome.startswith("`") else ""
            for prompt in re.findall(r"`([^`]+)`", prompts)[: 1 if said else None]:
                for syntax in syntaxes:
                    yield syntax, prompt.replace("\\|", "|"), said.replace("\\|", "|").removesuffix(" ...")


@pytest.mark.parametrize(("syntax", "prompt", "sentence"), documented())
def test_the_table_of_prompts_says_what_the_check_says(syntax, prompt, sentence):
    message = refusal(prompt, syntax)
    assert bool(message) == bool(sentence)
    # The sentence quotes a backslash as Python does.
    assert message.replace("\\\\", "\\").startswith(sentence.replace("\\\\", "\\"))


def test_the_table_of_prompts_has_every_syntax_and_many_rows():
    rows = list(documented())
    assert {syntax for syntax, _, _ in rows} == {"a1111", "novelai"}
    assert sum(bool(sentence) for _, _, sentence in rows) >= 18
