"""Damaging a network for one evaluation, so that its own prediction becomes a reference to move away from.

`pag` (arXiv 2403.17377) makes self-attention the identity, `seg` (arXiv 2408.00760) blurs its queries over the
image, `skip_layers` leaves whole transformer blocks out. Three kinds use new random numbers for every image and step:
`random_layers` leaves each block out by chance (S2-guidance, arXiv 2508.12880), `dropout` single activations of what a
block reads (in-situ autoguidance, arXiv 2510.17136), `shuffle_tokens` exchanges the positions of what it reads (token
perturbation guidance, arXiv 2506.10036). diffusers' own hooks are not used: in 0.42 its guiders
install none when there is no empty prompt, and its query blur has its two branches (blur, mean) exchanged. Blocks of
UNets are damaged here, those of transformers with the help of joint_blocks.py and stream_blocks.py.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel

from pipeline.errors import InputError
from pipeline.guidance.algebra import Perturbation
from pipeline.guidance.chance import Chance
from pipeline.guidance.references import RANDOM_KINDS
from pipeline.networks.joint_blocks import JOINT_BLOCKS, DamagedAttention, attentions, called_by, pass_through
from pipeline.networks.queries import blurred
from pipeline.networks.stream_blocks import ImageOfStream, damaged_attention_of, is_stream_block

# A share of 1 leaves nothing over, which nothing multiplies.
_TINY = 1e-6


@contextmanager
def perturbed(
    network: torch.nn.Module,
    perturbation: Perturbation,
    extent: Sequence[int],
    chance: Chance | None = None,
    starts: Sequence[int] | None = None,
) -> Iterator[None]:
    """The network is damaged inside the `with` and as it was after it, whatever happened inside.

    `extent` is (height, width) of the samples that a UNet is given there, or of a transformer's in patches; `chance`
    has the random numbers of the kinds that are drawn; `starts` is where the image begins in each row's stream of text
    and image, where that depends on the text. Attention is changed by its processor, which torch.compile looks
    at before every call, unlike hooks.
    Raises InputError where no transformer block lies under `layers`.
    """
    with ExitStack() as undo:
        if perturbation.kind in RANDOM_KINDS:
            # The compiler would take a step's random numbers for constants, and compile at every step.
            undo.enter_context(torch.compiler.set_stance("force_eager"))
        for name, block in transformer_blocks(network, perturbation.layers).items():
            joint = isinstance(block, JOINT_BLOCKS)
            image = ImageOfStream((extent[0], extent[1]), starts) if is_stream_block(block) else None
            if image is not None and perturbation.kind in ("pag", "seg"):
                attention, damaged = damaged_attention_of(block, perturbation.kind, image, perturbation.blur)
                processed_by(damaged, attention, undo)
            elif joint and perturbation.kind in ("pag", "seg"):
                damaged = DamagedAttention(perturbation.kind, (extent[0], extent[1]), perturbation.blur)
                for attention in attentions(block):
                    processed_by(damaged, attention, undo)
            elif perturbation.kind == "pag":
                processed_by(_IdentityAttention(), block.attn1, undo)
            elif perturbation.kind == "seg":
                processed_by(_BlurredQueries((extent[0], extent[1]), perturbation.blur), block.attn1, undo)
            elif perturbation.kind == "skip_layers":
                replaced_by(pass_through if joint else _pass_through, block, undo)
            else:
                assert chance is not None, f"{perturbation.kind} needs random numbers"
                by_chance = (
                    _joint_by_chance(perturbation, block, name, chance)
                    if joint
                    else _by_chance(perturbation, block, name, chance, image)
                )
                replaced_by(by_chance, block, undo)
        yield


def transformer_blocks(network: torch.nn.Module, layers: tuple[str, ...] | None) -> dict[str, Any]:
    """The transformer blocks under `layers` by name, all of them where that is None.

    Raises InputError where there is none under one of them, or none at all.
    """
    blocks = {
        f"{name}.transformer_blocks.{i}": block
        for name, module in network.named_modules()
        if isinstance(module, Transformer2DModel)
        for i, block in enumerate(module.transformer_blocks)
    } | {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, JOINT_BLOCKS) or is_stream_block(module)
    }
    if layers is None:
        if not blocks:
            raise InputError("the network has no transformer blocks, and so no cross-attention of theirs")
        return blocks
    chosen = {name: block for name, block in blocks.items() if any(f"{name}.".startswith(f"{p}.") for p in layers)}
    for layer in layers:
        if not any(f"{name}.".startswith(f"{layer}.") for name in chosen):
            raise InputError(
                f"the network has no transformer block under '{layer}'; its blocks are {', '.join(blocks) or 'none'}"
            )
    return chosen


class _IdentityAttention:
    """Self-attention whose map is the identity: every position gets its own value (equation 15 of the PAG paper)."""

    def __call__(self, attn: Attention, hidden_states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        projected: torch.Tensor = attn.to_out[1](attn.to_out[0](attn.to_v(hidden_states)))
        return projected


class _BlurredQueries:
    """Self-attention of a UNet's transformer block whose queries are blurred over the image (the SEG paper).

    `extent` is (height, width) of the UNet's samples, of which every level below has half, rounded up.
    """

    def __init__(self, extent: tuple[int, int], blur: float | None):
        self.extent, self.blur = extent, blur

    def __call__(self, attn: Attention, hidden_states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        height, width = self.extent
        while height * width > hidden_states.shape[1]:
            height, width = (height + 1) // 2, (width + 1) // 2
        queries = blurred(attn.to_q(hidden_states), height, width, self.blur)
        split = (
            x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # [B, heads, positions, depth]
            for x in (queries, attn.to_k(hidden_states), attn.to_v(hidden_states))
        )
        attended = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        projected: torch.Tensor = attn.to_out[1](attn.to_out[0](attended))
        return projected


def processed_by(processor: Any, attention: Attention, undo: ExitStack) -> None:
    """`processor` computes this attention until `undo` is closed."""
    undo.callback(attention.set_processor, attention.processor)
    attention.set_processor(called_by(attention, processor))


def replaced_by(forward: Callable[..., Any], block: torch.nn.Module, undo: ExitStack) -> None:
    """`forward` computes this block until `undo` is closed."""
    # An instance's own `forward` goes before the class's; offloading may have put one there already.
    before = block.__dict__.get("forward")
    if before is None:
        undo.callback(block.__dict__.pop, "forward")
    else:
        undo.callback(block.__dict__.__setitem__, "forward", before)
    block.__dict__["forward"] = forward


def _by_chance(
    perturbation: Perturbation,
    block: torch.nn.Module,
    name: str,
    chance: Chance,
    image: ImageOfStream | None,
) -> Callable[..., torch.Tensor]:
    """A block of one sequence, in which `image` lies; all of it where that is None."""
    own: Callable[..., torch.Tensor] = block.forward  # offloading's, where it has put one there

    def forward(hidden_states: torch.Tensor, *arguments: object, **more: object) -> torch.Tensor:
        if perturbation.kind == "random_layers":
            out = _left_out(perturbation, name, chance, hidden_states)
            return torch.where(out, hidden_states, own(hidden_states, *arguments, **more))
        if image is None:
            return own(_disturbed(perturbation, name, chance, hidden_states), *arguments, **more)
        disturbed = _disturbed(perturbation, name, chance, image.of(hidden_states))
        return own(image.replaced(hidden_states, disturbed), *arguments, **more)

    return forward


def _joint_by_chance(
    perturbation: Perturbation, block: torch.nn.Module, name: str, chance: Chance
) -> Callable[..., tuple[torch.Tensor | None, torch.Tensor]]:
    own: Callable[..., tuple[torch.Tensor | None, torch.Tensor]] = block.forward

    def forward(
        hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **more: object
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        image = hidden_states
        if perturbation.kind != "random_layers":
            image = _disturbed(perturbation, name, chance, image)
        text, after = own(hidden_states=image, encoder_hidden_states=encoder_hidden_states, **more)
        if perturbation.kind == "random_layers":
            out = _left_out(perturbation, name, chance, hidden_states)
            after = torch.where(out, hidden_states, after)
            text = None if text is None else torch.where(out, encoder_hidden_states, text)
        return text, after

    return forward


def _left_out(perturbation: Perturbation, name: str, chance: Chance, states: torch.Tensor) -> torch.Tensor:
    """For which rows of [B, positions, width] a block is left out, [B, 1, 1]."""
    return _rows(chance.uniform(name) < perturbation.share, states)[:, None, None]


def _disturbed(perturbation: Perturbation, name: str, chance: Chance, states: torch.Tensor) -> torch.Tensor:
    """What a block reads, [B, positions, width], with dropout or shuffled positions."""
    _, positions, width = states.shape
    if perturbation.kind == "dropout":
        kept = _rows(chance.uniform(name, positions, width) >= perturbation.share, states)
        return states * kept / max(1 - perturbation.share, _TINY)
    order = _rows(shuffled(chance.uniform(name, 2, positions), perturbation.share), states)
    return states.gather(1, order[..., None].expand(-1, -1, width))


def _rows(drawn: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    # An image's numbers are the same for all texts of a call.
    return drawn.repeat(len(like) // len(drawn), *(1,) * (drawn.ndim - 1)).to(like.device)


def shuffled(drawn: torch.Tensor, share: float) -> torch.Tensor:
    """For uniform numbers [B, 2, N] an order [B, N] of N positions in which a `share` of them is shuffled."""
    order = torch.arange(drawn.shape[-1]).repeat(len(drawn), 1)
    for row, (chosen, keys) in zip(order, drawn.unbind(0), strict=True):
        places = (chosen < share).nonzero().flatten()
        row[places] = places[keys[places].argsort()]
    return order


def _pass_through(hidden_states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
    return hidden_states


def skip_for_good(network: torch.nn.Module, layers: tuple[str, ...]) -> None:
    """Leave the transformer blocks under `layers` out of this network from now on. Raises InputError."""
    for block in transformer_blocks(network, layers).values():
        block.__dict__["forward"] = pass_through if isinstance(block, JOINT_BLOCKS) else _pass_through
