"""Reference images as a UNet reads them: an IP-Adapter's tokens, and the attention that reads these beside the text.

The classes are diffusers' own: `IPAdapterAttnProcessor2_0` attends to text and to images apart and adds the second,
times a strength (arXiv 2308.06721, equation 5). They are in the network only while a prediction asks for images, so
every other arm is evaluated as without an adapter.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import ImageProjection
from PIL import Image as PillowImage
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from pipeline.errors import InputError
from pipeline.networks.perturbation import processed_by, transformer_blocks
from pipeline.networks.weights.adapter_file import cross_attention, read_tensors
from pipeline.networks.weights.weight_files import check_complete

ENCODER_KEY = "model.ip_adapter.image_encoder"


class ImageReader:
    """An image encoder and an adapter's projection: images become tokens of the width of texts.

    Raises InputError where one of them cannot be loaded.
    """

    def __init__(self, adapter: Path, encoder: Path, unet: UNet2DConditionModel, device: torch.device):
        """`unet`: any that the adapter is for; it lends diffusers' conversion of published names, and stays."""
        self.device, self.dtype = device, unet.dtype
        try:
            network, found = CLIPVisionModelWithProjection.from_pretrained(
                encoder, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
        except Exception as error:  # transformers raises many kinds for a damaged folder
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{ENCODER_KEY} {encoder} cannot be loaded ({reason}); download it again") from None
        check_complete(network, found["missing_keys"], encoder)
        self.encoder = network.to(device, self.dtype).eval().requires_grad_(False)
        side = network.config.image_size
        # What diffusers makes of an encoder's folder: CLIP's own mean and deviation.
        self.prepare = CLIPImageProcessor(size=side, crop_size=side)
        projection = unet._convert_ip_adapter_image_proj_to_diffusers(  # diffusers has no public name
            read_tensors(adapter)["image_proj"], low_cpu_mem_usage=False
        )
        self.projection = projection.to(device, self.dtype).eval().requires_grad_(False)

    @torch.inference_mode()
    def tokens(self, images: Sequence[PillowImage.Image]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens [1, N, T, W] of N images, and those of as many empty images.

        An empty image is what diffusers gives the unconditional pass: an embedding of zeros or, where an adapter reads
        patches, an image of zeros after normalization.
        """
        pixels = self.prepare(images=list(images), return_tensors="pt").pixel_values.to(self.device, self.dtype)
        if isinstance(self.projection, ImageProjection):
            shown = self.encoder(pixels).image_embeds
            empty = torch.zeros_like(shown)
        else:
            shown, empty = (self._patches(x) for x in (pixels, torch.zeros_like(pixels)))
        return self.projection(shown)[None], self.projection(empty)[None]

    def _patches(self, pixels: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.encoder(pixels, output_hidden_states=True).hidden_states[-2]
        return states


def load_attention(unet: UNet2DConditionModel, adapter: Path, device: torch.device) -> dict[str, Any]:
    """An adapter's processors of a UNet's cross-attention, by the names of its layers, on `device`."""
    found = unet._convert_ip_adapter_attn_to_diffusers(  # diffusers has no public name
        [read_tensors(adapter)], low_cpu_mem_usage=False
    )
    return {
        name.removesuffix(".processor"): found[name].to(device, unet.dtype).requires_grad_(False)
        for name in cross_attention(unet)
    }


@dataclass(frozen=True)
class ImagePrompt:
    """How a UNet reads images: `attention` by the names of its layers, and the strength of each."""

    attention: Mapping[str, Any]
    strengths: Mapping[str, float]

    @classmethod
    def of(
        cls, unet: UNet2DConditionModel, attention: Mapping[str, Any], strength: float, layers: tuple[str, ...] | None
    ) -> "ImagePrompt":
        """At `strength` in the attention under `layers`, everywhere where that is None, and 0 elsewhere.

        Raises InputError where no transformer block lies under one of the layers.
        """
        chosen = {f"{name}.attn2" for name in transformer_blocks(unet, layers)}
        return cls(attention, {name: strength if name in chosen else 0.0 for name in attention})

    @contextmanager
    def read(self, unet: UNet2DConditionModel) -> Iterator[None]:
        """Inside, the UNet's cross-attention reads the `image_embeds` that it is told; after it, it is as it was."""
        before = unet.encoder_hid_proj, unet.config.encoder_hid_dim_type
        with ExitStack() as undo:
            for name, processor in self.attention.items():
                processor.scale = [self.strengths[name]]
                processed_by(processor, unet.get_submodule(name), undo)
            undo.callback(_tell, unet, *before)
            _tell(unet, _PassedOn(), "ip_image_proj")
            yield


class _PassedOn(torch.nn.Module):
    """In the place of a UNet's projections of images: images are tokens already."""

    def forward(self, tokens: list[torch.Tensor]) -> list[torch.Tensor]:
        return tokens


def _tell(unet: UNet2DConditionModel, projection: torch.nn.Module | None, kind: str | None) -> None:
    unet.encoder_hid_proj = projection
    unet.register_to_config(encoder_hid_dim_type=kind)
