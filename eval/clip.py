"""CLIP for scoring: an open_clip folder becomes image and text embeddings."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image

from pipeline.errors import InputError

_FILES = ("open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json")


@dataclass
class Clip:
    """An open_clip model with its own resize and normalisation, which belong to every number made with it."""

    model: Any
    preprocess: Any
    tokenizer: Any
    digest: str

    @property
    def resize(self) -> str:
        """The image preprocessing, in words for provenance."""
        return " ".join(str(self.preprocess).split())

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    @property
    def logit_scale(self) -> float:
        """What CLIP's training multiplies cosines with before a softmax over them."""
        return float(self.model.logit_scale.exp())

    @torch.inference_mode()
    def embed_images(self, images: Iterable[Image.Image], batch: int = 256) -> torch.Tensor:
        """Image embeddings [N, D] float32, not normalised."""
        remaining = iter(images)
        parts = []
        while chunk := list(islice(remaining, batch)):
            pixels = torch.stack([self.preprocess(image) for image in chunk]).to(self.device)
            parts.append(self.model.encode_image(pixels).float().cpu())
        return torch.cat(parts)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str], batch: int = 256) -> torch.Tensor:
        """Text embeddings [N, D] float32, not normalised."""
        parts = []
        for start in range(0, len(texts), batch):
            tokens = self.tokenizer(list(texts[start : start + batch])).to(self.device)
            parts.append(self.model.encode_text(tokens).float().cpu())
        return torch.cat(parts)


def clip_digest(folder: Path) -> str:
    """Hex digest (16 characters) of a CLIP folder's files. Raises InputError where one is missing."""
    digest = hashlib.sha256()
    for name in _FILES:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing; `make train` makes the embedded CLIP")
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()[:16]


def load_clip(folder: Path, device: torch.device) -> Clip:
    """Load an open_clip folder (configuration, safetensors, tokenizer). Raises InputError."""
    digest = clip_digest(folder)
    name = f"local-dir:{folder}"
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(name, device=device)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip raises many kinds for a damaged folder
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder} cannot be loaded ({reason}); restore it or train it anew") from None
    return Clip(model.eval().requires_grad_(False), preprocess, tokenizer, digest)


def clip_score(image_embeddings: torch.Tensor, text_embeddings: torch.Tensor) -> torch.Tensor:
    """CLIP score of each pair [N]: 100 times the cosine, not below 0 (arXiv 2104.08718, torchmetrics' scale)."""
    cosine = torch.nn.functional.cosine_similarity(image_embeddings.double(), text_embeddings.double())
    return (100 * cosine).clamp(min=0)
