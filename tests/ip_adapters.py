"""IP-Adapters with small random weights, in the layout of the published files, and images for them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from PIL import Image as PillowImage
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from pipeline.networks.weights.adapter_file import cross_attention

WIDTH, EMBEDDING, TOKENS, RESAMPLED = 32, 24, 4, 64
PLUS_TOKENS, PLUS_LAYERS = 5, 4


def save_encoder(folder: Path) -> Path:
    """An image encoder of 32x32 images."""
    torch.manual_seed(7)
    CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            projection_dim=EMBEDDING,
        )
    ).save_pretrained(folder)
    return folder


def save_adapter(path: Path, unet: Any, kind: str = "plain") -> Path:
    """An adapter of a UNet: "plain" reads an image's embedding, "plus" its patches with a resampler."""
    torch.manual_seed(8)
    text = unet.config.cross_attention_dim
    tensors = {f"image_proj.{name}": t for name, t in (_plain(text) if kind == "plain" else _plus(text)).items()}
    for k, name in enumerate(cross_attention(unet)):
        width = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for role in ("to_k_ip", "to_v_ip"):
            tensors[f"ip_adapter.{2 * k + 1}.{role}.weight"] = torch.randn(width, text) * text**-0.5
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def _plain(text: int) -> dict[str, torch.Tensor]:
    return {
        "proj.weight": torch.randn(TOKENS * text, EMBEDDING),
        "proj.bias": torch.randn(TOKENS * text),
        "norm.weight": torch.ones(text),
        "norm.bias": torch.zeros(text),
    }


def _plus(text: int) -> dict[str, torch.Tensor]:
    wide = RESAMPLED

    def matrix(*shape: int) -> torch.Tensor:
        return torch.randn(*shape) * shape[-1] ** -0.5

    def norm(name: str, width: int) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}

    tensors = {
        "latents": torch.randn(1, PLUS_TOKENS, wide),
        "proj_in.weight": matrix(wide, WIDTH),
        "proj_in.bias": torch.zeros(wide),
        "proj_out.weight": matrix(text, wide),
        "proj_out.bias": torch.zeros(text),
        **norm("norm_out", text),
    }
    for k in range(PLUS_LAYERS):
        tensors |= norm(f"layers.{k}.0.norm1", wide) | norm(f"layers.{k}.0.norm2", wide)
        tensors |= {
            f"layers.{k}.0.to_q.weight": matrix(64, wide),
            f"layers.{k}.0.to_kv.weight": matrix(128, wide),
            f"layers.{k}.0.to_out.weight": matrix(wide, 64),
            **norm(f"layers.{k}.1.0", wide),
            f"layers.{k}.1.1.weight": matrix(4 * wide, wide),
            f"layers.{k}.1.3.weight": matrix(wide, 4 * wide),
        }
    return tensors


def unet_of(folder: Path) -> Any:
    """The UNet of a pipeline's folder."""
    return UNet2DConditionModel.from_pretrained(folder / "unet", use_safetensors=True)


def save_images(folder: Path) -> list[PillowImage.Image]:
    """Two images of another size than the encoder's, saved as a.png and b.png."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    images = [PillowImage.fromarray(random.integers(0, 256, (40, 48, 3), dtype=np.uint8)) for _ in range(2)]
    for name, image in zip(("a.png", "b.png"), images, strict=True):
        image.save(folder / name)
    return images
