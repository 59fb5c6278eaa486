"""Training images and captions of tinybooru, in memory."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import InputError
from pipeline.storage.files import fingerprint
from pipeline.storage.shards import decode_images, read_set, shard_fingerprint, shard_paths
from pipeline.tinybooru.flaws import FLAWS, QUALITIES


@dataclass(frozen=True)
class Corpus:
    """`pixels`: uint8 [N, 3, H, W]; `tags`: one tag list an image; the rest: exact truth, one value an image.

    `hair` and `background` are colours, empty where the image has none to name. `mark` stands for all of it.
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
    mark: str

    def __len__(self) -> int:
        return len(self.tags)

    def captions(self) -> list[str]:
        """The full captions."""
        return [", ".join(tags) for tags in self.tags]


def load_corpus(folder: Path) -> Corpus:
    """Load all shards of one split. Raises InputError where there are none."""
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist; `python -m models.tinybooru.train` draws it and trains with it")
    table = read_set(folder)
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in decode_images(table)]))
    return Corpus(
        pixels.permute(0, 3, 1, 2).contiguous(),
        table.column("tags").to_pylist(),
        table.column("kind").to_pylist(),
        table.column("style").to_pylist(),
        table.column("quality").to_pylist(),
        table.column("hair").to_pylist(),
        table.column("background").to_pylist(),
        torch.tensor(table.column("glasses").to_pylist()),
        torch.tensor(table.column("malformed").to_pylist()),
        fingerprint([shard_fingerprint(path) for path in shard_paths(folder)]),
    )


# Chances per image and step. Without these, a negative prompt of quality and flaw tags alone would be a kind of
# text that the network has never seen.
JUDGEMENT_DROPOUT = 0.25  # of the quality and flaw tags, together
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
        keep = rng.random(len(tags)) >= tag_dropout
        kept = [
            tag for tag, k in zip(tags, keep, strict=True) if tag == kept_tag or (judged if tag in judgements else k)
        ]
    if draw[3] < SHUFFLED:
        rng.shuffle(kept)
    return ", ".join(kept)
