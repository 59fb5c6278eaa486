"""What a denoising network is told besides the noisy image and the noise level."""

from collections.abc import Iterator, Mapping, Sequence

import torch

from pipeline.guidance.algebra import Prediction, Text
from pipeline.guidance.chance import Chance
from pipeline.guidance.references import ConditionNoise


class Conditioning(Mapping[str, torch.Tensor]):
    """The texts of a batch as a network reads them: tensors by name, each with a row [B, ...] for every sample.

    `tokens` [B, L, W] are for cross-attention; where they come with `read` [B, L], the network reads those of them for
    which it is true, at the beginning. What else there is, its family says: SDXL also reads `pooled` [B, P] and
    `time_ids` [B, 6], original height and width, top and left of the crop, target height and width, in pixels
    (arXiv 2307.01952), a UNet that inpaints `around` [B, 1 + C, H, W], the mask and the latents outside it, and one
    that reads images `image_tokens` [B, N, T, W], T of each of N images. For an evaluation that is steered away from a
    second text there are also its `negative_tokens` [B, L, W], maybe its `negative_pooled` [B, P] and `negative_read`
    [B, L] and, where that is known, `negative_unpadded` [B, L], which says of each token whether it is of the text and
    no padding. Raises ValueError
    where the numbers of rows differ.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]):
        self._tensors = dict(tensors)
        if len({len(tensor) for tensor in self._tensors.values()}) > 1:
            rows = {name: len(tensor) for name, tensor in self._tensors.items()}
            raise ValueError(f"conditions of one batch need one number of rows, found {rows}")

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def adding(self, more: Mapping[str, torch.Tensor]) -> "Conditioning":
        """These conditions and `more`, in whose place others of the same name do not stay."""
        return Conditioning({**self._tensors, **more})

    def rows(self, which: slice) -> "Conditioning":
        """What the network is told of some samples of the batch alone."""
        return Conditioning({name: tensor[which] for name, tensor in self._tensors.items()})

    def zeroed(self, rows: Sequence[bool]) -> "Conditioning":
        """Zeros in the `rows` that are true [B], the others as they are."""
        keep = ~torch.tensor(rows)
        return Conditioning({name: t * keep.to(t).view(-1, *(1,) * (t.ndim - 1)) for name, t in self._tensors.items()})


def joined(parts: Sequence[Conditioning]) -> Conditioning:
    """The batches one after the other.

    Raises ValueError where their texts have different lengths or other conditions.
    """
    names = list(parts[0])
    if any(set(part) != set(names) for part in parts):
        raise ValueError(f"texts of one call need the same conditions, found {sorted({tuple(part) for part in parts})}")
    lengths = sorted({part[name].shape[1] for part in parts for name in names if part[name].ndim == 3})
    if len(lengths) > 1:
        raise ValueError(f"texts of one call need one number of tokens, found {lengths}")
    return Conditioning({name: torch.cat([part[name] for part in parts]) for name in names})


# What is told of a second text.
_OF_SECOND = ("tokens", "pooled", "read", "unpadded")


def told(texts: Mapping[Text, Conditioning], prediction: Prediction) -> Conditioning:
    """What the network is told for a prediction, of the `texts` of a batch by name.

    A text may come with `unpadded` [B, L], which is told of the second text alone.
    """
    own, *second = (texts[text] for text in prediction.texts)
    tensors = {name: own[name] for name in own if name != "unpadded"}
    for other in second:
        tensors |= {f"negative_{name}": other[name] for name in _OF_SECOND if name in other}
    return Conditioning(tensors)


def noised(told: Conditioning, noise: ConditionNoise | None, left: float, chance: Chance) -> Conditioning:
    """`told` with `noise` on its embeddings when the share `left` of the steps is to come.

    What else a network is told (sizes) stays. Mean and standard deviation are those of each sample's embedding, as far
    as the network reads it.
    """
    kept = 1.0 if noise is None else noise.kept(left)
    if noise is None or kept == 1 or noise.scale == 0:
        return told
    changed = {}
    for name in ("tokens", "pooled"):
        if name not in told:
            continue
        y = told[name].float()
        n = chance.normal(f"noise of {name}", *y.shape[1:]).to(y)
        disturbed = kept**0.5 * y + noise.scale * (1 - kept) ** 0.5 * n
        read = told.get("read") if name == "tokens" else None
        (own_mean, own_deviation), (mean, deviation) = (_mean_and_deviation(x, read) for x in (y, disturbed))
        again = (disturbed - mean) / deviation * own_deviation + own_mean
        changed[name] = noise.rescale * again + (1 - noise.rescale) * disturbed
    return told.adding(changed)


def _mean_and_deviation(embedding: torch.Tensor, read: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each row of [B, ...], with as many axes; of [B, L, W] only the tokens for which `read` [B, L] is true."""
    rows = embedding.unbind() if read is None else [row[own] for row, own in zip(embedding, read, strict=True)]
    shape = (-1, *(1,) * (embedding.ndim - 1))
    return torch.stack([row.mean() for row in rows]).view(shape), torch.stack([row.std() for row in rows]).view(shape)


def degraded(
    told: Conditioning, empty: Conditioning, content: torch.Tensor, share: float, draws: Chance
) -> Conditioning:
    """`told` with a `share` of its content tokens as `empty` has them at their places.

    `content` [B, L] is true where a token is one of the text and no mark or padding. Which are degraded is drawn for
    each sample; the pooled embedding stays.
    """
    chosen = content & (draws.uniform("degraded tokens", content.shape[1]) < share).to(content.device)
    return told.adding({"tokens": torch.where(chosen[..., None], empty["tokens"], told["tokens"])})
