"""DINOv2 (Oquab et al., 2304.07193): self-supervised features, the space of FD-DINOv2 (Stein et al., 2306.04675)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError

from eval.features.extractor import forward_precision, weights_digest
from pipeline.errors import InputError
from pipeline.study.extractors import EXTRACTORS

SIDE = 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass
class DinoV2:
    """timm's DINOv2; an image's vector is the class token after the last norm."""

    model: Any
    digest: str
    device: torch.device

    def __post_init__(self) -> None:
        from torchvision.transforms import v2

        # 224 and antialiased bicubic without a crop, as dgm-eval and EDM2 do it.
        self._prepare = v2.Compose(
            [
                v2.PILToTensor(),
                v2.Resize((SIDE, SIDE), v2.InterpolationMode.BICUBIC, antialias=True),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(_MEAN, _STD),
            ]
        )

    @property
    def resize(self) -> str:
        return f"bicubic antialiased {SIDE}x{SIDE}, no crop, ImageNet mean and std; positions resampled by timm"

    @property
    def precision(self) -> str:
        return str(forward_precision(self.device)).removeprefix("torch.")

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """One image resized and normalised, [3, 224, 224] float32."""
        return self._prepare(image)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Class tokens [B, D] of prepared images [B, 3, 224, 224]."""
        with torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda"):
            return self.model(pixels)  # type: ignore[no-any-return]


def load_dinov2(folder: Path, device: torch.device, fetch: str) -> DinoV2:
    """Load a timm folder (config.json, model.safetensors) of a DINOv2; `fetch` gets it. Raises InputError."""
    # Here and not above: it takes seconds to import, and most of what reads features loads no network.
    import timm

    digest = weights_digest(EXTRACTORS["dinov2"].paths(folder), fetch)
    try:
        # Of a folder's files timm takes model.safetensors first, never a pickle beside it.
        model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0, img_size=SIDE)
    except (SafetensorError, RuntimeError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder} cannot be loaded as a DINOv2 ({reason}); restore it with `{fetch}`") from None
    return DinoV2(model.to(device).eval().requires_grad_(False), digest, device)
