"""Damaging a UNet for one evaluation, so that its own prediction becomes a reference to move away from.

`pag` (arXiv 2403.17377) makes self-attention the identity, `seg` (arXiv 2408.00760) blurs its queries over the
picture, `skip_layers` leaves whole transformer blocks out. diffusers' own hooks are not used: in 0.42 its guiders
install none when there is no empty prompt, and its query blur has its two branches (blur, mean) exchanged.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel

from pipeline.errors import InputError
from pipeline.guidance import Perturbation


@contextmanager
def perturbed(unet: UNet2DConditionModel, perturbation: Perturbation) -> Iterator[None]:
    """The UNet is damaged inside the `with` and as it was after it, whatever happened inside.

    Raises InputError where no transformer block lies under `layers`.
    """
    with ExitStack() as undo:
        for transformer, block in transformer_blocks(unet, perturbation.layers):
            if perturbation.kind == "pag":
                _identity_attention(block.attn1, undo)
            elif perturbation.kind == "seg":
                _blurred_queries(transformer, block.attn1, perturbation.blur, undo)
            else:
                _skipped(block, undo)
        yield


def transformer_blocks(
    unet: UNet2DConditionModel, layers: tuple[str, ...]
) -> list[tuple[Transformer2DModel, BasicTransformerBlock]]:
    """The transformer blocks under `layers`, each with the module that flattens the picture for it."""
    blocks = {
        f"{name}.transformer_blocks.{i}": (module, block)
        for name, module in unet.named_modules()
        if isinstance(module, Transformer2DModel)
        for i, block in enumerate(module.transformer_blocks)
    }
    chosen = {name: pair for name, pair in blocks.items() if any(f"{name}.".startswith(f"{p}.") for p in layers)}
    for layer in layers:
        if not any(f"{name}.".startswith(f"{layer}.") for name in chosen):
            raise InputError(
                f"layers: no transformer block of the network lies under '{layer}'; "
                f"its blocks are {', '.join(blocks) or 'none'}"
            )
    return list(chosen.values())


class _IdentityAttention:
    """Self-attention whose map is the identity: every position gets its own value (equation 15 of the PAG paper)."""

    def __call__(self, attn: Attention, hidden_states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        projected: torch.Tensor = attn.to_out[1](attn.to_out[0](attn.to_v(hidden_states)))
        return projected


def _identity_attention(attention: Attention, undo: ExitStack) -> None:
    undo.callback(attention.set_processor, attention.processor)
    attention.set_processor(_IdentityAttention())


def _blurred_queries(
    transformer: Transformer2DModel, attention: Attention, blur: float | None, undo: ExitStack
) -> None:
    height_width: list[int] = [0, 0]

    def note_shape(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        height_width[:] = arguments[0].shape[-2:]  # [B, C, H, W] before it is flattened to positions

    def blur_output(_: torch.nn.Module, __: object, queries: torch.Tensor) -> torch.Tensor:
        return blurred(queries, height_width[0], height_width[1], blur)

    undo.callback(transformer.register_forward_pre_hook(note_shape).remove)
    undo.callback(attention.to_q.register_forward_hook(blur_output).remove)


def blurred(queries: torch.Tensor, height: int, width: int, blur: float | None) -> torch.Tensor:
    """Queries [B, H W, D] after a Gaussian of standard deviation `blur` over their positions; None is the mean."""
    if blur is None:
        return queries.mean(1, keepdim=True).expand_as(queries)
    depth = queries.shape[-1]
    maps = queries.transpose(1, 2).reshape(-1, depth, height, width)
    for axis, length in ((2, height), (3, width)):
        # The authors' width (six standard deviations, odd), cut so that reflection has something to reflect.
        radius = min(math.ceil(6 * blur) // 2, length - 1)
        offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
        kernel = torch.softmax(-0.5 * (offsets / blur).square(), 0).to(queries)
        weight = kernel.view(1, 1, *(-1 if a == axis else 1 for a in (2, 3))).expand(depth, 1, -1, -1)
        padding = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        maps = F.conv2d(F.pad(maps, padding, mode="reflect"), weight, groups=depth)
    return maps.flatten(2).transpose(1, 2)


def _skipped(block: BasicTransformerBlock, undo: ExitStack) -> None:
    # An instance's own `forward` goes before the class's; offloading may have put one there already.
    before = block.__dict__.get("forward")
    if before is None:
        undo.callback(block.__dict__.pop, "forward")
    else:
        undo.callback(block.__dict__.__setitem__, "forward", before)
    block.__dict__["forward"] = _pass_through


def _pass_through(hidden_states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
    return hidden_states


def skip_for_good(unet: UNet2DConditionModel, layers: tuple[str, ...]) -> None:
    """Leave the transformer blocks under `layers` out of this network from now on. Raises InputError."""
    for _, block in transformer_blocks(unet, layers):
        block.__dict__["forward"] = _pass_through
