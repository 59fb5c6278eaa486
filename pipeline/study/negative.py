"""The negative prompt of a study: one value that its arms and probes share.

The key `negative` of a study is a text or a preset. Composing a study writes it into every arm that reads a negative
prompt and sets none, so that params.yaml shows every arm whole. Arms may still set their own.
"""

from typing import Annotated, Any

from pydantic import StringConstraints, field_validator, model_validator

from pipeline.errors import InputError
from pipeline.prompting.presets import NEGATIVE_PRESETS
from pipeline.settings import Settings, nearest
from pipeline.study.arm import Arm
from pipeline.study.named_texts import NEGATIVE_KEYS, known_negative_preset


class Negative(Settings):
    """A negative prompt: a text as it is, or a preset. A configuration may write the text alone."""

    text: Annotated[str, StringConstraints(max_length=20_000)] | None = None
    preset: str | None = None

    _known = field_validator("preset")(known_negative_preset)

    @model_validator(mode="before")
    @classmethod
    def _text_alone(cls, content: Any) -> Any:
        return {"text": content} if isinstance(content, str) else content

    @model_validator(mode="after")
    def _one(self) -> "Negative":
        if (self.text is None) == (self.preset is None):
            raise ValueError("needs exactly one of text and preset; write negative: <text>, or {preset: <name>}")
        return self

    @property
    def shown(self) -> str:
        """The negative prompt for people to read."""
        return NEGATIVE_PRESETS[self.preset].text if self.preset else self.text or ""


def with_negative(content: dict[str, Any]) -> dict[str, Any]:
    """A composed study whose `negative` stands in every arm that reads one and sets none.

    A negative that no arm takes is left out. Raises InputError for a preset that is unknown, which else every arm would
    name; what is malformed otherwise is left for validation to refuse.
    """
    arms, negative = content.get("arms"), content.get("negative")
    written = _as_arms_write_it(negative)
    preset = written.get("negative_preset")
    if preset is not None and preset not in NEGATIVE_PRESETS:
        meant = f" did you mean {near}?" if (near := nearest(str(preset), NEGATIVE_PRESETS)) else ""
        raise InputError(
            f"negative.preset is '{preset}', which is unknown;{meant} known presets: {', '.join(NEGATIVE_PRESETS)}"
        )
    if not isinstance(arms, dict) or not written:
        return content
    found = {name: _with(arm, written) for name, arm in arms.items()}
    if found == arms:
        return {key: value for key, value in content.items() if key != "negative"}
    return {**content, "arms": found}


def check_negative(negative: Negative | None, arms: dict[str, Arm]) -> None:
    """Raise InputError for a study's negative prompt that none of the arms with a negative prompt has.

    That is what a change of params.yaml itself leaves behind, which does nothing: arms are written out when the study
    is composed.
    """
    readers = [arm for arm in arms.values() if "negative" in arm.read_texts]
    if negative is None or not readers:
        return
    if any((arm.negative_prompt, arm.negative_preset) == (negative.text, negative.preset) for arm in readers):
        return
    raise InputError(
        f"negative is '{negative.shown}', which no arm of params.yaml has; arms get it when the study is composed: "
        "guidedrift run --negative '<text>', or negative: in conf/study/"
    )


def _as_arms_write_it(negative: Any) -> dict[str, str]:
    if isinstance(negative, str):
        return {"negative_prompt": negative}
    given = {key: value for key, value in negative.items() if value is not None} if isinstance(negative, dict) else {}
    if len(given) != 1:
        return {}
    key, value = next(iter(given.items()))
    return {"text": {"negative_prompt": value}, "preset": {"negative_preset": value}}.get(key, {})


def _with(arm: Any, written: dict[str, str]) -> Any:
    if not isinstance(arm, dict):
        return arm
    if reads_negative(arm) and not any(arm.get(key) not in (None, False) for key in NEGATIVE_KEYS):
        arm = {**{key: value for key, value in arm.items() if key not in NEGATIVE_KEYS}, **written}
    # An arm that starts from the images of another repeats that one.
    start = arm.get("image_to_image")
    if isinstance(start, dict) and isinstance(start.get("source"), dict):
        arm = {**arm, "image_to_image": {**start, "source": _with(start["source"], written)}}
    return arm


def reads_negative(arm: dict[str, Any]) -> bool:
    """Whether an arm, as composed, reads the text `negative`: for its guidance, in attention, or for a probe."""
    terms = [term.get("reference") for term in _items(arm.get("terms")) if isinstance(term, dict)]
    references, attention = arm.get("references"), arm.get("attention")
    own = references.values() if isinstance(references, dict) else ()
    texts = [reference.get("text") for reference in own if isinstance(reference, dict)]
    if isinstance(attention, dict):
        texts.append(attention.get("text", "negative"))  # as AttentionSpace has it
    return arm.get("method") == "negative" or "negative" in [*terms, *_items(arm.get("probes")), *texts]


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
