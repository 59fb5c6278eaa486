"""How right interrogation is: held-out images of the embedded world, whose tags are known.

`python -m eval.interrogation.accuracy` measures it for the study of params.yaml.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from eval.features.clip import Clip
from eval.features.extraction import load_extractor
from eval.features.extractor import embed_images
from eval.interrogation.reference_images import reference_captions, reference_vectors, tag_reader
from eval.interrogation.word_reader import calibrated, word_reader
from pipeline.errors import InputError, run_stage
from pipeline.execution.executor import local_devices
from pipeline.study.study import TINYBOORU, load_study

_BINS = 10


@dataclass(frozen=True)
class Accuracy:
    """How right chances are, at 0.5 and as chances.

    `precision` is the share of tags of chance 0.5 and more that images show, `recall` the share of tags shown that have
    such a chance, `calibration_error` how far chances lie from shares.
    """

    precision: float
    recall: float
    calibration_error: float

    def __str__(self) -> str:
        return (
            f"precision {self.precision:.3f}, recall {self.recall:.3f}, calibration error {self.calibration_error:.3f}"
        )


def accuracy(chances: Tensor, shown: Tensor) -> Accuracy:
    """The accuracy of `chances` [N, T] of tags that images show or not, `shown` [N, T] bool."""
    said = chances >= 0.5
    right = (said & shown).sum()
    return Accuracy(
        float(right / said.sum().clamp(min=1)),
        float(right / shown.sum().clamp(min=1)),
        calibration_error(chances, shown),
    )


def calibration_error(chances: Tensor, happened: Tensor) -> float:
    """The expected calibration error (Guo et al., 1706.04599, equation 3) of chances of events, of equal shape.

    The mean over ten bins of equal width of how far the mean chance lies from the share that happened.
    """
    chance, event = chances.flatten().double(), happened.flatten().double()
    places = (chance * _BINS).long().clamp(0, _BINS - 1)
    gaps = torch.zeros(_BINS, dtype=torch.float64).index_add(0, places, chance - event)
    return float(gaps.abs().sum() / len(chance))


def shown_tags(tags: Sequence[str], images: Sequence[Sequence[str]]) -> Tensor:
    """Which tags [N, T] bool images show that have these tags."""
    return torch.tensor([[tag in own for tag in tags] for own in images])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m eval.interrogation.accuracy", description=__doc__)
    parser.add_argument("--images", type=int, default=400, help="held-out images (default: 400)")
    images = parser.parse_args().images
    from pipeline.tinybooru.build import CANVAS, draw_all, plans  # with libraries that draw, which only this needs
    from pipeline.tinybooru.colours import HAIR_COLOURS

    study = load_study()
    name = study.features.clip
    if study.reference.source != TINYBOORU or name is None:
        raise InputError("tags are known of tinybooru alone; take a study with reference.source=tinybooru and a CLIP")
    clip = load_extractor(study.features.extractors[name], local_devices()[0])
    assert isinstance(clip, Clip)
    reader, known = tag_reader(name, clip, study.metrics.seed)
    captions = reference_captions()
    print(f"{len(captions)} reference images, {images} held-out ones; {len(reader.tags)} of {known} tags can be read")
    for title, good_only in (
        ("of good quality, as the reference set", True),
        ("of every quality and with flaws", False),
    ):
        wanted = list(islice(plans("validation", study.reference.world_seed, good_only), images))
        vectors = embed_images(clip, draw_all(wanted, CANVAS, title))
        tags = [planned.tags for planned in wanted]
        print(f"{title}: {accuracy(reader(vectors), shown_tags(reader.tags, tags))}")
        words = word_reader([f"{colour} hair" for colour in HAIR_COLOURS], clip)
        for reads in (words, calibrated(words, reference_vectors(name, clip), captions)):
            shown = shown_tags(reads.tags, tags)
            one = shown.sum(1) == 1
            chance, first = reads(vectors)[one].max(1)
            right = shown[one][torch.arange(int(one.sum())), first]
            how = f"calibrated on {reads.calibrated_on} captions" if reads.calibrated_on else "not calibrated"
            print(
                f"  {len(reads.tags)} words for the hair of {len(right)} people, {how}: the likeliest is right in "
                f"{right.double().mean():.3f}, its mean chance {chance.mean():.3f}, calibration error "
                f"{calibration_error(chance, right):.3f}"
            )


if __name__ == "__main__":
    run_stage(main)
