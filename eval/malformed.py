"""P(malformed): a small convolutional classifier of malformed people."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models.resnet import BasicBlock, ResNet

from pipeline.errors import InputError

CANVAS = 64


def build_classifier() -> Any:
    """timm's ResNet with a deep stem, narrow: 64x64 RGB in [-1, 1] to one logit."""
    return ResNet(
        BasicBlock, layers=(1, 1, 1, 1), channels=(32, 64, 96, 128), stem_width=16, stem_type="deep", num_classes=1
    )


class MalformedClassifier:
    """The chance that a picture is of a malformed person."""

    def __init__(self, network: Any, device: torch.device):
        self.network, self.device = network.to(device).eval(), device

    @torch.inference_mode()
    def __call__(self, images: Iterable[Image.Image], batch: int = 256) -> torch.Tensor:
        """P(malformed) [N] in [0, 1]; pictures of another size are resized to 64x64 (bicubic)."""
        remaining = iter(images)
        parts = []
        while chunk := list(islice(remaining, batch)):
            arrays = [
                np.asarray(image.convert("RGB").resize((CANVAS, CANVAS), Image.Resampling.BICUBIC)) for image in chunk
            ]
            pixels = torch.from_numpy(np.stack(arrays)).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
            parts.append(self.network(pixels).squeeze(1).double().sigmoid().cpu())
        return torch.cat(parts)


def save_classifier(network: Any, path: Path) -> None:
    """Write the weights in half precision (batch statistics too)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {n: t.half() if t.is_floating_point() else t for n, t in network.state_dict().items()}
    save_file({n: t.contiguous() for n, t in tensors.items()}, path)


def load_classifier(path: Path, device: torch.device) -> MalformedClassifier:
    """Load the classifier from safetensors. Raises InputError."""
    network = build_classifier()
    try:
        network.load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in load_file(path).items()})
    except FileNotFoundError:
        raise InputError(
            f"malformed-picture classifier {path} is missing; `make train` makes the embedded one"
        ) from None
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"classifier {path} cannot be read ({reason}); restore it or train it anew") from None
    return MalformedClassifier(network, device)
