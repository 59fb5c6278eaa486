"""What an image's file says it was generated with, whichever tool wrote it."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

# A longer text is cut: it is shown, and no prompt is as long.
MOST_TEXT = 20_000
# Seeds are integers of 64 bits in every tool; ComfyUI's are unsigned.
_MOST_SEED = 2**64 - 1


@dataclass(frozen=True)
class Metadata:
    """The settings of one image; empty or None where the file does not say.

    `scale` is the CFG scale as the tool counts it, in which 1 means no guidance. All texts are untrusted.
    """

    tool: str
    prompt: str = ""
    negative: str = ""
    seed: int | None = None
    sampler: str = ""
    steps: int | None = None
    scale: float | None = None
    model: str = ""

    def as_dict(self) -> dict[str, Any]:
        """What the file says, without what it leaves open."""
        return {name: value for name, value in asdict(self).items() if value not in ("", None)}

    @staticmethod
    def of(content: dict[str, Any]) -> "Metadata":
        """The record that `as_dict` was of."""
        return Metadata(**{field.name: content[field.name] for field in fields(Metadata) if field.name in content})


class Unreadable(ValueError):
    """Metadata that a tool has left and that cannot be read; says why."""


def text(value: object) -> str:
    """A text as it may be stored and shown: valid Unicode without control characters but line breaks, of bounded
    length. Empty for what is not text."""
    if not isinstance(value, str):
        return ""
    # JSON can write half of a surrogate pair, which no file of UTF-8 can hold.
    whole = value[:MOST_TEXT].encode("utf-8", "replace").decode("utf-8")
    return "".join(c for c in whole if c in "\n\t" or ord(c) >= 32).strip()


def whole_number(value: object, most: int = _MOST_SEED) -> int | None:
    """An integer from 0 to `most`, written as a number or as text; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = int(value) if value.strip().isdecimal() and len(value) <= 20 else None
    if isinstance(value, float):
        value = int(value) if math.isfinite(value) and value.is_integer() else None
    return value if isinstance(value, int) and 0 <= value <= most else None


def number(value: object) -> float | None:
    """A finite number, written as such or as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
