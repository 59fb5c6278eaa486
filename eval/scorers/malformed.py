"""P(malformed): a small classifier that counts digits, arms and legs, and sees whether parts have moved.

It answers "uncountable" where a hand or a limb is there and cannot be counted, and "none" where there is nothing to
count. A person is sound if the head is in its place and everything that can be counted has the right number.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.models.resnet import BasicBlock, ResNet

from eval.scorers.image_classifier import image_logits, load_weights

UNCOUNTABLE, NOTHING = "uncountable", "none"
# What the classifier answers, side by side in its logits.
ANSWERS: dict[str, tuple[str, ...]] = {
    "moved": ("no", "yes"),
    "digits": ("3", "4", "5", "6", "7", UNCOUNTABLE, NOTHING),
    "arms": ("1", "2", "3", UNCOUNTABLE, NOTHING),
    "legs": ("1", "2", "3", UNCOUNTABLE, NOTHING),
}
# The answers of a sound drawing.
SOUND: dict[str, tuple[str, ...]] = {
    "moved": ("no",), "digits": ("5", NOTHING), "arms": ("2", NOTHING), "legs": ("2", NOTHING),
}  # fmt: skip


def build_classifier() -> Any:
    """timm's ResNet with a deep stem that keeps 32x32 positions: 64x64 RGB in [-1, 1] to the logits of all ANSWERS."""
    return ResNet(
        BasicBlock, layers=(1, 2, 1, 1), channels=(32, 64, 96, 128), stem_width=24, stem_type="deep",
        num_classes=sum(map(len, ANSWERS.values())),
    )  # fmt: skip


class MalformedClassifier:
    """The chance that an image is of a malformed person, and what can be counted in it."""

    def __init__(self, network: Any, device: torch.device):
        self.network, self.device = network.to(device).eval(), device

    def __call__(self, images: Iterable[Image.Image], batch: int = 256) -> torch.Tensor:
        """P(malformed) [N] in [0, 1]; images of another size are resized to 64x64 (bicubic)."""
        return chance_malformed(self._logits(images, batch))

    def counts(self, images: Iterable[Image.Image], batch: int = 256) -> dict[str, list[str]]:
        """The likeliest answer of each image to each of ANSWERS."""
        parts = split_answers(self._logits(images, batch))
        return {question: [ANSWERS[question][k] for k in part.argmax(1).tolist()] for question, part in parts.items()}

    def _logits(self, images: Iterable[Image.Image], batch: int) -> torch.Tensor:
        return image_logits(self.network, images, self.device, batch)


def split_answers(logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits [N, all answers] by question, [N, answers] each."""
    parts = torch.split(logits, [len(names) for names in ANSWERS.values()], dim=1)
    return dict(zip(ANSWERS, parts, strict=True))


def chance_malformed(logits: torch.Tensor) -> torch.Tensor:
    """P(malformed) [N] of logits [N, all answers]: 1 less the product of the chances of sound answers."""
    sound = torch.ones(len(logits), dtype=logits.dtype, device=logits.device)
    for question, part in split_answers(logits).items():
        right = [ANSWERS[question].index(name) for name in SOUND[question]]
        sound = sound * part.softmax(1)[:, right].sum(1)
    return 1 - sound


def load_classifier(path: Path, device: torch.device) -> MalformedClassifier:
    """Load the classifier from safetensors. Raises InputError."""
    network = build_classifier()
    load_weights(network, path, "malformed-image classifier")
    return MalformedClassifier(network, device)
