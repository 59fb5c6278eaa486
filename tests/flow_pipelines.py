"""Pipelines of diffusers along rectified flow with small random weights, in the layout of the real ones."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ChromaPipeline,
    ChromaTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from diffusers.modular_pipelines.qwenimage.prompt_templates import QWENIMAGE_PROMPT_TEMPLATE
from tokenizers import ByteLevelBPETokenizer, SentencePieceBPETokenizer, SentencePieceUnigramTokenizer
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    LlamaTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from models.tinybooru.tokenizer import train_tokenizer
from pipeline.networks.families import FLUX2, LUMINA2
from pipeline.tinybooru.build import plans

UNKNOWN = "<unk>"
# The width of T5 and of language models, wider than the two CLIPs together as in the real ones.
T5_WIDTH = 64
LANGUAGE_WIDTH = 32
# T5's tokens a text; the real ones are 256 and 512.
T5_LENGTH = 32
# A canvas of 32x32 is 16x16 latents, and 8x8 patches.
SIDE = 16
SHIFTING: dict[str, Any] = {"use_dynamic_shifting": True, "base_image_seq_len": 16, "max_image_seq_len": 256}


def captions() -> list[str]:
    held_out = plans("validation", 0)
    return [", ".join(next(held_out).tags) for _ in range(50)]


def t5_tokenizer() -> T5TokenizerFast:
    """A tokenizer of T5's kind (SentencePiece, unigram), trained on captions."""
    trained = SentencePieceUnigramTokenizer()
    trained.train_from_iterator(
        captions(), vocab_size=200, special_tokens=["<pad>", "</s>", UNKNOWN], unk_token=UNKNOWN, show_progress=False
    )
    vocabulary = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    return T5TokenizerFast(vocab=[(token, -float(k)) for k, token in enumerate(vocabulary)], extra_ids=0)


def t5(tokenizer: T5TokenizerFast) -> T5EncoderModel:
    sizes = {"d_model": T5_WIDTH, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    return T5EncoderModel(T5Config(vocab_size=len(tokenizer), **sizes)).eval()


def clip(tokenizer: CLIPTokenizer, width: int, projection: int | None) -> CLIPTextModel | CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=projection or width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def latents_of(channels: int) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def sd3_transformer(heads: int, layers: int, dual: Sequence[int]) -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=SIDE,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=layers,
        attention_head_dim=16,
        num_attention_heads=heads,
        joint_attention_dim=T5_WIDTH,
        caption_projection_dim=16 * heads,
        pooled_projection_dim=24 + 40,
        pos_embed_max_size=16,
        dual_attention_layers=tuple(dual),
        qk_norm="rms_norm" if dual else None,
    ).eval()


def save_sd3(
    folder: Path, seed: int, heads: int = 2, layers: int = 3, dual: Sequence[int] = (0,), **schedule: Any
) -> None:
    """Stable Diffusion 3.5's kind of pipeline, or 3's where no block is `dual`."""
    clips, longer = train_tokenizer(captions()), t5_tokenizer()
    torch.manual_seed(seed)
    StableDiffusion3Pipeline(
        transformer=lively(sd3_transformer(heads, layers, dual)),
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **schedule}),
        vae=latents_of(16),
        text_encoder=clip(clips, 24, 24),
        tokenizer=clips,
        text_encoder_2=clip(clips, 40, 40),
        tokenizer_2=clips,
        text_encoder_3=t5(longer),
        tokenizer_3=longer,
    ).save_pretrained(folder, safe_serialization=True)


def save_flux(
    folder: Path, seed: int, heads: int = 2, blocks: tuple[int, int] = (1, 2), distilled: bool = True
) -> None:
    """FLUX.1-dev's kind of pipeline; schnell's, whose network reads no guidance and whose levels stay, if not so."""
    clips, longer = train_tokenizer(captions()), t5_tokenizer()
    torch.manual_seed(seed)
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=blocks[0],
        num_single_layers=blocks[1],
        attention_head_dim=16,
        num_attention_heads=heads,
        joint_attention_dim=T5_WIDTH,
        pooled_projection_dim=24,
        guidance_embeds=distilled,
        axes_dims_rope=(4, 6, 6),
    ).eval()
    schedule = {"shift": 3.0, **SHIFTING} if distilled else {"shift": 1.0}
    FluxPipeline(
        transformer=lively(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(**schedule),
        vae=latents_of(16),
        text_encoder=clip(clips, 24, None),
        tokenizer=clips,
        text_encoder_2=t5(longer),
        tokenizer_2=longer,
    ).save_pretrained(folder, safe_serialization=True)


def save_chroma(folder: Path, seed: int, heads: int = 2, blocks: tuple[int, int] = (1, 2)) -> None:
    """Chroma's kind of pipeline."""
    longer = t5_tokenizer()
    torch.manual_seed(seed)
    transformer = ChromaTransformer2DModel(
        in_channels=64,
        num_layers=blocks[0],
        num_single_layers=blocks[1],
        attention_head_dim=16,
        num_attention_heads=heads,
        joint_attention_dim=T5_WIDTH,
        axes_dims_rope=(4, 6, 6),
        approximator_num_channels=16,
        approximator_hidden_dim=32,
        approximator_layers=2,
    ).eval()
    ChromaPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, **SHIFTING),
        vae=latents_of(16),
        text_encoder=t5(longer),
        tokenizer=longer,
    ).save_pretrained(folder, safe_serialization=True)


def qwen_vl_tokenizer(size: int = 700) -> Qwen2Tokenizer:
    """A tokenizer of Qwen's kind (byte pairs of bytes), large enough to cut the template into words as the real one."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([*captions(), *[QWENIMAGE_PROMPT_TEMPLATE] * 200], vocab_size=size, show_progress=False)
    model = json.loads(trained.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=model["vocab"] | {"<|endoftext|>": len(model["vocab"])},
        merges=[tuple(pair) for pair in model["merges"]],
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )


def qwen_vl(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": T5_WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [2, 3, 3]},
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": T5_WIDTH}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)).eval()


def frame_latents() -> AutoencoderKLQwenImage:
    """Qwen-Image's kind of autoencoder, with a mean and a deviation for each channel; factor 2."""
    latents = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=16,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1 * k - 0.5 for k in range(16)],
        latents_std=[1 + 0.1 * k for k in range(16)],
    ).eval()
    with torch.no_grad():  # images with as much contrast as those of the others
        latents.decoder.conv_out.weight.mul_(2)
    return latents


def save_qwen_image(folder: Path, seed: int, heads: int = 2, layers: int = 2) -> None:
    """Qwen-Image's kind of pipeline."""
    tokenizer = qwen_vl_tokenizer()
    torch.manual_seed(seed)
    transformer = QwenImageTransformer2DModel(
        num_layers=layers,
        attention_head_dim=16,
        num_attention_heads=heads,
        joint_attention_dim=T5_WIDTH,
        axes_dims_rope=(4, 6, 6),
    ).eval()
    for block in transformer.transformer_blocks:  # so that a short text counts beside the image
        torch.nn.init.normal_(block.attn.add_v_proj.weight)
    QwenImagePipeline(
        transformer=lively(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(**SHIFTING, shift_terminal=0.02),
        vae=frame_latents(),
        text_encoder=qwen_vl(tokenizer),
        tokenizer=tokenizer,
    ).save_pretrained(folder, safe_serialization=True)


def vocabulary(trained: Any) -> dict[str, Any]:
    """Tokens and merges of a trained tokenizer, as those of transformers take them."""
    model = json.loads(trained.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


def gemma_tokenizer() -> GemmaTokenizer:
    """A tokenizer of Gemma's kind (byte pairs of words that begin with a space), which writes a mark before texts."""
    trained = SentencePieceBPETokenizer()
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    texts = [*captions(), *[LUMINA2.texts[0].system] * 50]
    trained.train_from_iterator(texts, vocab_size=700, special_tokens=special, show_progress=False)
    return GemmaTokenizer(**vocabulary(trained), add_bos_token=True)


# Qwen3's, of one message and the beginning of an answer.
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def qwen_tokenizer() -> Qwen2Tokenizer:
    """A tokenizer of Qwen's kind (byte pairs of bytes) with a template for chats."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(captions(), vocab_size=400, special_tokens=["<|endoftext|>"], show_progress=False)
    tokenizer = Qwen2Tokenizer(**vocabulary(trained), additional_special_tokens=["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = CHAT
    return tokenizer


def language_model(kind: Any, config: Any, tokenizer: Any, layers: int = 3) -> Any:
    """A small Gemma2Model or Qwen3Model."""
    return kind(
        config(
            vocab_size=len(tokenizer),
            hidden_size=LANGUAGE_WIDTH,
            intermediate_size=48,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    ).eval()


def save_lumina2(folder: Path, seed: int, heads: int = 4, layers: int = 2, **schedule: Any) -> None:
    """Lumina Image 2.0's kind of pipeline."""
    tokenizer = gemma_tokenizer()
    torch.manual_seed(seed)
    transformer = Lumina2Transformer2DModel(
        sample_size=SIDE,
        hidden_size=16 * heads,
        num_layers=layers,
        num_refiner_layers=1,
        num_attention_heads=heads,
        num_kv_heads=heads // 2,
        multiple_of=16,
        axes_dim_rope=(4, 6, 6),
        axes_lens=(300, 16, 16),
        cap_feat_dim=LANGUAGE_WIDTH,
    ).eval()
    Lumina2Pipeline(
        transformer=lively(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 6.0, **schedule}),
        vae=latents_of(16),
        text_encoder=language_model(Gemma2Model, Gemma2Config, tokenizer),
        tokenizer=tokenizer,
    ).save_pretrained(folder, safe_serialization=True)


def save_z_image(folder: Path, seed: int, heads: int = 4, layers: int = 2, **schedule: Any) -> None:
    """Z-Image's kind of pipeline."""
    tokenizer = qwen_tokenizer()
    torch.manual_seed(seed)
    transformer = ZImageTransformer2DModel(
        dim=16 * heads,
        n_layers=layers,
        n_refiner_layers=1,
        n_heads=heads,
        n_kv_heads=heads,
        cap_feat_dim=LANGUAGE_WIDTH,
        axes_dims=(4, 6, 6),
        axes_lens=(1024, 16, 16),
    ).eval()
    torch.nn.init.normal_(transformer.x_pad_token)  # zeros until they are trained
    torch.nn.init.normal_(transformer.cap_pad_token)
    ZImagePipeline(
        transformer=lively(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 6.0, **schedule}),
        vae=latents_of(16),
        text_encoder=language_model(Qwen3Model, Qwen3Config, tokenizer),
        tokenizer=tokenizer,
    ).save_pretrained(folder, safe_serialization=True)


# Mistral's, of what the system and a user say.
INSTRUCTED = (
    "{{ bos_token }}{% for message in messages %}{% for part in message.content %}"
    "{% if message.role == 'system' %}[SYSTEM_PROMPT]{{ part.text }}[/SYSTEM_PROMPT]"
    "{% else %}[INST]{{ part.text }}[/INST]{% endif %}{% endfor %}{% endfor %}"
)


def mistral_processor() -> PixtralProcessor:
    """A processor of Mistral 3's kind; its tokenizer (byte pairs of words) fills texts up on their left."""
    trained = SentencePieceBPETokenizer()
    marks = ["[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    special = ["<unk>", "<s>", "</s>", "<pad>", *marks, *(f"<0x{byte:02X}>" for byte in range(256))]
    texts = [*captions(), *[FLUX2.texts[0].instruction] * 50]
    trained.train_from_iterator(texts, vocab_size=700, special_tokens=special, show_progress=False)
    options: dict[str, Any] = {"pad_token": "<pad>", "padding_side": "left", "additional_special_tokens": marks}
    tokenizer = LlamaTokenizer(**vocabulary(trained), **options)
    tokenizer.chat_template = INSTRUCTED
    return PixtralProcessor(PixtralImageProcessor(), tokenizer, chat_template=INSTRUCTED)


def mistral(tokenizer: LlamaTokenizer) -> Mistral3ForConditionalGeneration:
    text = {
        "model_type": "mistral",
        "vocab_size": len(tokenizer),
        "hidden_size": LANGUAGE_WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 31,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    vision = {"model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    return Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision)).eval()


def patch_latents() -> AutoencoderKLFlux2:
    """FLUX.2's kind of autoencoder, with statistics for each channel of a patch; factor 2, or 4 with the patch."""
    latents = AutoencoderKLFlux2(
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=16,
    ).eval()
    with torch.no_grad():
        latents.bn.running_mean.uniform_(-0.5, 0.5)
        latents.bn.running_var.uniform_(0.5, 2.0)
    return latents


def save_flux2(
    folder: Path, seed: int, heads: int = 2, blocks: tuple[int, int] = (1, 2), distilled: bool = True
) -> None:
    """FLUX.2-dev's kind of pipeline; klein's, whose network reads no guidance and Qwen3's texts, if not so."""
    torch.manual_seed(seed)
    transformer = Flux2Transformer2DModel(
        in_channels=64,
        num_layers=blocks[0],
        num_single_layers=blocks[1],
        attention_head_dim=16,
        num_attention_heads=heads,
        joint_attention_dim=3 * LANGUAGE_WIDTH,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=distilled,
    ).eval()
    parts: dict[str, Any] = {
        "transformer": lively(transformer),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0, **SHIFTING),
        "vae": patch_latents(),
    }
    pipeline: Any
    if distilled:
        processor = mistral_processor()
        pipeline = Flux2Pipeline(**parts, text_encoder=mistral(processor.tokenizer), tokenizer=processor)
    else:
        tokenizer = qwen_tokenizer()
        model = language_model(Qwen3ForCausalLM, Qwen3Config, tokenizer, layers=28)
        pipeline = Flux2KleinPipeline(**parts, text_encoder=model, tokenizer=tokenizer)
    pipeline.save_pretrained(folder, safe_serialization=True)


def lively(transformer: Any) -> Any:
    """A transformer whose modulation is not the zeros of an untrained one, so that texts and blocks count."""
    with torch.no_grad():
        for name, weight in transformer.named_parameters():
            linear = name.endswith((".linear.weight", ".0.weight", "linear_1.weight"))
            if (("norm" in name or "adaLN" in name or "_modulation" in name) and linear) or name.endswith(
                "_mod.1.weight"
            ):
                weight.normal_(std=0.2)
    return transformer


def save_flow_pipelines(folder: Path) -> None:
    """Folders of each family, a smaller guide of each, `flux_schnell`, and `..._shifting`: levels follow the canvas."""
    save_sd3(folder / "sd3", 0)
    save_sd3(folder / "sd3_guide", 1, heads=1, layers=2, dual=())
    save_sd3(folder / "sd3_shifting", 2, dual=(), **SHIFTING)
    save_flux(folder / "flux", 3)
    save_flux(folder / "flux_guide", 4, heads=1, blocks=(1, 1))
    save_flux(folder / "flux_schnell", 5, distilled=False)
    save_chroma(folder / "chroma", 6)
    save_chroma(folder / "chroma_guide", 7, heads=1, blocks=(1, 1))
    save_qwen_image(folder / "qwen_image", 12)
    save_qwen_image(folder / "qwen_image_guide", 13, heads=1, layers=1)
    save_lumina2(folder / "lumina2", 6)
    save_lumina2(folder / "lumina2_guide", 7, heads=2, layers=1)
    save_lumina2(folder / "lumina2_shifting", 8, **SHIFTING)
    save_z_image(folder / "z_image", 9)
    save_z_image(folder / "z_image_guide", 10, heads=2, layers=1)
    save_z_image(folder / "z_image_shifting", 11, **SHIFTING)
    save_flux2(folder / "flux2", 14)
    save_flux2(folder / "flux2_guide", 15, heads=1, blocks=(1, 1))
    save_flux2(folder / "flux2_klein", 16, distilled=False)
    save_flux2(folder / "flux2_klein_guide", 17, heads=1, blocks=(1, 1), distilled=False)
