"""The captioned real images of the study, from which tag readers learn and on which chances are calibrated."""

from torch import Tensor

from eval.features.extraction import REFERENCE, extract, load_features, provenance_of
from eval.features.extractor import Extractor
from eval.scorers.tags import FEWEST, TagReader, fit_tag_reader, tags_of
from pipeline.errors import InputError
from pipeline.layout import FEATURES, REFERENCE_SET
from pipeline.storage.shards import read_set


def reference_captions() -> list[str]:
    """The captions of the reference set, in its order; none where there is no reference set. Raises InputError."""
    if next(REFERENCE_SET.glob("part-*.parquet"), None) is None:
        return []
    return [caption or "" for caption in read_set(REFERENCE_SET, ["prompt"])["prompt"].to_pylist()]


def reference_vectors(name: str, extractor: Extractor) -> Tensor:
    """The vectors [M, D] of the reference set: those that `measure` left where they are of this set and extractor."""
    path = FEATURES / REFERENCE / f"{name}.safetensors"
    if path.is_file():
        kept = load_features(path)
        if kept.provenance == provenance_of(REFERENCE_SET, name, extractor):
            return kept.images
    return extract(REFERENCE_SET, name, extractor).images


def tag_reader(name: str, extractor: Extractor, seed: int) -> tuple[TagReader, int]:
    """A reader of the tags in the captions of the reference set, and how many different tags these have.

    Raises InputError where there is no reference set or fewer than two of its tags can be read.
    """
    captions = reference_captions()
    if not captions:
        raise InputError(
            f"{REFERENCE_SET} has no images to learn tags from; `guidedrift run` makes it; or give words with "
            "--words FILE"
        )
    tags = {tag for caption in captions for tag in tags_of(caption)}
    reader = fit_tag_reader(reference_vectors(name, extractor), captions, seed)
    if reader is None:
        raise InputError(
            f"fewer than two of the {len(tags)} tags in the captions of {REFERENCE_SET} can be read; each needs "
            f"{FEWEST} images with it and {FEWEST} without: give words with --words FILE"
        )
    return reader, len(tags)
