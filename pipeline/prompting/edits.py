"""Edits of a prompt: how an arm asks for the same image in other words.

An edit works on the tags of a prompt, which commas separate; a comma inside brackets belongs to its tag. Patterns of
tags are those of file names (`* hair`). What an edit does not find it leaves alone, so every arm keeps as many prompts.
"""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from pipeline.prompting.emphasis import LARGEST, Span, Syntax, write
from pipeline.settings import Settings

Text = Annotated[str, StringConstraints(min_length=1, max_length=20_000)]


class Prefix(Settings):
    """Text before the prompt."""

    name: Literal["prefix"]
    text: Text

    @property
    def shown(self) -> str:
        return f"after {self.text!r}"

    def __call__(self, prompt: str, syntax: Syntax) -> str:
        return joined([self.text, *tags_of(prompt)])


class Suffix(Settings):
    """Text after the prompt."""

    name: Literal["suffix"]
    text: Text

    @property
    def shown(self) -> str:
        return f"before {self.text!r}"

    def __call__(self, prompt: str, syntax: Syntax) -> str:
        return joined([*tags_of(prompt), self.text])


class Reverse(Settings):
    """The tags from last to first."""

    name: Literal["reverse"]

    @property
    def shown(self) -> str:
        return "reversed"

    def __call__(self, prompt: str, syntax: Syntax) -> str:
        return joined(tags_of(prompt)[::-1])


class Rotate(Settings):
    """The first `by` tags moved to the end; below 0 the last ones to the front."""

    name: Literal["rotate"]
    by: Annotated[int, Field(ge=-1000, le=1000)]

    @property
    def shown(self) -> str:
        return f"rotated by {self.by}"

    def __call__(self, prompt: str, syntax: Syntax) -> str:
        tags = tags_of(prompt)
        k = self.by % len(tags) if tags else 0
        return joined([*tags[k:], *tags[:k]])


class First(Settings):
    """The tags that match moved to the front, in their order."""

    name: Literal["first"]
    tag: Text

    @property
    def shown(self) -> str:
        return f"{self.tag!r} first"

    def __call__(self, prompt: str, syntax: Syntax) -> str:
        tags = tags_of(prompt)
        return joined(sorted(tags, key=lambda tag: not fnmatchcase(tag, self.tag)))


class Drop(Settings):
    """The tags that match left out."""

    name: Literal["drop"]
    tag: Text

    @property
    def shown(self) -> str:
        return f"without {self.tag!r}"

    def __call__(self, prompt: str, syntax: Syntax) -> str:
        return joined([tag for tag in tags_of(prompt) if not fnmatchcase(tag, self.tag)])


class DropCommas(Settings):
    """The commas between tags left out."""

    name: Literal["drop_commas"]

    @property
    def shown(self) -> str:
        return "without commas"

    def __call__(self, prompt: str, syntax: Syntax) -> str:
        return " ".join(tags_of(prompt))


class Weigh(Settings):
    """The tags that match weighed, or of each only `part`: the words that are weighed alone."""

    name: Literal["weigh"]
    tag: Text
    weight: Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
    part: Text | None = None

    @property
    def shown(self) -> str:
        return f"{self.part or self.tag!r} at weight {self.weight:g}"

    def __call__(self, prompt: str, syntax: Syntax) -> str:
        return joined([self._weighed(tag, syntax) if fnmatchcase(tag, self.tag) else tag for tag in tags_of(prompt)])

    def _weighed(self, tag: str, syntax: Syntax) -> str:
        before, found, after = ("", tag, "") if self.part is None else tag.partition(self.part)
        if not found:
            return tag
        spans = (Span(before, 1.0), Span(found, self.weight), Span(after, 1.0))
        written = write((tuple(span for span in spans if span.text),), syntax)
        if syntax != "novelai":
            return written
        # Brackets that are left open there weigh the tags that follow, too.
        level = written.count("{") - written.count("[")
        return written + ("}" if level > 0 else "]") * abs(level)


class Replace(Settings):
    """The tags that match replaced by `text`."""

    name: Literal["replace"]
    tag: Text
    text: Text

    @property
    def shown(self) -> str:
        return f"{self.text!r} for {self.tag!r}"

    def __call__(self, prompt: str, syntax: Syntax) -> str:
        return joined([self.text if fnmatchcase(tag, self.tag) else tag for tag in tags_of(prompt)])


class Contradict(Settings):
    """`text` right after the tags that match and say something else: a prompt that asks for both."""

    name: Literal["contradict"]
    tag: Text
    text: Text

    @property
    def shown(self) -> str:
        return f"{self.text!r} beside {self.tag!r}"

    def __call__(self, prompt: str, syntax: Syntax) -> str:
        tags: list[str] = []
        for tag in tags_of(prompt):
            tags += [tag, self.text] if fnmatchcase(tag, self.tag) and tag != self.text else [tag]
        return joined(tags)


PromptEdit = Annotated[
    Prefix | Suffix | Reverse | Rotate | First | Drop | DropCommas | Weigh | Replace | Contradict,
    Field(discriminator="name"),
]


def edited(prompts: Sequence[str], edits: Sequence[Callable[[str, Syntax], str]], syntax: Syntax) -> list[str]:
    """Prompts after all edits, in the order written; without edits they are what they were, to the character."""
    found = list(prompts)
    for edit in edits:
        found = [edit(prompt, syntax) for prompt in found]
    return found


def tags_of(prompt: str) -> list[str]:
    """The tags of a prompt without the spaces around them; a comma inside brackets, or after a backslash, is text."""
    tags, depth, begin, escaped = [], 0, 0, False
    for k, character in enumerate(prompt):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth = max(0, depth - 1)
        elif character == "," and not depth:
            tags.append(prompt[begin:k])
            begin = k + 1
    tags.append(prompt[begin:])
    return [tag.strip() for tag in tags if tag.strip()]


def joined(tags: Sequence[str]) -> str:
    """Tags as a prompt."""
    return ", ".join(tag for tag in tags if tag)
