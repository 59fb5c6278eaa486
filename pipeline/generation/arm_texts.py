"""The prompts and negative prompts of an arm, image by image."""

from pipeline.errors import InputError
from pipeline.prompting.edits import edited
from pipeline.prompting.emphasis import Syntax, parse, write
from pipeline.prompting.extra_networks import PromptLora, loras_of, without_loras
from pipeline.prompting.presets import NEGATIVE_PRESETS, QUALITY_TAGS
from pipeline.prompting.prompt_sets import DatasetPrompts, PromptSet, SuitePrompts, read_prompts
from pipeline.study.arm import Arm
from pipeline.study.study import Study


def study_prompts(study: Study, column: str | None = None) -> list[str]:
    """One prompt per image, the same for every arm that does not ask for others; from another `column` if given.

    Without LoRAs, which `prompt_loras` gives. Raises InputError.
    """
    return prompts_without_loras(study, column, study.generate.images)


def prompts_without_loras(study: Study, column: str | None, images: int) -> list[str]:
    """The prompts of as many images as asked for. Raises InputError."""
    syntax = study.text.syntax
    read = read_prompts(prompt_set_of(study, column), images, syntax)
    try:
        return [without_loras(prompt, syntax)[0] for prompt in read]
    except ValueError as error:
        raise InputError(f"prompts: {error}") from None


def prompt_loras(study: Study) -> tuple[PromptLora, ...]:
    """The LoRAs that the study's prompts ask for, of all columns that arms read.

    They hold for all images, also those of an arm whose own prompt is empty. Raises InputError where prompts do not ask
    for the same.
    """
    syntax = study.text.syntax
    if syntax != "a1111" or not study.generated:
        return ()
    columns = {study.arms[name].prompt_column for name in study.generated}
    prompts = [
        prompt
        for column in sorted(columns, key=str)
        for prompt in read_prompts(prompt_set_of(study, column), study.generate.images, syntax)
    ]
    try:
        return loras_of(prompts, syntax)
    except ValueError as error:
        raise InputError(f"prompts: {error}") from None


def prompt_set_of(study: Study, column: str | None) -> PromptSet:
    """The study's prompt set, with another `column` of its dataset if given."""
    asked = study.prompts
    if column is not None and isinstance(asked, DatasetPrompts | SuitePrompts):
        return asked.model_copy(update={"column": column})
    return asked


def arm_prompts(arm: Arm, prompts: list[str], syntax: Syntax) -> list[str]:
    """The prompts of an arm, given those of the study: as they are, edited or empty; with its quality tags."""
    return _tagged(arm, _untagged(arm, prompts, syntax), syntax)


def _untagged(arm: Arm, prompts: list[str], syntax: Syntax) -> list[str]:
    return [""] * len(prompts) if arm.prompt == "empty" else edited(prompts, arm.prompt_edits, syntax)


def _tagged(arm: Arm, texts: list[str], syntax: Syntax) -> list[str]:
    if arm.quality_preset is None:
        return texts
    preset = QUALITY_TAGS[arm.quality_preset]
    tags = preset.text if preset.syntax == "plain" else write(parse(preset.text, preset.syntax), syntax)
    pairs = [(tags, text) if preset.place == "prefix" else (text, tags) for text in texts]
    return [", ".join(part for part in pair if part) for pair in pairs]


def arm_negatives(arm: Arm, prompts: list[str], syntax: Syntax) -> list[str]:
    """The negative prompts of an arm, given its own prompts; empty ones where it has none.

    A preset is translated from the syntax of its tool into the study's, so that its weights act and its brackets are
    not read as text.
    """
    if arm.negative_from_prompt:
        return prompts
    if arm.negative_preset is None:
        return [arm.negative_prompt or ""] * len(prompts)
    return [_translated(arm.negative_preset, syntax)] * len(prompts)


def named_texts(arm: Arm, prompts: list[str], syntax: Syntax) -> dict[str, list[str]]:
    """The texts that the arm defines and its networks read, one per image each, by name.

    A text of degraded tokens is the prompt itself: what is degraded are its embeddings.
    """
    texts = {}
    for name in sorted(arm.read_texts & set(arm.texts)):
        own = arm.texts[name]
        if own.degraded is not None:
            texts[name] = prompts
        else:
            texts[name] = [own.text or "" if own.preset is None else _translated(own.preset, syntax)] * len(prompts)
    return texts


def _translated(preset: str, syntax: Syntax) -> str:
    own = NEGATIVE_PRESETS[preset]
    return write(parse(own.text, own.syntax), syntax)


def unrelated_prompts(arm: Arm, prompts: list[str], syntax: Syntax) -> list[str]:
    """For each image of an arm the next of the study's `prompts`, in a circle, with another text; with its tags.

    The condition of independent-condition guidance (arXiv 2407.02687), which says nothing about the image's own prompt.
    Quality tags are not part of what is generated: they are on both sides, and cancel. Raises InputError where all
    prompts are the same.
    """
    own, n = _untagged(arm, prompts, syntax), len(prompts)
    others = edited(prompts, arm.prompt_edits, syntax)

    def next_other(k: int) -> str:
        for step in range(1, n):
            if (other := others[(k + step) % n]) != own[k]:
                return other
        raise InputError(f"an unrelated prompt needs a study of at least two prompts; all {n} are {own[k]!r}")

    return _tagged(arm, [next_other(k) for k in range(n)], syntax)
