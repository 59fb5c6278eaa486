"""The labelling interfaces: one image and one verdict, or two images and one choice."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from label_studio_sdk.label_interface.interface import LabelInterface

Kind = Literal["tasks", "pairs"]

_FOLDER = Path(__file__).parent
INTERFACE = _FOLDER / "interface.xml"
INTERFACE_PAIRS = _FOLDER / "interface_pairs.xml"
INTERFACES: dict[Kind, Path] = {"tasks": INTERFACE, "pairs": INTERFACE_PAIRS}


@dataclass(frozen=True)
class Answer:
    """What one annotation says: the choices by question, and the note."""

    choices: dict[str, tuple[str, ...]]
    note: str


def load_interface(path: Path = INTERFACE) -> LabelInterface:
    """A Label Studio interface of this project, validated by Label Studio's own SDK.

    Raises ValueError (of the SDK) where the file holds no valid interface.
    """
    interface = LabelInterface(path.read_text("utf-8"))
    interface.validate()  # type: ignore[no-untyped-call]
    return interface


def choices(path: Path = INTERFACE) -> dict[str, tuple[str, ...]]:
    """The allowed choices of every question, by its name. Label Studio itself checks none of them."""
    interface = load_interface(path)
    return {control.name: tuple(control.labels) for control in interface.controls if control.tag == "Choices"}


def read_answer(result: list[dict[str, object]], allowed: dict[str, tuple[str, ...]]) -> Answer:
    """An annotation's result in the words of the interface.

    Raises ValueError naming the question and the value where the interface knows one of them not.
    """
    chosen: dict[str, tuple[str, ...]] = {}
    note: list[str] = []
    for part in result:
        if part.get("type") == "relation":  # between two regions; it answers nothing
            continue
        question, value = part.get("from_name"), part.get("value")
        content = value if isinstance(value, dict) else {}
        if question == "note":
            note += _texts(content.get("text"))
            continue
        if not isinstance(question, str) or question not in allowed:
            raise ValueError(f"question {question!r} is not in the interface (it has {', '.join(allowed)})")
        # One question can be answered in several regions, and each of them counts.
        values = [*chosen.get(question, ()), *_texts(content.get("choices"))]
        for unknown in sorted(set(values) - set(allowed[question])):
            raise ValueError(f"{question} {unknown!r} is not in the interface (it has {', '.join(allowed[question])})")
        if values:
            # In the interface's order: the order of clicks says nothing and would only make diffs.
            chosen[question] = tuple(choice for choice in allowed[question] if choice in values)
    return Answer(chosen, "\n".join(note))


def choice(question: str, *values: str, shown: str = "image") -> dict[str, object]:
    """The part of an annotation's result that answers `question` about the object `shown`."""
    return {"from_name": question, "to_name": shown, "type": "choices", "value": {"choices": list(values)}}


def _texts(value: object) -> list[str]:
    # Clients that follow the SDK's examples write {"0": "x"} for ["x"].
    given = list(value.values()) if isinstance(value, dict) else value
    values = given if isinstance(given, list) else [] if given is None else [given]
    return [str(text) for text in values]
