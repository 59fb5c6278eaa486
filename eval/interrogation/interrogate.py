"""From images to prompts: which tags of the reference set's captions, or which words of a list, each of them shows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from PIL import Image

from eval.features.clip import Clip
from eval.features.extraction import load_extractor
from eval.features.extractor import Extractor, embed_images
from eval.interrogation.asked_images import AskedImage, AskedImages
from eval.interrogation.captions import Chances
from eval.interrogation.reference_images import reference_captions, reference_vectors, tag_reader
from eval.interrogation.word_list import KEY, read_words
from eval.interrogation.word_reader import FEWEST, WordReader, calibrated, named_once, word_reader
from eval.scorers.tags import READABLE, TagReader
from pipeline.compose import compose
from pipeline.errors import InputError
from pipeline.layout import CONF, REFERENCE_SET
from pipeline.study.study import Extractor as ExtractorSettings
from pipeline.study.study import Study


@dataclass(frozen=True)
class Interrogator:
    """What reads images: readers of the vectors of an extractor, and what to know of their chances (`said`)."""

    extractor: Extractor
    readers: Sequence[TagReader | WordReader]
    said: tuple[str, ...]

    def __call__(self, asked: AskedImages) -> list[tuple[AskedImage, Chances]]:
        """The chances of all tags for each image. Raises InputError for an image that cannot be read."""
        images: list[AskedImage] = []

        def pixels() -> Iterator[Image.Image]:
            for image, opened in asked.opened():
                images.append(image)
                yield opened

        vectors = embed_images(self.extractor, pixels())
        tags = [tag for reader in self.readers for tag in reader.tags]
        rows = torch.cat([reader(vectors) for reader in self.readers], 1).tolist()
        return [(image, dict(zip(tags, row, strict=True))) for image, row in zip(images, rows, strict=True)]


def interrogator(
    study: Study, device: torch.device, words: Sequence[Path] = (), features: str | None = None
) -> Interrogator:
    """What reads the tags of the reference set's captions; with files of `words`, what reads these.

    The vectors are those of the study's CLIP, or of the extractor of conf/features that is named. Raises InputError.
    """
    lists = {path: read_words(path) for path in words}
    _check_apart(lists)
    name, settings = _extractor(study, features)
    if lists and not settings.kind.reads_prompts:
        raise InputError(
            f"{KEY} needs a CLIP, and extractor {name} reads no words; name one of conf/features, for instance "
            "--features clip_vit_l_14"
        )
    extractor = load_extractor(settings, device)
    if not lists:
        reader, known = tag_reader(name, extractor, study.metrics.seed)
        said = (
            f"{len(reader.tags)} of the {known} tags in the captions of {REFERENCE_SET} can be read by {name} (area "
            f"under the ROC curve at least {READABLE}); the others are left out"
        )
        return Interrogator(extractor, [reader], (said,))
    assert isinstance(extractor, Clip)
    captions, vectors = reference_captions(), cache(partial(reference_vectors, name, extractor))
    found = [_word_reader(own, extractor, captions, vectors) for own in lists.values()]
    return Interrogator(extractor, found, tuple(_said(path, one) for path, one in zip(lists, found, strict=True)))


def _extractor(study: Study, name: str | None) -> tuple[str, ExtractorSettings]:
    own = study.features
    name = name or own.clip or own.spaces[0].extractor
    if name in own.extractors:
        return name, own.extractors[name]
    composed = compose(CONF, [f"features=[{name}]"])["features"]["extractors"]
    return name, ExtractorSettings.model_validate(composed[name])


def _check_apart(lists: dict[Path, list[str]]) -> None:
    seen: dict[str, Path] = {}
    for path, words in lists.items():
        for word in words:
            if word in seen:
                raise InputError(f"{KEY} {path} and {seen[word]} both have the word '{word}'; take it out of one")
            seen[word] = path


def _word_reader(
    words: Sequence[str], clip: Clip, captions: Sequence[str], vectors: Callable[[], torch.Tensor]
) -> WordReader:
    reader = word_reader(words, clip)
    # Vectors of a large CLIP take minutes, and are computed only where they are of use.
    return reader if len(named_once(words, captions)) < FEWEST else calibrated(reader, vectors(), captions)


def _said(path: Path, reader: WordReader) -> str:
    how = (
        f"calibrated on {reader.calibrated_on} captions of {REFERENCE_SET}"
        if reader.calibrated_on
        else f"not calibrated, as fewer than {FEWEST} captions of {REFERENCE_SET} name one of them, and may be too sure"
    )
    return f"{len(reader.tags)} words of {path.name}; an image is taken to show one of them; chances are {how}"
