"""The layers of a UNet above its first cross-attention, evaluated once for all texts of a call.

Guidance asks a network for predictions that differ in their text alone. Up to the first cross-attention (in Stable
Diffusion 1.x and 2.x: the first convolution and residual block, and self-attention at the full canvas) they are the
same numbers, so these layers see each sample once and their output is repeated. Where pooled text or a class enters
through the time embedding (SDXL, the embedded networks), every residual block depends on it and nothing is shared.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel


def text_free_layers(unet: UNet2DConditionModel) -> list[torch.nn.Module]:
    """The layers whose output depends on sample and timestep alone, in the order in which they are called."""
    config = unet.config
    if config.addition_embed_type or config.class_embed_type or config.num_class_embeds or config.time_embedding_act_fn:
        return []
    layers: list[torch.nn.Module] = [unet.time_embedding, unet.conv_in]
    for block in unet.down_blocks:
        layers.append(block.resnets[0])
        if not hasattr(block, "attentions"):
            layers += [*block.resnets[1:], *(block.downsamplers or ())]
            continue
        transformer = block.attentions[0]
        if isinstance(transformer, Transformer2DModel) and transformer.is_input_continuous:
            first = transformer.transformer_blocks[0]
            layers += [transformer.norm, transformer.proj_in]
            if first.norm_type == "layer_norm" and not first.only_cross_attention and first.pos_embed is None:
                layers += [first.norm1, first.attn1]
        break
    return layers


class TextFreeLayers:
    """Hooks in a UNet that do nothing outside `shared`.

    They stay installed and read a number, rather than come and go, because torch.compile looks at hooks only once.
    """

    def __init__(self, unet: UNet2DConditionModel):
        self.layers = text_free_layers(unet)
        self._texts = 1
        for layer in self.layers:
            layer.register_forward_pre_hook(self._once, with_kwargs=True)
            layer.register_forward_hook(self._repeated)

    @contextmanager
    def shared(self, texts: int) -> Iterator[None]:
        """Inside, the rows of a call are those of its samples `texts` times over, [texts B, ...]."""
        self._texts = texts
        try:
            yield
        finally:
            self._texts = 1

    def _once(
        self, _: torch.nn.Module, arguments: tuple[Any, ...], more: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._texts == 1:
            return None
        return tuple(map(self._first, arguments)), {name: self._first(value) for name, value in more.items()}

    def _first(self, value: Any) -> Any:
        return value[: len(value) // self._texts] if isinstance(value, torch.Tensor) else value

    def _repeated(self, _: torch.nn.Module, __: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        # `cat` keeps the memory format (channels last), `repeat` does not.
        return output if self._texts == 1 else torch.cat([output] * self._texts)
