"""Docs, templates, descriptions, messages and docstrings avoid the turns of phrase in forbidden_turns.yaml."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from repository_copy import ROOT

# Folders, and the endings of the files in them that people read.
READ = {
    "pipeline": (".py", ".j2"),
    "eval": (".py", ".j2", ".js"),
    "labeling": (".py", ".j2"),
    "models/tinybooru": (".py", ".j2", ".md"),
    "benchmarks": (".py",),
    "conf": (".yaml",),
    "docs": (".py", ".md"),
}
# What begins the lines of comments, and is no word of the sentence.
COMMENT_MARKS = {"#", "//", "*", "/*"}


@dataclass(frozen=True)
class Turn:
    pattern: re.Pattern[str]
    write: str
    sample: str


@dataclass(frozen=True)
class Passage:
    """A text as it is read, with the line of the file on which each of its lines is."""

    text: str
    line: int

    def flat(self) -> tuple[str, list[tuple[int, int]]]:
        """The words with single spaces between them, and (position, line) of each word."""
        words, places, position = [], [], 0
        for number, line in enumerate(self.text.splitlines(), self.line):
            for place, word in enumerate(line.split()):
                if place == 0 and word in COMMENT_MARKS:
                    continue
                words.append(word)
                places.append((position, number))
                position += len(word) + 1
        return " ".join(words), places


def _turns() -> list[Turn]:
    listed = yaml.safe_load((Path(__file__).parent / "forbidden_turns.yaml").read_text("utf-8"))
    return [Turn(re.compile(entry["turn"]), entry["write"], entry["sample"]) for entry in listed]


TURNS = _turns()


def files_to_read() -> list[Path]:
    found = [path for folder, endings in READ.items() for path in (ROOT / folder).rglob("*") if path.suffix in endings]
    return sorted([*found, *ROOT.glob("*.md")])


def passages(path: Path) -> Iterator[Passage]:
    """What people read in a file: of Python the strings and docstrings, of Markdown all but code."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        yield from _strings(ast.parse(text))
    elif path.suffix == ".md":
        for code in (r"^( *)```.*?^\1```", r"`[^`]*`"):
            text = re.sub(code, lambda found: _blank(found[0]), text, flags=re.DOTALL | re.MULTILINE)
        yield Passage(text, 1)
    elif path.suffix == ".j2":
        yield Passage(re.sub(r"\{\{.*?\}\}|\{%.*?%\}", lambda found: _blank(found[0]), text, flags=re.DOTALL), 1)
    else:
        yield Passage(text, 1)


def _blank(code: str) -> str:
    """A placeholder of as many lines."""
    return "`{}`" + "\n" * code.count("\n")


def _strings(tree: ast.Module) -> Iterator[Passage]:
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield Passage("".join(parts), node.lineno)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            # A single word is a name, a key or a pattern.
            yield Passage(node.value if " " in node.value.strip() else "", node.lineno)


def faults(path: Path, name: str) -> list[str]:
    found = []
    for passage in passages(path):
        flat, places = passage.flat()
        for turn in TURNS:
            for match in turn.pattern.finditer(flat):
                line = max(number for position, number in places if position <= match.start())
                found.append(f"{name}:{line}: '{match[0]}'; write: {turn.write}")
    return found


def test_what_people_read_is_plain_english() -> None:
    found = [fault for path in files_to_read() for fault in faults(path, path.relative_to(ROOT).as_posix())]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("turn", TURNS, ids=lambda turn: turn.write)
def test_every_turn_is_found_in_its_sample(turn: Turn) -> None:
    assert turn.pattern.search(turn.sample)


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.md", "# Title\n\nEvery arm has a folder of\nits own.\n", 3),
        ("a.md", "```\nanew\n```\n`anew` computes it anew.\n", 4),
        ("a.yaml", "# A row\n# an arm.\n", 1),
        ("a.js", "// Nothing\n// of its\n// own.\n", 2),
        ("a.html.j2", "{% if a %}\n<p>{{ anew }}</p>\n<p>It is made anew.</p>\n", 3),
        ("a.py", '"""A module.\n\nIt makes a file anew.\n"""\n', 3),
        ("a.py", 'x = 1\ny = f"{x} is no " f"number"\n', 2),
        ("a.py", 'x = "anew"\n\ny = ("the file is "\n     "made anew")\n', 3),
    ],
)
def test_a_turn_is_named_with_its_file_and_line(tmp_path: Path, name: str, text: str, line: int) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    (fault,) = faults(tmp_path / name, name)
    assert fault.startswith(f"{name}:{line}: '")
    assert "; write: " in fault


@pytest.mark.parametrize(
    "sentence",
    [
        "There is no file; the arm is no longer there and no larger than the others.",
        "The table has one row per arm and shows 16 images per arm, which tags an image shows and nothing else.",
        "The folder pictures/ is now images/, and k = 3 needs at least 4 images.",
    ],
)
def test_plain_sentences_pass(tmp_path: Path, sentence: str) -> None:
    (tmp_path / "a.md").write_text(sentence, "utf-8")
    assert faults(tmp_path / "a.md", "a.md") == []
