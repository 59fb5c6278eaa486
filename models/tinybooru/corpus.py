"""Training images and captions of tinybooru, in memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.errors import InputError
from pipeline.storage.files import fingerprint
from pipeline.storage.shards import decode_images, read_set, shard_fingerprint, shard_paths
from pipeline.tinybooru.build import WORLD_VERSION, truths_of
from pipeline.tinybooru.flaws import FLAWS, IMAGE_FLAWS, QUALITIES, STRUCTURE_FLAWS
from pipeline.tinybooru.image import Plan

# What is known of an image and kept here, by its column in a shard.
TRUTHS = (
    "tags", "kind", "style", "quality", "hair", "background", "glasses", "malformed", "digits", "arms", "legs",
    "countable",
)  # fmt: skip


@dataclass(frozen=True)
class Corpus:
    """`pixels`: uint8 [N, 3, H, W]; `tags`: one tag list an image; the rest: exact truth, one value an image.

    `hair` and `background` are colours, empty where the image has none to name; `digits`, `arms` and `legs` None where
    it has none to count, and `countable` says whether no flaw of the finish hides them. `mark` stands for all of it.
    """

    pixels: torch.Tensor
    tags: list[list[str]]
    kind: list[str]
    style: list[str]
    quality: list[str]
    hair: list[str]
    background: list[str]
    glasses: torch.Tensor
    malformed: torch.Tensor
    digits: list[int | None]
    arms: list[int | None]
    legs: list[int | None]
    countable: list[bool]
    mark: str

    def __len__(self) -> int:
        return len(self.tags)

    def images(self) -> Iterator[Image.Image]:
        """The images, one after another."""
        return (Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in self.pixels)

    def captions(self) -> list[str]:
        """The full captions."""
        return [", ".join(tags) for tags in self.tags]


def load_corpus(folder: Path) -> Corpus:
    """Load all shards of one split. Raises InputError where there are none."""

    if not folder.is_dir():
        raise InputError(f"{folder} does not exist; `python -m pipeline.tinybooru.build` draws it")
    table = read_set(folder)
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in decode_images(table)]))
    truths = {name: table.column(name).to_pylist() for name in TRUTHS}
    mark = fingerprint([shard_fingerprint(path) for path in shard_paths(folder)])
    return _corpus(pixels.permute(0, 3, 1, 2).contiguous(), truths, mark)


def corpus_of(pixels: torch.Tensor, plans: Sequence[Plan]) -> Corpus:
    """The corpus of images uint8 [N, 3, H, W] drawn after `plans`."""
    rows = [truths_of(planned) for planned in plans]
    mark = fingerprint(["tinybooru", WORLD_VERSION, [(p.seed, p.index) for p in plans]])
    return _corpus(pixels, {name: [row[name] for row in rows] for name in TRUTHS}, mark)


def _corpus(pixels: torch.Tensor, truths: Mapping[str, list[Any]], mark: str) -> Corpus:
    as_tensors: dict[str, Any] = {name: torch.tensor(truths[name]) for name in ("glasses", "malformed")}
    return Corpus(pixels, **{**truths, **as_tensors}, mark=mark)


# Chances per image and step. Without these, a negative prompt of quality and flaw tags alone would be a kind of
# text that the network has never seen.
JUDGEMENT_DROPOUT = 0.25  # of the quality tag and the flaws of the finish, together
STRUCTURE_DROPOUT = 0.25  # of each flaw of structure, as long as another one is left
ONLY_JUDGEMENT = 0.04  # keep nothing but the quality and flaw tags
SHUFFLED = 0.25


def caption(
    tags: list[str],
    rng: np.random.Generator,
    whole_prompt_dropout: float,
    tag_dropout: float,
    kept_tag: str | None = None,
) -> str:
    """A training caption: tags dropped at random, sometimes shuffled, sometimes empty.

    A flaw of structure (bad hands, extra limbs, ...) is never left out altogether, unless all tags are: a caption that
    names none is of a sound person, and what a network then draws wrong is its own error.

    `whole_prompt_dropout` and `tag_dropout` are chances in [0, 1], of an image and of each tag; `kept_tag` is never
    dropped.
    """
    draw = rng.random(4)
    if draw[0] < whole_prompt_dropout and kept_tag is None:
        return ""
    judgements = {*QUALITIES, *FLAWS}
    if draw[1] < ONLY_JUDGEMENT:
        kept = [tag for tag in tags if tag in judgements or tag == kept_tag]
    else:
        judged = draw[2] >= JUDGEMENT_DROPOUT
        chance = rng.random(len(tags))
        structure = [k for k, tag in enumerate(tags) if tag in STRUCTURE_FLAWS]
        # The luckiest flaw of structure stays.
        named = {k for k in structure if chance[k] >= STRUCTURE_DROPOUT or chance[k] == max(chance[structure])}
        kept = [
            tag
            for k, tag in enumerate(tags)
            if tag == kept_tag
            or k in named
            or (judged and (tag in QUALITIES or tag in IMAGE_FLAWS))
            or (tag not in judgements and chance[k] >= tag_dropout)
        ]
    if draw[3] < SHUFFLED:
        rng.shuffle(kept)
    return ", ".join(kept)
