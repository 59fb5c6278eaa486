"""Cross-attention of a UNet that reads a second text beside the prompt, for one evaluation.

What each method does there is said in pipeline/guidance/attention_space.py. Only the keys and values of the second text
are new, and attention to them; the rest of the network is evaluated as without it.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from pipeline.guidance.attention_space import NAG, NASA, VSF
from pipeline.networks.perturbation import processed_by, transformer_blocks
from pipeline.networks.text.conditioning import Conditioning


@contextmanager
def steered(
    unet: UNet2DConditionModel, how: NAG | VSF | NASA, conditioning: Conditioning, device: torch.device
) -> Iterator[None]:
    """The UNet's cross-attention is steered inside the `with` and as it was after it, whatever happened inside.

    `conditioning` holds the second text's `negative_tokens` [rows, L, W], a row for each that the UNet is given inside,
    which computes on `device`, and for vsf maybe `negative_unpadded` [rows, L], false where one of them is padding.
    Attention is changed by its processor, as in pipeline/networks/perturbation.py.
    Raises InputError where no transformer block lies under the layers.
    """
    tokens = conditioning["negative_tokens"].to(device, unet.dtype)
    processor: _Apart | _Flipped
    if isinstance(how, VSF):
        bias = torch.full(tokens.shape[:2], -how.bias, dtype=tokens.dtype, device=device)
        if "negative_unpadded" in conditioning:
            bias = bias.masked_fill(~conditioning["negative_unpadded"].to(device), -torch.inf)
        processor = _Flipped(tokens, how.scale, bias)
    elif isinstance(how, NAG):
        processor = _Normalized(tokens, how.scale, how.tau, how.alpha)
    else:
        processor = _Subtracted(tokens, how.scale)
    with ExitStack() as undo:
        for block in transformer_blocks(unet, how.layers).values():
            processed_by(processor, block.attn2, undo)
        yield


class _Apart:
    """Attention to each text apart, and of both results one.

    Values of the settings are plain attributes: torch.compile reads those, and takes others for something to watch.
    """

    def __init__(self, tokens: torch.Tensor):
        self.tokens = tokens  # [rows, L, W] of the second text

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        *_: object,
        **__: object,
    ) -> torch.Tensor:
        query = _heads(attn, attn.to_q(hidden_states))
        positive, negative = (
            _merged(F.scaled_dot_product_attention(query, _heads(attn, attn.to_k(text)), _heads(attn, attn.to_v(text))))
            for text in (encoder_hidden_states, self.tokens)
        )
        return _projected(attn, self.combined(positive, negative))

    def combined(self, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class _Normalized(_Apart):
    """NAG."""

    def __init__(self, tokens: torch.Tensor, scale: float, tau: float, alpha: float):
        super().__init__(tokens)
        self.scale, self.tau, self.alpha = scale, tau, alpha

    def combined(self, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        return normalized(positive, negative, self.scale, self.tau, self.alpha)


class _Subtracted(_Apart):
    """NASA."""

    def __init__(self, tokens: torch.Tensor, scale: float):
        super().__init__(tokens)
        self.scale = scale

    def combined(self, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        return subtracted(positive, negative, self.scale)


def normalized(positive: torch.Tensor, negative: torch.Tensor, scale: float, tau: float, alpha: float) -> torch.Tensor:
    """NAG of what positions read, Z+ and Z- [rows, positions, width]."""
    z = positive + (scale - 1) * (positive - negative)
    # A sum over the width in half precision would lose what it is compared for. min(R, tau) / R of equation 9 is
    # min(1, tau / R), which is defined where Z is zero.
    own, longest = z.float().abs().sum(-1, keepdim=True), tau * positive.float().abs().sum(-1, keepdim=True)
    z = z * (longest / own.clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1).to(z.dtype)
    # Written so that scale 1 and alpha 0 are exact.
    return positive + alpha * (z - positive)


def subtracted(positive: torch.Tensor, negative: torch.Tensor, scale: float) -> torch.Tensor:
    """NASA of what positions read, Z+ and Z- [rows, positions, width]."""
    return positive - scale * negative


class _Flipped:
    """VSF: `bias` [rows, L] is added to the scores of the second text's tokens."""

    def __init__(self, tokens: torch.Tensor, scale: float, bias: torch.Tensor):
        self.tokens, self.scale, self.bias = tokens, scale, bias

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        *_: object,
        **__: object,
    ) -> torch.Tensor:
        query = _heads(attn, attn.to_q(hidden_states))
        keys = torch.cat([attn.to_k(encoder_hidden_states), attn.to_k(self.tokens)], 1)
        values = torch.cat([attn.to_v(encoder_hidden_states), -self.scale * attn.to_v(self.tokens)], 1)
        bias = F.pad(self.bias, (encoder_hidden_states.shape[1], 0))[:, None, None]  # [rows, 1, 1, both texts' tokens]
        attended = F.scaled_dot_product_attention(query, _heads(attn, keys), _heads(attn, values), attn_mask=bias)
        return _projected(attn, _merged(attended))


def _heads(attn: Attention, x: torch.Tensor) -> torch.Tensor:
    return x.reshape(*x.shape[:-1], attn.heads, -1).transpose(1, 2)  # [rows, heads, positions, depth]


def _merged(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).flatten(2)


def _projected(attn: Attention, attended: torch.Tensor) -> torch.Tensor:
    projected: torch.Tensor = attn.to_out[1](attn.to_out[0](attended))
    return projected
