"""Small classifiers of 64x64 images: their weights, and their answers to images of any size."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipeline.errors import InputError

CANVAS = 64


@torch.inference_mode()
def image_logits(network: Any, images: Iterable[Image.Image], device: torch.device, batch: int) -> torch.Tensor:
    """Logits [N, K] in double precision; images of another size are resized to 64x64 (bicubic).

    The network sees RGB in [-1, 1]. Raises ValueError for no images.
    """
    remaining = iter(images)
    parts = []
    while chunk := list(islice(remaining, batch)):
        arrays = [
            np.asarray(image.convert("RGB").resize((CANVAS, CANVAS), Image.Resampling.BICUBIC)) for image in chunk
        ]
        pixels = torch.from_numpy(np.stack(arrays)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        parts.append(network(pixels).double().cpu())
    if not parts:
        raise ValueError("a classifier needs at least one image")
    return torch.cat(parts)


def save_weights(network: Any, path: Path) -> None:
    """Write the weights in half precision (batch statistics too)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {n: t.half() if t.is_floating_point() else t for n, t in network.state_dict().items()}
    save_file({n: t.contiguous() for n, t in tensors.items()}, path)


def load_weights(network: Any, path: Path, name: str) -> None:
    """Fill a network with weights from safetensors, in single precision; `name` is what errors call it.

    Raises InputError.
    """
    try:
        network.load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in load_file(path).items()})
    except FileNotFoundError:
        raise InputError(f"{name} {path} is missing; `make train` makes the embedded one") from None
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{name} {path} cannot be read ({reason}); restore it or retrain it") from None
