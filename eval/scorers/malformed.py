"""P(malformed): a small convolutional classifier of malformed people."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.models.resnet import BasicBlock, ResNet

from eval.scorers.image_classifier import image_logits, load_weights


def build_classifier() -> Any:
    """timm's ResNet with a deep stem, narrow: 64x64 RGB in [-1, 1] to one logit."""
    return ResNet(
        BasicBlock, layers=(1, 1, 1, 1), channels=(32, 64, 96, 128), stem_width=16, stem_type="deep", num_classes=1
    )


class MalformedClassifier:
    """The chance that an image is of a malformed person."""

    def __init__(self, network: Any, device: torch.device):
        self.network, self.device = network.to(device).eval(), device

    def __call__(self, images: Iterable[Image.Image], batch: int = 256) -> torch.Tensor:
        """P(malformed) [N] in [0, 1]; images of another size are resized to 64x64 (bicubic)."""
        return image_logits(self.network, images, self.device, batch).squeeze(1).sigmoid()


def load_classifier(path: Path, device: torch.device) -> MalformedClassifier:
    """Load the classifier from safetensors. Raises InputError."""
    network = build_classifier()
    load_weights(network, path, "malformed-image classifier")
    return MalformedClassifier(network, device)
