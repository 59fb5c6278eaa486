"""The texts of a study say nothing that its text encoders cannot read: weights where none are, more than T5 takes."""

from collections.abc import Iterable

from pipeline.errors import InputError
from pipeline.generation.shard_plan import arm_texts
from pipeline.networks.checkpoints import Checkpoint
from pipeline.prompting.emphasis import parse
from pipeline.study.study import Study


def check_texts_are_read(study: Study, arm_names: Iterable[str], main: Checkpoint) -> None:
    """Raise InputError where text settings or a text of an arm mean nothing to the family of `main`, or are too long.

    Tokenizers are read, and no weights.
    """
    family, settings = main.family, study.text
    longer = next((text for text in family.texts if text.kind == "t5"), None)
    if longer is None:
        if settings.t5_length is not None:
            raise InputError(f"text.t5_length is for families that read T5, and {main.config} is {family.name}")
        return
    if not family.weighs_words:
        for key, value, none in (("chunks", settings.chunks, 1), ("clip_skip", settings.clip_skip, 0)):
            if value != none:
                raise InputError(
                    f"text.{key} is {value}; {main.config} ({family.name}) reads the tokens of T5 alone, which has no "
                    f"{'chunks' if key == 'chunks' else 'layers of CLIP to skip'}; set it to {none}"
                )
    from transformers import T5TokenizerFast  # with torch, which studies of other families do not wait for

    from pipeline.networks.text.t5_tower import t5_tokens

    tokenizer = T5TokenizerFast.from_pretrained(
        main.config / longer.part.replace("text_encoder", "tokenizer"), local_files_only=True
    )
    known: set[str] = set()
    for name in arm_names:
        for kind, texts in arm_texts(study, name).items():
            for text in dict.fromkeys(texts):
                if text in known:
                    continue
                known.add(text)
                if not family.weighs_words:
                    _check_no_weights(f"arms.{name}", kind, text, study, main)
                try:
                    t5_tokens(text, tokenizer, settings.t5_length or longer.length, settings)
                except InputError as error:
                    raise InputError(f"arms.{name}: text {kind} {error}") from None


def _check_no_weights(where: str, kind: str, text: str, study: Study, main: Checkpoint) -> None:
    weighted = [
        span for section in parse(text, study.text.syntax) for span in section if span.weight != 1 and span.text.strip()
    ]
    if weighted:
        raise InputError(
            f"{where}: text {kind} gives '{weighted[0].text.strip()[:60]}' the weight {weighted[0].weight:g}; "
            f"{main.config} ({main.family.name}) reads the tokens of T5, which knows no weights; take them out, or set "
            "text.syntax: plain to have brackets read as text"
        )


def check_embedded_guidance(study: Study, arm_names: Iterable[str], main: Checkpoint) -> None:
    """Raise InputError where an arm sets embedded guidance and the main network reads none."""
    family = main.family
    settings = main.settings(family.network) or {}
    if family.embedded_guidance is not None and settings.get(family.embedded_guidance, False):
        return
    for name in arm_names:
        if study.arm(name).embedded_guidance is not None:
            raise InputError(
                f"arms.{name}.embedded_guidance is {study.arm(name).embedded_guidance:g}, and {main.config} "
                f"({family.name}) reads no guidance scale; leave it out"
            )
