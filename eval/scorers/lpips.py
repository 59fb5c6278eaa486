"""Diversity within a prompt: how far images of one prompt lie apart by LPIPS (Zhang et al., 1801.03924)."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from eval.features.extractor import weights_digest
from eval.statistics.clusters import prompt_clusters
from pipeline.errors import InputError
from pipeline.study.scorers import SINGLE_FILES

BATCH = 16
# An image is compared with at most this many others of its prompt: all pairs of a prompt grow as its square.
PARTNERS = 8

Distance = Callable[[Tensor, Tensor], Tensor]


def load_lpips(weights: Path, device: torch.device) -> tuple[Distance, str]:
    """torchmetrics' LPIPS over a VGG16 whose convolutions come from `weights`, and the digest of that file.

    `weights` is safetensors with torchvision's names; the linear layers of LPIPS come with torchmetrics. The distance
    takes two batches [B, 3, H, W] in [-1, 1] and gives [B]. Raises InputError.
    """
    # Here and not above: it takes a second to import, and only studies with `metrics.lpips` have this number.
    from torchmetrics.functional.image.lpips import _LPIPS

    fetch = SINGLE_FILES["lpips"].command(weights)
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
        raise InputError(f"{weights} is not VGG16 ({reason}); get it with `{fetch}`") from None
    network = network.to(device).eval().requires_grad_(False)

    @torch.inference_mode()
    def distance(a: Tensor, b: Tensor) -> Tensor:
        return network(a.to(device), b.to(device)).flatten().double().cpu()  # type: ignore[no-any-return]

    return distance, digest


def check_repeats(prompts: Sequence[str]) -> None:
    """Raise ValueError where the images of `prompts` [N] give no two independent distances, which an interval needs.

    Distances within one prompt are independent where no image is in two of them; of prompts that are resampled whole
    (eval/statistics/clusters.py), each counts once.
    """
    counts = Counter(prompts)
    repeated = sum(count > 1 for count in counts.values())
    if not repeated:
        raise ValueError(f"LPIPS within a prompt needs a prompt with 2 images; {len(counts)} prompts have 1 each")
    if prompt_clusters(prompts) is not None:
        if repeated == 1:
            raise ValueError(
                f"LPIPS within a prompt needs 2 prompts with 2 images for its interval; of {len(counts)} one has"
            )
    elif sum(count // 2 for count in counts.values()) == 1:
        raise ValueError(
            "LPIPS within a prompt needs 2 pairs of images of one prompt for its interval, found 1 among "
            f"{len(prompts)} images"
        )


def within_prompt_lpips(
    image: Callable[[int], Image.Image], prompts: Sequence[str], distance: Distance, seed: int
) -> Tensor:
    """Each image's mean LPIPS [N] float64 to others of its prompt, NaN for those that are compared with none.

    `image` gives image k, `prompts` [N] its prompt. Where prompts are resampled whole (clusters.py), all pairs
    of a prompt count; in one of more than PARTNERS + 1 images these are put in a ring by the seed and compared with
    the PARTNERS nearest. The mean over a prompt's images is then that over its pairs.
    Where images are resampled one by one, each is in one pair at most, whose distance is the value of one of the two:
    distances that share images are not independent, and intervals over them would be half as wide as they should be.
    Raises ValueError where no prompt repeats.
    """
    check_repeats(prompts)
    together = prompt_clusters(prompts)
    names = {prompt: k for k, prompt in enumerate(dict.fromkeys(prompts))}
    numbers = torch.tensor([names[prompt] for prompt in prompts])
    pairs = _apart(numbers, seed) if together is None else _pairs(numbers, seed)
    sums, counts = torch.zeros(len(prompts), dtype=torch.float64), torch.zeros(len(prompts), dtype=torch.float64)
    for start in range(0, len(pairs), BATCH):
        a, b = pairs[start : start + BATCH].T
        found = distance(_pixels(image, a), _pixels(image, b))
        for end in (a,) if together is None else (a, b):
            sums.index_add_(0, end, found)
            counts.index_add_(0, end, torch.ones_like(found))
    # 0 / 0 where an image has no partner.
    return sums / counts


def _apart(prompts: Tensor, seed: int) -> Tensor:
    """The images [P, 2] of pairs that share none."""
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for prompt in torch.unique(prompts).tolist():
        members = (prompts == prompt).nonzero().flatten()
        shuffled = members[torch.randperm(len(members), generator=generator)]
        pairs.append(shuffled[: len(members) // 2 * 2].reshape(-1, 2))
    return torch.cat(pairs)


def _pairs(prompts: Tensor, seed: int) -> Tensor:
    """The images [P, 2] of each pair that counts."""
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


def _pixels(image: Callable[[int], Image.Image], numbers: Tensor) -> Tensor:
    arrays = [np.array(image(k).convert("RGB")) for k in numbers.tolist()]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1
