"""CLIP: an open_clip folder becomes image and text embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from eval.features.extractor import forward_precision, weights_digest
from pipeline.errors import InputError
from pipeline.study.extractors import EXTRACTORS

_TRAIN = "make train"


@dataclass
class Clip:
    """An open_clip model with its own resize and normalisation, which belong to every number made with it."""

    model: Any
    preprocess: Any
    tokenizer: Any
    digest: str
    device: torch.device

    @property
    def resize(self) -> str:
        """The image preprocessing, in words for provenance."""
        return " ".join(str(self.preprocess).split())

    @property
    def precision(self) -> str:
        """The arithmetic of the forward pass; weights stay in single precision."""
        return str(forward_precision(self.device)).removeprefix("torch.")

    @property
    def logit_scale(self) -> float:
        """What CLIP's training multiplies cosines with before a softmax over them."""
        return float(self.model.logit_scale.exp())

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """One image resized and cropped, [3, H, W] uint8.

        open_clip's preprocessing ends with a tensor of [0, 1] and a normalisation; `embed` does these two for a batch
        at once, which costs a tenth of doing them for each image and gives the same numbers.
        """
        side = self.model.visual.image_size
        width, height = (side, side) if isinstance(side, int) else reversed(side)
        # Resizing and cropping to the size that is there changes nothing but takes two thirds of the time.
        for step in self.preprocess.transforms[:-2] if image.size != (width, height) else ():
            image = step(image)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    @torch.inference_mode()
    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Image embeddings [B, D], not normalised, of prepared images [B, 3, H, W] uint8."""
        pixels = self.preprocess.transforms[-1](pixels.contiguous().float().div(255))
        with torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda"):
            return self.model.encode_image(pixels)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str], batch: int = 256) -> torch.Tensor:
        """Text embeddings [N, D] float32, not normalised."""
        parts = []
        for start in range(0, len(texts), batch):
            tokens = self.tokenizer(list(texts[start : start + batch])).to(self.device)
            parts.append(self.model.encode_text(tokens).float().cpu())
        return torch.cat(parts)


def load_clip(folder: Path, device: torch.device, fetch: str = _TRAIN) -> Clip:
    """Load an open_clip folder (configuration, safetensors, tokenizer); `fetch` gets its files. Raises InputError."""
    # Here and not above: it takes seconds to import, and most of what reads features loads no network.
    import open_clip

    digest = weights_digest(EXTRACTORS["open_clip"].paths(folder), fetch)
    name = f"local-dir:{folder}"
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(name, device=device)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip raises many kinds for a damaged folder
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder} cannot be loaded ({reason}); restore it with `{fetch}`") from None
    return Clip(model.eval().requires_grad_(False), preprocess, tokenizer, digest, device)


def clip_score(image_embeddings: torch.Tensor, text_embeddings: torch.Tensor) -> torch.Tensor:
    """CLIP score of each pair [N]: 100 times the cosine, not below 0 (arXiv 2104.08718, torchmetrics' scale)."""
    cosine = torch.nn.functional.cosine_similarity(image_embeddings.double(), text_embeddings.double())
    return (100 * cosine).clamp(min=0)
