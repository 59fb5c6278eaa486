"""The texts of a study say nothing that its text encoders cannot read: weights where none are, more than they take."""

from collections.abc import Callable, Iterable
from pathlib import Path

from pipeline.errors import InputError
from pipeline.generation.called_files import called_embeddings
from pipeline.generation.shard_plan import arm_texts
from pipeline.networks.checkpoints import Checkpoint
from pipeline.networks.families import TextPart
from pipeline.prompting.emphasis import parse
from pipeline.prompting.text_settings import TextSettings
from pipeline.study.study import Study


def check_texts_are_read(study: Study, arm_names: Iterable[str], main: Checkpoint) -> None:
    """Raise InputError where text settings or a text of an arm mean nothing to the family of `main`, or are too long.

    Tokenizers are read, and no weights.
    """
    family, settings = main.family, study.text
    whole = family.whole_text
    if settings.t5_length is not None and (whole is None or whole.kind != "t5"):
        raise InputError(f"text.t5_length is for families that read T5, and {main.config} is {family.name}")
    if whole is None:
        return
    if not family.reads_clip:
        for key, value, none in (("chunks", settings.chunks, 1), ("clip_skip", settings.clip_skip, 0)):
            if value != none:
                raise InputError(
                    f"text.{key} is {value}; {main.config} ({family.name}) reads the tokens of {whole.title} alone, "
                    f"which has no {'chunks' if key == 'chunks' else 'layers of CLIP to skip'}; set it to {none}"
                )
    check_length = _length_check(main, whole, settings)
    known: set[str] = set()
    for name in arm_names:
        for kind, texts in arm_texts(study, name).items():
            for text in dict.fromkeys(whole.system + text if kind == "prompt" else text for text in texts):
                if text in known:
                    continue
                known.add(text)
                if not family.reads_clip:
                    _check_no_weights(f"arms.{name}", kind, text, study, whole, main)
                try:
                    check_length(text)
                except InputError as error:
                    raise InputError(f"arms.{name}: text {kind} {error}") from None


def check_embeddings(study: Study, arm_names: Iterable[str], main: Checkpoint, encoders: Iterable[Checkpoint]) -> None:
    """Raise InputError where a text calls an embedding that is missing, or that is for other text encoders.

    `encoders` are the checkpoints of the family's text encoders, in its order; of them configurations are read.
    """
    called: dict[str, Path] = {}
    for name in arm_names:
        called |= called_embeddings(study, arm_texts(study, name))
    if not called:
        return
    # With torch, which other studies do not wait for.
    from pipeline.networks.weights.embedding_file import check_takes_embeddings, read_embedding

    check_takes_embeddings(main, called)
    settings = [
        checkpoint.settings(part) or {} for part, checkpoint in zip(main.family.text_parts, encoders, strict=True)
    ]
    widths = [int(own.get("hidden_size", 512)) for own in settings]
    most = min(int(own.get("max_position_embeddings", 77)) for own in settings) - 2
    for path in called.values():
        read_embedding(path, widths, most)


def _length_check(main: Checkpoint, whole: TextPart, settings: TextSettings) -> Callable[[str], object]:
    """What raises InputError for a text that is longer than the text encoder takes; it reads the tokenizer alone."""
    # With torch, which studies of other families do not wait for.
    if whole.is_language_model:
        from pipeline.networks.text.language_model_tower import language_model_tokens, load_language_tokenizer

        own = load_language_tokenizer(main.config, whole)
        return lambda text: language_model_tokens(text, own, whole, settings)
    from transformers import T5TokenizerFast

    from pipeline.networks.text.t5_tower import t5_tokens

    folder = main.config / whole.part.replace("text_encoder", "tokenizer")
    tokenizer = T5TokenizerFast.from_pretrained(folder, local_files_only=True)
    return lambda text: t5_tokens(text, tokenizer, settings.t5_length or whole.length, settings)


def _check_no_weights(where: str, kind: str, text: str, study: Study, whole: TextPart, main: Checkpoint) -> None:
    weighted = [
        span for section in parse(text, study.text.syntax) for span in section if span.weight != 1 and span.text.strip()
    ]
    if weighted:
        raise InputError(
            f"{where}: text {kind} gives '{weighted[0].text.strip()[:60]}' the weight {weighted[0].weight:g}; "
            f"{main.config} ({main.family.name}) reads the tokens of {whole.title}, which knows no weights; take them "
            "out, or set text.syntax: plain to have brackets read as text"
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


def check_built_in_post(study: Study, arm_names: Iterable[str], main: Checkpoint) -> None:
    """Raise InputError where an arm leaves out post-processes of a pipeline that has none built in."""
    if main.family.post:
        return
    for name in arm_names:
        if not study.arm(name).built_in_post:
            raise InputError(
                f"arms.{name}.built_in_post is false, and the pipeline of {main.config} ({main.family.name}) has no "
                "post-process built in; leave it out"
            )


def check_degraded_texts(study: Study, arm_names: Iterable[str], main: Checkpoint) -> None:
    """Raise InputError where an arm degrades tokens to those of the empty text, which a language model has not."""
    if not any(text.is_language_model for text in main.family.texts):
        return
    for name in arm_names:
        degraded = [text for text, own in study.arm(name).texts.items() if own.degraded is not None]
        if degraded:
            raise InputError(
                f"arms.{name}.texts.{degraded[0]} degrades tokens to the empty text's at their places, and "
                f"{main.config} ({main.family.name}) reads an empty text that is not as long as the prompt; name a "
                "text instead"
            )
