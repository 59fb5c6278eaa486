"""Files that texts call by name: the LoRAs that a study adds to its networks, and the embeddings in its texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import InputError
from pipeline.generation.arm_texts import prompt_loras
from pipeline.prompting.embedding_names import embeddings_in, known_embeddings
from pipeline.study.main_lora import AddedLora
from pipeline.study.study import Study


def added_loras(study: Study) -> tuple[AddedLora, ...]:
    """The LoRAs of a study's main network: those of model.loras and, after them, those of its prompts.

    Raises InputError for a name without a file, and for a file that is named twice.
    """
    found = [
        AddedLora(
            f"model.loras.{k}.file",
            Path(own.file),
            own.weight,
            own.weight if own.text_weight is None else own.text_weight,
        )
        for k, own in enumerate(study.model.loras)
    ]
    for lora in prompt_loras(study):
        try:
            found.append(AddedLora(f"prompts: {lora.shown}", lora.file, lora.weight, lora.text_weight))
        except ValueError as error:
            raise InputError(f"prompts: {error}") from None
    files: dict[Path, AddedLora] = {}
    for added in found:
        other = files.setdefault(added.file, added)
        if other is not added:
            raise InputError(f"{added.where} is {other.key} as well; name it once, with the sum of the weights")
    return tuple(found)


def called_embeddings(study: Study, texts: Mapping[str, Sequence[str]]) -> dict[str, Path]:
    """The files of the embeddings that texts of a study, lists of them by name, call. Raises InputError."""
    try:
        all_texts = (text for own in texts.values() for text in own)
        return embeddings_in(all_texts, study.text.syntax, known_embeddings())
    except ValueError as error:
        raise InputError(str(error)) from None
