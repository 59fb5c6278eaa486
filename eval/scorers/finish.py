"""The finish of an image, measured on its pixels: saturation, contrast and sharpness.

No network is asked, so these see what CLIP-like features are blind to, a blur for one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

# BT.601's luma, the weights of Pillow's convert("L").
_LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)


@dataclass(frozen=True)
class Finish:
    """Per-image numbers [N], float64, of pixels in [0, 1].

    `saturation` in [0, 1]: mean of HSV's saturation (max - min) / max over the pixels, black having none.
    `contrast` in [0, 0.5]: standard deviation of the luma (RMS contrast, Peli 1990).
    `sharpness` >= 0: variance of the luma's 4-neighbour Laplacian over the inner pixels (Pech-Pacheco et al. 2000).
    Noise and compression raise it, too, and it falls with resolution: compare images of one canvas.
    """

    saturation: Tensor
    contrast: Tensor
    sharpness: Tensor


def finish(images: Iterable[Image.Image]) -> Finish:
    """The finish of images of at least 3x3 pixels, one at a time. Raises ValueError for smaller ones."""
    rows = []
    for image in images:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).double() / 255  # [H, W, 3]
        if min(pixels.shape[:2]) < 3:
            raise ValueError(f"sharpness needs images of at least 3x3 pixels, found {image.width}x{image.height}")
        highest, lowest = pixels.amax(2), pixels.amin(2)
        luma = pixels @ _LUMA
        inner = luma[1:-1, 1:-1]
        laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
        saturation = ((highest - lowest) / highest.clamp(min=1 / 255)).mean()
        rows.append(torch.stack([saturation, luma.std(correction=0), laplacian.var(correction=0)]))
    if not rows:
        raise ValueError("finish needs at least 1 image, found 0")
    return Finish(*torch.stack(rows, 1))
