"""Diversity within a prompt: how far pictures of one prompt lie apart by LPIPS (Zhang et al., 1801.03924)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from eval.extractor import weights_digest
from pipeline.errors import InputError

_FETCH = "hf download timm/vgg16.tv_in1k model.safetensors --local-dir"
BATCH = 16
# A picture is compared with at most this many others of its prompt: all pairs of a prompt grow as its square.
PARTNERS = 8

Distance = Callable[[Tensor, Tensor], Tensor]


def load_lpips(weights: Path, device: torch.device) -> tuple[Distance, str]:
    """torchmetrics' LPIPS over a VGG16 whose convolutions come from `weights`, and the digest of that file.

    `weights` is safetensors with torchvision's names; the linear layers of LPIPS come with torchmetrics. The distance
    takes two batches [B, 3, H, W] in [-1, 1] and gives [B]. Raises InputError.
    """
    # Here and not above: it takes a second to import, and only studies with `metrics.lpips` have this number.
    from torchmetrics.functional.image.lpips import _LPIPS

    fetch = f"{_FETCH} {weights.parent}"
    digest = weights_digest([weights], fetch)
    network = _LPIPS(pretrained=True, net="vgg", pnet_rand=True)
    # torchmetrics cuts the convolutions into five slices and keeps torchvision's numbers as names.
    slices = (network.net.slice1, network.net.slice2, network.net.slice3, network.net.slice4, network.net.slice5)
    try:
        tensors = load_file(weights)
        for name, layer in (child for one in slices for child in one.named_children()):
            layer.load_state_dict({key: tensors[f"features.{name}.{key}"] for key in layer.state_dict()})
    except (SafetensorError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{weights} is no VGG16 ({reason}); get it with `{fetch}`") from None
    network = network.to(device).eval().requires_grad_(False)

    @torch.inference_mode()
    def distance(a: Tensor, b: Tensor) -> Tensor:
        return network(a.to(device), b.to(device)).flatten().double().cpu()  # type: ignore[no-any-return]

    return distance, digest


def check_repeats(prompts: Tensor) -> None:
    """Raise ValueError where no prompt of `prompts` [N] int64 has two pictures, or one of several alone.

    Pictures of one prompt are resampled together, and of one there is nothing to resample.
    """
    names, counts = torch.unique(prompts, return_counts=True)
    repeated = int((counts > 1).sum())
    if not repeated:
        raise ValueError(f"LPIPS within a prompt needs a prompt with 2 pictures; {len(names)} prompts have 1 each")
    if repeated == 1 < len(names):
        raise ValueError(
            f"LPIPS within a prompt needs 2 prompts with 2 pictures for its interval; of {len(names)} one has"
        )


def within_prompt_lpips(
    picture: Callable[[int], Image.Image], prompts: Tensor, distance: Distance, seed: int
) -> Tensor:
    """Each picture's mean LPIPS [N] float64 to others of its prompt, NaN for pictures that are alone with theirs.

    `picture` gives picture k, `prompts` [N] int64 its prompt's number. Where a prompt has more than PARTNERS + 1
    pictures, they are put in a ring by the seed and compared with the PARTNERS nearest; otherwise all pairs count.
    The mean over a prompt's pictures is that over its pairs.
    Raises ValueError where no prompt repeats.
    """
    check_repeats(prompts)
    pairs = _pairs(prompts, seed)
    sums, counts = torch.zeros(len(prompts), dtype=torch.float64), torch.zeros(len(prompts), dtype=torch.float64)
    for start in range(0, len(pairs), BATCH):
        a, b = pairs[start : start + BATCH].T
        found = distance(_pixels(picture, a), _pixels(picture, b))
        for end in (a, b):
            sums.index_add_(0, end, found)
            counts.index_add_(0, end, torch.ones_like(found))
    # 0 / 0 where a picture has no partner.
    return sums / counts


def _pairs(prompts: Tensor, seed: int) -> Tensor:
    """The pictures [P, 2] of each pair."""
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for prompt in torch.unique(prompts).tolist():
        members = (prompts == prompt).nonzero().flatten()
        ring = members[torch.randperm(len(members), generator=generator)]
        n = len(ring)
        if n <= PARTNERS + 1:
            pairs.append(torch.combinations(ring))
        else:
            pairs += [torch.stack([ring, ring.roll(-step)], 1) for step in range(1, PARTNERS // 2 + 1)]
    return torch.cat(pairs)


def _pixels(picture: Callable[[int], Image.Image], numbers: Tensor) -> Tensor:
    arrays = [np.array(picture(k).convert("RGB")) for k in numbers.tolist()]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1
