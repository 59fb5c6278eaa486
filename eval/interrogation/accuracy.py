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
from eval.notation import quoted
from eval.statistics.bootstrap import bounded
from eval.statistics.jackknife import Replicates
from pipeline.errors import InputError, run_stage
from pipeline.execution.executor import local_devices
from pipeline.results.interval import Interval
from pipeline.study.study import TINYBOORU, Study, load_study

IMAGES = 400
_BINS = 10


@dataclass(frozen=True)
class Accuracy:
    """How right chances are, at 0.5 and as chances.

    `precision` is the share of tags of chance 0.5 and more that images show, `recall` the share of tags shown that have
    such a chance, both with their intervals over images; `calibration_error` is how far chances lie from shares.
    """

    precision: Interval
    recall: Interval
    calibration_error: float

    def __str__(self) -> str:
        return (
            f"precision {quoted(self.precision)}, recall {quoted(self.recall)}, "
            f"calibration error {self.calibration_error:.3f}"
        )


def accuracy(chances: Tensor, shown: Tensor, level: float = 0.95) -> Accuracy:
    """The accuracy of `chances` [N, T] of tags that images show or not, `shown` [N, T] bool.

    Raises InputError where no tag has a chance of 0.5 or none is shown.
    """
    said = chances >= 0.5
    right = (said & shown).sum(1)
    return Accuracy(
        _share(right, said.sum(1), level),
        _share(right, shown.sum(1), level),
        calibration_error(chances, shown),
    )


def _share(part: Tensor, whole: Tensor, level: float) -> Interval:
    """The sum of `part` [N] over that of `whole` [N], with its interval over images by the jackknife."""
    if not whole.any():
        raise InputError("a share of no tags has no value: no image shows a tag, or none has a chance of 0.5")
    part, whole = part.double(), whole.double()
    without = (part.sum() - part) / (whole.sum() - whole).clamp(min=1)
    share = Replicates(float(part.sum() / whole.sum()), without, len(part))
    return bounded(share.interval(level), 0, 1)


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


@dataclass(frozen=True)
class Measured:
    """The accuracy on held-out images: of good quality, as those of the reference set, and of every quality.

    `readable` of `known` tags can be read, learned from `reference` images; `clip` is the digest of the CLIP.
    """

    clip: str
    reference: int
    images: int
    known: int
    readable: int
    good: Accuracy
    every: Accuracy


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m eval.interrogation.accuracy", description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES, help=f"held-out images (default: {IMAGES})")
    print_accuracy(load_study(), parser.parse_args().images)


def print_accuracy(study: Study, images: int) -> Measured:
    """Measure it for a study whose reference set is drawn, and print it. Raises InputError for other reference sets."""
    from pipeline.tinybooru.build import CANVAS, draw_all, plans  # with libraries that draw, which only this needs
    from pipeline.tinybooru.colours import HAIR_COLOURS

    name = study.features.clip
    if study.reference.source != TINYBOORU or name is None:
        raise InputError("tags are known of tinybooru alone; take a study with reference.source=tinybooru and a CLIP")
    clip = load_extractor(study.features.extractors[name], local_devices()[0])
    assert isinstance(clip, Clip)
    reader, known = tag_reader(name, clip, study.metrics.seed)
    captions = reference_captions()
    print(f"{len(captions)} reference images, {images} held-out ones; {len(reader.tags)} of {known} tags can be read")
    found = []
    for title, good_only in (
        ("of good quality, as the reference set", True),
        ("of every quality and with flaws", False),
    ):
        wanted = list(islice(plans("validation", study.reference.world_seed, good_only), images))
        vectors = embed_images(clip, draw_all(wanted, CANVAS, title))
        tags = [planned.tags for planned in wanted]
        found.append(accuracy(reader(vectors), shown_tags(reader.tags, tags)))
        print(f"{title}: {found[-1]}")
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
    good, every = found
    return Measured(clip.digest, len(captions), images, known, len(reader.tags), good, every)


if __name__ == "__main__":
    run_stage(main)
