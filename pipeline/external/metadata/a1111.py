"""The text that AUTOMATIC1111's web UI and its descendants (Forge, reForge, SD.Next) write: `parameters`.

The prompt, a line that begins with `Negative prompt:`, and a last line `Steps: 20, Sampler: Euler a, ...`, in which a
value with commas stands in quotes.
"""

import json
import re

from pipeline.external.metadata.record import Metadata, Unreadable, number, text, whole_number

_NEGATIVE = "Negative prompt:"
# As the web UI reads its own text back; the bounds keep a long line without colons cheap.
_SETTING = re.compile(r'\s*(\w[\w \-/]{0,60}):\s*("(?:\\.|[^\\"]){0,4000}"|[^,]{0,4000})(?:,|$)')
# Of a last line with fewer settings, the web UI takes all for the prompt.
_FEWEST = 3
_KNOWN = {"Steps", "Sampler", "CFG scale", "Seed", "Size", "Model", "Model hash", "Schedule type"}


def read_a1111(content: str) -> Metadata:
    """The settings in a `parameters` text. Raises Unreadable where its last line holds none."""
    lines = content.strip().split("\n")
    settings = _settings(lines[-1])
    if len(settings) < _FEWEST or not _KNOWN & set(settings):
        raise Unreadable("its parameters text has no line of settings (Steps: ..., Sampler: ...)")
    prompt: list[str] = []
    negative: list[str] = []
    part = prompt
    for line in lines[:-1]:
        if line.startswith(_NEGATIVE):
            part, line = negative, line.removeprefix(_NEGATIVE)
        part.append(line)
    schedule = text(settings.get("Schedule type"))
    sampler = text(settings.get("Sampler"))
    return Metadata(
        tool="Forge" if settings.get("Version", "").startswith("f") else "A1111",
        prompt=text("\n".join(prompt)),
        negative=text("\n".join(negative)),
        seed=whole_number(settings.get("Seed")),
        sampler=f"{sampler} {schedule}" if schedule and schedule != "Automatic" else sampler,
        steps=whole_number(settings.get("Steps"), 100_000),
        scale=number(settings.get("CFG scale")),
        model=text(settings.get("Model") or settings.get("Model hash")),
    )


def _settings(line: str) -> dict[str, str]:
    return {key.strip(): _unquoted(value.strip()) for key, value in _SETTING.findall(line[:100_000])}


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value
