"""Published suites of prompts, in the layouts in which their authors publish them."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.generation.arm_texts import study_prompts
from pipeline.prompting.emphasis import Syntax
from pipeline.prompting.plain_text import plain_text
from pipeline.prompting.prompt_sets import SuitePrompts, read_prompts
from pipeline.prompting.suites import SUITES, SuitePrompt, read_suite
from pipeline.prompting.text_settings import TextSettings
from pipeline.study.study import parse_study

DRAWBENCH = """Prompts,Category
A red colored car.,Colors
A black colored car.,Colors
"A cube made of denim, a cube with the texture of denim.",DALL-E
"A sign that says ""Hello World"".",Text
"""
GENEVAL2 = [
    {
        "prompt": "seven green croissants",
        "atom_count": 3,
        "vqa_list": [["How many croissants are in the image?", "seven"], ["Are the croissants green?", "Yes"]],
        "skills": ["count", "attribute"],
    },
    {"prompt": "a pig behind two stone raccoons", "atom_count": 5, "vqa_list": [], "skills": []},
]
# The byte order mark is what spreadsheets write in front.
ONEIG = """\ufeffcategory,id,prompt_en,type,prompt_length,class
Anime_Stylization,000,"1girl, solo, poster (object), :3","T, P",middle,
Anime_Stylization,131,"A lighthouse in the style of a woodcut.",NP,short,Ukiyo-e
Portrait,000,A man at a desk.,NP,short,
"""
HPDV2 = {"anime": ["a fox"], "concept-art": ["a keep", "a mine"], "paintings": ["an owl"], "photo": ["a dog"]}


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose folder prompts/ has every suite where its command puts it."""
    monkeypatch.chdir(tmp_path)
    contents = {
        SUITES["drawbench"].path: DRAWBENCH,
        SUITES["geneval2"].path: "".join(f"{json.dumps(row)}\n" for row in GENEVAL2),
        SUITES["oneig_anime"].path: ONEIG,
        **{f"{SUITES['hpdv2'].path}/{style}.json": json.dumps(prompts) for style, prompts in HPDV2.items()},
    }
    for name, content in contents.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content, "utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "drawbench",
            {
                ("A red colored car.", "Colors"),
                ("A black colored car.", "Colors"),
                ("A cube made of denim, a cube with the texture of denim.", "DALL-E"),
                ('A sign that says "Hello World".', "Text"),
            },
        ),
        ("geneval2", {("seven green croissants", "3 atoms"), ("a pig behind two stone raccoons", "5 atoms")}),
        (
            "oneig_anime",
            {("1girl, solo, poster (object), :3", "anime"), ("A lighthouse in the style of a woodcut.", "Ukiyo-e")},
        ),
        ("hpdv2", {(prompt, style) for style, prompts in HPDV2.items() for prompt in prompts}),
    ],
)
@pytest.mark.usefixtures("fetched")
def test_a_suite_is_read_in_its_authors_layout_with_its_categories(name: str, expected: set[tuple[str, str]]) -> None:
    assert {(row.prompt, row.category) for row in read_suite(name)} == expected


@pytest.mark.usefixtures("fetched")
def test_tabs_separate_cells_as_well_as_commas() -> None:
    Path("prompts/bench.tsv").write_text("Prompts\tCategory\nA dog, a cat.\tConflicting\n")
    assert read_suite("drawbench", "prompts/bench.tsv") == [SuitePrompt("A dog, a cat.", "Conflicting")]


@pytest.mark.usefixtures("fetched")
def test_fewer_images_than_prompts_ask_for_every_category_in_proportion() -> None:
    rows = "".join(f"many {k},Colors\n" for k in range(40)) + "".join(f"few {k},Text\n" for k in range(20))
    Path("prompts/bench.csv").write_text(f"Prompts,Category\n{rows}")
    asked = read_suite("drawbench", "prompts/bench.csv")
    for n in (6, 15, 30, 60):
        assert Counter(row.category for row in asked[:n]) == {"Colors": n * 2 // 3, "Text": n // 3}
    assert [row.prompt for row in asked if row.category == "Text"] == [f"few {k}" for k in range(20)]


def of_category(name: str, category: str, syntax: Syntax = "a1111") -> list[str]:
    prompt_set = SuitePrompts(source="suite", suite=name, category=category)
    return read_prompts(prompt_set, len(read_suite(name, category=category)), syntax)


@pytest.mark.usefixtures("fetched")
def test_brackets_of_a_suite_are_words_in_every_syntax() -> None:
    text = "1girl, solo, poster (object), :3"
    assert of_category("oneig_anime", "anime", "plain") == [text]
    (written,) = of_category("oneig_anime", "anime", "a1111")
    assert plain_text(written, TextSettings(syntax="a1111")) == text
    assert written != text


@pytest.mark.usefixtures("fetched")
def test_one_category_is_a_prompt_set_too() -> None:
    assert of_category("hpdv2", "concept-art") == ["a keep", "a mine"]
    with pytest.raises(InputError, match=r"prompts.category 'photos' is unknown in HPDv2; its categories: anime, conc"):
        of_category("hpdv2", "photos")


@pytest.mark.usefixtures("fetched")
def test_a_study_names_a_suite_and_an_arm_may_read_its_categories(params: dict[str, Any]) -> None:
    params["prompts"] = {"source": "suite", "suite": "geneval2"}
    params["arms"]["cfg"]["prompt_column"] = "category"
    study = parse_study(params, "test")
    assert study_prompts(study)[1:3] == ["a pig behind two stone raccoons", "seven green croissants"]
    assert study_prompts(study, study.arms["cfg"].prompt_column)[:2] == ["3 atoms", "5 atoms"]
    with pytest.raises(InputError, match=r"prompts.column 'skills' is unknown in a suite; its columns: prompt, categ"):
        study_prompts(study, "skills")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "drawbnch"}, "prompts.suite.*'drawbnch' is unknown; did you mean drawbench"),
        ({"suite": "drawbench", "path": "/etc/passwd"}, "must lie in prompts/"),
        ({}, "prompts.suite"),
    ],
)
def test_a_suite_that_cannot_be_is_refused_when_the_study_is_composed(
    params: dict[str, Any], changes: dict[str, str], message: str
) -> None:
    params["prompts"] = {"source": "suite", **changes}
    with pytest.raises(InputError, match=message) as raised:
        parse_study(params, "test")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", SUITES)
def test_a_missing_suite_is_one_line_with_its_licence_and_the_command_that_fetches_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as raised:
        read_suite(name)
    said, suite = str(raised.value), SUITES[name]
    assert said.startswith(f"prompts.path {suite.path}")
    assert f"(licence: {suite.licence}) with `{suite.fetch}`" in said
    # The command leaves the files where they are looked for.
    assert {part for part in (str(Path(suite.path).parent), Path(suite.path).name) if part not in suite.fetch} == set()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("drawbench", "prompt,category\nA dog.,Text\n", "it has no column Prompts, Category; its columns: prompt, c"),
        ("drawbench", "", "it has no column Prompts, Category; its columns: none"),
        ("drawbench", "Prompts,Category\n", "it holds no prompt"),
        ("drawbench", "Prompts,Category\nA dog.,Text\n,Text\n", "row 2 has no prompt"),
        ("drawbench", "Prompts,Category\n" + "x" * 200_000, "field larger than field limit"),
        ("geneval2", '{"prompt": "a pig"}\n', "line 1 has no text `prompt` and number `atom_count`"),
        ("geneval2", '{"prompt": "a pig", "atom_count": 3}\nno\n', "Expecting value"),
        ("geneval2", "[" * 100_000, "recursion"),
        ("oneig_anime", "category,id,prompt_cn,type,prompt_length,class\n", "it has no column prompt_en"),
        ("oneig_anime", "category,id,prompt_en,type,prompt_length,class\nPortrait,0,A man.,NP,,\n", "holds no prompt"),
        ("oneig_anime", b"category\xff", "can't decode byte"),
        ("hpdv2", '{"anime": []}', "anime.json is not a list of prompts"),
        ("hpdv2", "[1]", "anime.json is not a list of prompts"),
    ],
)
def test_another_layout_is_one_line_with_what_is_wrong_and_the_command(
    fetched: Path, name: str, content: str | bytes, message: str
) -> None:
    place = fetched / SUITES[name].path
    place = place / "anime.json" if name == "hpdv2" else place
    place.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as raised:
        read_suite(name)
    said = str(raised.value)
    assert f"is not {SUITES[name].title} as it is published (" in said
    assert said.endswith(f"get it with `{SUITES[name].fetch}`")
    assert "\n" not in said
