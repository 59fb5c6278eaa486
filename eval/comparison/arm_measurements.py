"""The measurements of every arm, read and checked to fit: one instrument, one reference set, shared pairs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from eval.comparison.named_concepts import TaggedImages
from eval.comparison.paired_arms import ArmValues
from eval.comparison.pairing import check_pairing
from eval.features.extraction import CONCEPT_SET, SetFeatures, load_features
from eval.features.spaces import Space, check_comparable
from eval.scorers.kinds import KINDS
from eval.scorers.tags import tags_of
from eval.statistics.clusters import prompt_clusters
from pipeline.errors import InputError
from pipeline.layout import CONCEPTS, FEATURES, REFERENCE_SET, SCORES, SETS
from pipeline.prompting.plain_text import plain_text
from pipeline.results.comparison import Cost
from pipeline.results.image_scores import image_scores
from pipeline.results.metrics import of_level
from pipeline.storage.json_file import read_json_text
from pipeline.storage.shards import read_set, read_table
from pipeline.study.study import Study

# Per-image columns of data/scores whose differences are asked for, by the name of the set score.
PAIRED_SCORES = {row.name: row.column for row in of_level("image") if row.question}
# The scores that may name a direction of feature space.
NAMING = tuple(row.column for row in of_level("image") if row.names_directions)
# What a retouched image differs in (pipeline/study/arm.py: Retouch), which scores may pay for by themselves.
COLOUR_COLUMNS = ("saturation", "contrast")
KIND_COLUMNS = tuple(f"kind_{kind}" for kind in KINDS)

Arms = dict[str, ArmValues]


def check_one_instrument(arm: str, features: SetFeatures, reference: SetFeatures, measured: dict[str, Any]) -> None:
    """Raise InputError where an arm's features or scores come from another extractor or reference set."""
    check_comparable(arm, features, reference)
    for key, seen, wanted in (
        ("reference set", measured["reference"], reference.provenance["set"]),
        ("images", measured["set"], features.provenance["set"]),
    ):
        if seen != wanted:
            raise InputError(f"the scores of '{arm}' have {key} {seen}, the features {wanted}; run `dvc repro`")


def read_arms(study: Study, features: Mapping[str, SetFeatures], space: Space) -> Arms:
    """Features in a space and per-image scores of every arm, row k being pair k.

    Row k of the baseline from other seeds shares the prompt of pair k alone. `features` are those of the space's
    extractor. Raises InputError where arms do not form the pairs that the study says.
    """
    wanted = {*PAIRED_SCORES.values(), *NAMING, *COLOUR_COLUMNS, *KIND_COLUMNS}
    scored = [row.column for row in image_scores(study) if row.column in wanted or row.optional]
    columns = ["image_id", "pair_id", *scored]
    arms: Arms = {}
    pairs: dict[str, list[int]] = {}
    for name in study.arms:
        scores = read_table(SCORES / f"{name}.parquet", columns)
        if scores["image_id"].to_pylist() != features[name].ids:
            raise InputError(f"scores of '{name}' belong to other images than its features; run `dvc repro`")
        pairs[name] = scores["pair_id"].to_pylist()
        own = {column: torch.tensor(scores[column].to_pylist(), dtype=torch.float64) for column in columns[2:]}
        arms[name] = ArmValues(space(features[name].images).double(), own)
    check_pairing(study, pairs)
    return arms


def tagged_images(study: Study, reference: SetFeatures, captions: Sequence[str], space: Space) -> TaggedImages:
    """Real images in a space of the study's CLIP that are known to show what negative prompts name, or not.

    Those drawn for the purpose where there are any, and the reference set with its captions otherwise. Raises
    InputError where features and images do not belong together.
    """
    if not any(CONCEPTS.glob("*.parquet")):
        shown = [frozenset(tags_of(caption)) for caption in captions]
        return TaggedImages(space(reference.images), shown, torch.arange(len(captions)))
    features = load_features(FEATURES / CONCEPT_SET / f"{study.features.clip}.safetensors")
    check_comparable("images that show concepts", features, reference)
    table = read_set(CONCEPTS, ["image_id", "subject", "concept"])
    if table["image_id"].to_pylist() != features.ids:
        raise InputError(f"features of {CONCEPT_SET} belong to other images than {CONCEPTS}; run `dvc repro`")
    concepts = [frozenset({concept} - {""}) for concept in table["concept"].to_pylist()]
    return TaggedImages(space(features.images), concepts, torch.tensor(table["subject"].to_pylist()))


def named_by_negatives(study: Study) -> list[str]:
    """What the arms' negative prompts name, tag by tag, in the order of the arms."""
    texts = [plain_text(arm.used_negative, study.text) for arm in study.arms.values() if not arm.negative_from_prompt]
    return list(dict.fromkeys(tag for text in texts for tag in tags_of(text)))


def reference_captions(reference: SetFeatures) -> list[str]:
    """The captions of the reference images, in the order of their features. Raises InputError where they differ."""
    table = read_set(REFERENCE_SET, ["image_id", "prompt"])
    if table["image_id"].to_pylist() != reference.ids:
        raise InputError(f"features of the reference belong to other images than {REFERENCE_SET}; run `dvc repro`")
    captions: list[str] = table["prompt"].to_pylist()
    return captions


def prompt_numbers(study: Study) -> Tensor:
    """The number [N] of what each pair is resampled with: of its prompt, or its own (eval/statistics/clusters.py)."""
    prompts = asked_prompts(study)
    if study.external:
        # Of an image that does not say its prompt no one knows which others share it.
        prompts = [prompt or f"\0{k}" for k, prompt in enumerate(prompts)]
    numbers = prompt_clusters(prompts)
    return torch.arange(len(prompts)) if numbers is None else numbers


def asked_prompts(study: Study) -> list[str]:
    """What each of the N pairs was asked for: the baseline's prompts."""
    prompts: list[str] = read_set(SETS / study.baseline, ["prompt"])["prompt"].to_pylist()
    return prompts


def read_cost(path: Path) -> Cost | None:
    """What an arm's images cost; None where `generate` left no file. Raises InputError where it is unreadable."""
    if not path.exists():
        return None
    try:
        return Cost.model_validate_json(read_json_text(path))
    except ValidationError as error:
        raise InputError(f"{path}: {error.errors()[0]['msg']}; delete it and run `dvc repro`") from None


def read_detail(path: Path) -> dict[str, Any]:
    """The content of metrics/detail/<arm>.json. Raises InputError where it is missing or damaged."""
    try:
        content: dict[str, Any] = json.loads(read_json_text(path))
        return content
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; `dvc repro` makes it") from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); delete it and run `dvc repro`") from None
