"""Sizes of real networks for docs/checkpoints.md, from their published configurations: `python -m docs.full_sizes`.

No weights are needed: networks are built on torch's device "meta" (pipeline/cost/size.py). It takes a minute or two.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ChromaTransformer2DModel,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    Lumina2Transformer2DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    ZImageTransformer2DModel,
)
from diffusers.utils import logging as diffusers_logging
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from docs.written_block import replaced
from pipeline.cost.size import H100, Size, decoding_of, evaluation_of, size_of
from pipeline.networks.families import (
    CHROMA,
    FLUX,
    FLUX2,
    FLUX2_KLEIN,
    LUMINA2,
    QWEN_IMAGE,
    SD,
    SD3,
    SDXL,
    Z_IMAGE,
    Family,
)

# Weights that are cast have no values here.
diffusers_logging.set_verbosity_error()
COMMAND = "python -m docs.full_sizes"
DOCUMENT = Path(__file__).with_name("checkpoints.md")
HALF = 2  # bytes of a weight in float16 and bfloat16
STEPS = 28

CLIP_L: Mapping[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
}
CLIP_G: Mapping[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
T5_XXL: Mapping[str, Any] = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
}
# Qwen2.5-VL-7B-Instruct's.
QWEN_VL: Mapping[str, Any] = {
    "text_config": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
    },
    "vision_config": {"hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584, "depth": 32},
}
# Mistral Small 3.2's, with its part that sees.
MISTRAL_SMALL: Mapping[str, Any] = {
    "text_config": {
        "model_type": "mistral",
        "vocab_size": 131072,
        "hidden_size": 5120,
        "intermediate_size": 32768,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "vision_config": {
        "model_type": "pixtral",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "head_dim": 64,
        "image_size": 1540,
        "patch_size": 14,
    },
    "spatial_merge_size": 2,
    "tie_word_embeddings": False,
}
# Gemma 2 2B, Qwen3 4B and 8B.
GEMMA_2B: Mapping[str, Any] = {
    "vocab_size": 256000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
}
QWEN3_4B: Mapping[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}


QWEN3_8B: Mapping[str, Any] = {**QWEN3_4B, "hidden_size": 4096, "intermediate_size": 12288}


def clip(sizes: Mapping[str, Any], projected: bool) -> torch.nn.Module:
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    return kind(CLIPTextConfig(vocab_size=49408, max_position_embeddings=77, **sizes))


def t5() -> torch.nn.Module:
    return T5EncoderModel(T5Config(**T5_XXL))


def qwen_vl() -> torch.nn.Module:
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**QWEN_VL))


def mistral() -> torch.nn.Module:
    return Mistral3ForConditionalGeneration(Mistral3Config(**MISTRAL_SMALL))


def flux2(layers: int, single: int, heads: int, texts: int, guidance: bool = False) -> Flux2Transformer2DModel:
    return Flux2Transformer2DModel(
        num_layers=layers,
        num_single_layers=single,
        num_attention_heads=heads,
        joint_attention_dim=3 * texts,
        guidance_embeds=guidance,
    )


def autoencoder(channels: int) -> AutoencoderKL:
    quantized = {} if channels == 4 else {"use_quant_conv": False, "use_post_quant_conv": False}
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=channels,
        **quantized,
    )


def sd3(layers: int, heads: int, positions: int, dual: int) -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        num_layers=layers,
        num_attention_heads=heads,
        caption_projection_dim=64 * heads,
        pos_embed_max_size=positions,
        dual_attention_layers=tuple(range(dual)),
        qk_norm="rms_norm",
    )


@dataclass(frozen=True)
class Published:
    """A model by its published configuration: how its parts are built, its latents, and the most tokens of a text.

    `autoencoder` is built where it is not the usual one of `channels`. `factor` is the pixels of a latent's position.
    """

    family: Family
    network: Callable[[], torch.nn.Module]
    texts: tuple[Callable[[], torch.nn.Module], ...]
    channels: int
    side: int
    tokens: int
    autoencoder: Callable[[], torch.nn.Module] | None = None
    factor: int = 8


PUBLISHED = {
    "SD 1.5": Published(
        SD,
        lambda: UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
        (lambda: clip(CLIP_L, False),),
        channels=4,
        side=64,
        tokens=77,
    ),
    "SDXL": Published(
        SDXL,
        lambda: UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        ),
        (lambda: clip(CLIP_L, False), lambda: clip(CLIP_G, True)),
        channels=4,
        side=128,
        tokens=77,
    ),
    "SD3.5 medium": Published(
        SD3,
        lambda: sd3(24, 24, 384, 13),
        (lambda: clip(CLIP_L, True), lambda: clip(CLIP_G, True), t5),
        channels=16,
        side=128,
        tokens=77 + 256,
    ),
    "SD3.5 large": Published(
        SD3,
        lambda: sd3(38, 38, 192, 0),
        (lambda: clip(CLIP_L, True), lambda: clip(CLIP_G, True), t5),
        channels=16,
        side=128,
        tokens=77 + 256,
    ),
    "FLUX.1 dev": Published(
        FLUX,
        lambda: FluxTransformer2DModel(guidance_embeds=True),
        (lambda: clip(CLIP_L, False), t5),
        channels=16,
        side=128,
        tokens=512,
    ),
    "FLUX.2 dev": Published(
        FLUX2,
        lambda: flux2(8, 48, 48, 5120, guidance=True),
        (mistral,),
        channels=128,
        side=64,
        tokens=512,
        autoencoder=AutoencoderKLFlux2,
        factor=16,
    ),
    "FLUX.2 klein base 9B": Published(
        FLUX2_KLEIN,
        lambda: flux2(8, 24, 32, 4096),
        (lambda: Qwen3Model(Qwen3Config(**QWEN3_8B)),),
        channels=128,
        side=64,
        tokens=512,
        autoencoder=AutoencoderKLFlux2,
        factor=16,
    ),
    "FLUX.2 klein base 4B": Published(
        FLUX2_KLEIN,
        lambda: flux2(5, 20, 24, 2560),
        (lambda: Qwen3Model(Qwen3Config(**QWEN3_4B)),),
        channels=128,
        side=64,
        tokens=512,
        autoencoder=AutoencoderKLFlux2,
        factor=16,
    ),
    "Chroma1-HD": Published(CHROMA, ChromaTransformer2DModel, (t5,), channels=16, side=128, tokens=512),
    "Qwen-Image": Published(
        QWEN_IMAGE,
        QwenImageTransformer2DModel,
        (qwen_vl,),
        channels=16,
        side=128,
        tokens=512,
        autoencoder=AutoencoderKLQwenImage,
    ),
    "Lumina Image 2.0": Published(
        LUMINA2,
        lambda: Lumina2Transformer2DModel(
            hidden_size=2304,
            num_layers=26,
            num_attention_heads=24,
            num_kv_heads=8,
            cap_feat_dim=2304,
        ),
        (lambda: Gemma2Model(Gemma2Config(**GEMMA_2B)),),
        channels=16,
        side=128,
        tokens=256,
    ),
    "Z-Image": Published(
        Z_IMAGE,
        lambda: ZImageTransformer2DModel(axes_lens=(1536, 512, 512)),
        (lambda: Qwen3Model(Qwen3Config(**QWEN3_4B)),),
        channels=16,
        side=128,
        tokens=512,
    ),
}


def built(build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """A network on device meta, in half precision."""
    with init_empty_weights(include_buffers=True):
        return build().to(torch.bfloat16)


def parameters(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def sizes(model: Published) -> tuple[Size, Size]:
    """The sizes of a model's network, and of its autoencoder decoding one image."""
    network, vae = built(model.network), built(model.autoencoder or (lambda: autoencoder(model.channels)))
    evaluate = evaluation_of(model.family, network, model.side, model.side, model.tokens)
    return size_of(network, evaluate), size_of(vae, decoding_of(vae, model.side, model.side))


def table() -> str:
    lines = [
        "| model, canvas | network, parameters | text encoders, parameters | one evaluation | weights in 16 bits | "
        "an evaluation's tensors | decoding | most memory, texts dropped | text encoders alone | 56 evaluations |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(row, PUBLISHED)])


def row(name: str) -> str:
    """The table's row of a published model."""
    model = PUBLISHED[name]
    network, vae = sizes(model)
    texts = sum(parameters(built(build)) for build in model.texts)
    weights = HALF * (network.values + vae.values)
    most = weights + max(network.activations, vae.activations)
    seconds = 2 * STEPS * network.flops / H100
    canvas = model.factor * model.side
    return (
        f"| {name}, {canvas}x{canvas} | {network.parameters:,} | {texts:,} | {network.flops / 1e12:.2f} TFLOP | "
        f"{weights / 1e9:.1f} GB | {network.activations / 1e9:.2f} GB | {vae.activations / 1e9:.2f} GB | "
        f"{most / 1e9:.1f} GB | {HALF * texts / 1e9:.1f} GB | {seconds:.1f} s |"
    )


if __name__ == "__main__":
    DOCUMENT.write_text(replaced(DOCUMENT.read_text("utf-8"), DOCUMENT, COMMAND, table()), "utf-8")
