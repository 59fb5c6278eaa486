"""A transformer reads what its autoencoder and text encoders make, and nothing that sampling does not give it."""

from collections.abc import Mapping

from pipeline.compatibility.parts import Part, channels_of_latents, check_class, check_stored, check_vocabulary
from pipeline.errors import InputError
from pipeline.networks.checkpoints import latent_patch
from pipeline.networks.families import TextPart

# diffusers' and transformers' own values where a configuration leaves a key out.
_CHANNELS = dict.fromkeys(("sd3", "pixel_flow", "lumina2", "z_image"), 16)
_CHANNELS |= dict.fromkeys(("flux", "chroma", "qwen_image"), 64)
_CHANNELS |= dict.fromkeys(("flux2", "flux2_klein"), 128)
_POOLED_WIDTH, _CLIP_WIDTH = 2048, 512
# The key with the width of the text embeddings that a network reads, and that of a text encoder's own.
_WIDTHS_READ: Mapping[str, tuple[str, int]] = {
    **dict.fromkeys(("sd3", "pixel_flow", "flux", "chroma"), ("joint_attention_dim", 4096)),
    **dict.fromkeys(("flux2", "flux2_klein"), ("joint_attention_dim", 15360)),
    "qwen_image": ("joint_attention_dim", 3584),
    "lumina2": ("cap_feat_dim", 1024),
    "z_image": ("cap_feat_dim", 2560),
}
_WIDTHS_MADE: Mapping[str, tuple[str, int]] = {
    "t5": ("d_model", 512),
    "gemma2": ("hidden_size", 2304),
    "qwen3": ("hidden_size", 4096),
    "qwen2_5_vl": ("hidden_size", 8192),
    "mistral3": ("hidden_size", 4096),
}
_LAYERS_MADE: Mapping[str, int] = {"qwen3": 32, "mistral3": 32}
# Keys of a transformer that make it read more than sampling gives it, or in another way.
_OTHER_INPUTS = {
    "guidance_embeds": "a guidance scale",
    "zero_cond_t": "an image to edit",
    "use_additional_t_cond": "whether the image is a layer",
    "use_layer3d_rope": "the layers of an image",
}
_MODEL_TYPES: Mapping[str, tuple[str | None, ...]] = {
    "clip": ("clip_text_model", "clip", None),
    "t5": ("t5",),
    "gemma2": ("gemma2",),
    "qwen3": ("qwen3",),
    "qwen2_5_vl": ("qwen2_5_vl", "qwen2_5_vl_text"),
    "mistral3": ("mistral3", "mistral"),
}
_ANY_TOKENIZER = ("PreTrainedTokenizerFast", "TokenizersBackend", None)
_TOKENIZERS = {
    "t5": ("T5Tokenizer", "T5TokenizerFast", *_ANY_TOKENIZER),
    "gemma2": ("GemmaTokenizer", "GemmaTokenizerFast", *_ANY_TOKENIZER),
    "qwen3": ("Qwen2Tokenizer", "Qwen2TokenizerFast", *_ANY_TOKENIZER),
    "qwen2_5_vl": ("Qwen2Tokenizer", "Qwen2TokenizerFast", *_ANY_TOKENIZER),
    "mistral3": ("LlamaTokenizer", "LlamaTokenizerFast", *_ANY_TOKENIZER),
}


def check_transformer(network: Part, vae: Part) -> None:
    """Raise InputError where a transformer does not read and predict the samples of the autoencoder `vae`."""
    family, settings = network.checkpoint.family, network.settings
    if settings is None:
        return
    check_class(network, family.model_name)
    check_stored(network)
    reads = network.number("in_channels", _CHANNELS[family.name])
    predicts = reads if settings.get("out_channels") is None else network.number("out_channels", reads)
    if family.name == "qwen_image" and predicts != reads:  # as positions have them, which are what a patch is made of
        predicts *= network.number("patch_size", 2) ** 2
    if reads != predicts:
        raise InputError(
            f"{network} sets in_channels to {reads} and out_channels to {predicts}: it also reads an image or a mask, "
            "which sampling does not provide; take a plain text-to-image checkpoint"
        )
    for name, what in _OTHER_INPUTS.items():
        if settings.get(name) and name != family.embedded_guidance:
            raise InputError(
                f"{network} sets {name} to true: it reads {what}, which sampling does not provide; take a plain "
                "text-to-image checkpoint"
            )
    if vae.settings is None:
        if family.needs_latents:
            raise InputError(f"{vae.file} is missing; {network.checkpoint.config} is not a complete network folder")
        return
    key, latent = channels_of_latents(vae)
    side = (family.patch(settings) if family.packed else 1) * latent_patch(vae.settings)
    channels = reads // side**2
    if channels != latent:
        raise InputError(
            f"{vae} sets {key} to {latent}, but {network.key} {network.checkpoint.path} reads {channels} "
            "(in_channels); take an autoencoder that fits the transformer"
        )


def check_texts_of_transformer(network: Part, encoders: Mapping[str, Part]) -> None:
    """Raise InputError where text encoders, by part, do not fit the transformer."""
    family, settings = network.checkpoint.family, network.settings
    if settings is None:
        return
    for encoder in encoders.values():
        if encoder.settings is None:
            raise InputError(f"{encoder.file} is missing; {encoder.checkpoint.config} is not a complete network folder")
    tokens, pooled = 0, 0
    for text in family.texts:
        encoder = encoders[text.part]
        model = (encoder.settings or {}).get("model_type")
        if model not in _MODEL_TYPES[text.kind]:
            raise InputError(f"{encoder} describes a {model} model, but family {family.name} reads a {text.kind} there")
        check_stored(encoder)
        if text.kind != "clip":
            _check_tokenizer(encoder, text.kind)
            tokens = encoder.number(*_WIDTHS_MADE[text.kind]) * max(1, len(text.layers))
            _check_depth(encoder, text)
            continue
        check_vocabulary(encoder, text.pooled is not None)
        width = encoder.number("hidden_size", _CLIP_WIDTH)
        pooled += encoder.number("projection_dim", _CLIP_WIDTH) if text.pooled == "projection" else width
        if text.tokens and not any(other.kind == "t5" for other in family.texts):
            tokens += width
    key, width = _WIDTHS_READ[family.name]
    widths = {key: (width, tokens)}
    if any(text.pooled for text in family.texts):
        widths["pooled_projection_dim"] = (_POOLED_WIDTH, pooled)
    for name, (default, own) in widths.items():
        read = network.number(name, default)
        if read != own:
            raise InputError(
                f"{network} sets {name} to {read}, but the text embeddings of {network.checkpoint.config} have width "
                f"{own}; take text encoders that fit the transformer"
            )


def _check_depth(encoder: Part, text: TextPart) -> None:
    deepest = max(text.layers, default=0)
    if deepest and (layers := encoder.number("num_hidden_layers", _LAYERS_MADE[text.kind])) < deepest:
        raise InputError(
            f"{encoder} sets num_hidden_layers to {layers}, and the network reads layer {deepest} of {text.title}; "
            "take the text encoder of the same checkpoint"
        )


def _check_tokenizer(encoder: Part, kind: str) -> None:
    folder = encoder.part.replace("text_encoder", "tokenizer")
    name = (encoder.checkpoint.mapping(f"{folder}/tokenizer_config.json") or {}).get("tokenizer_class")
    known = _TOKENIZERS[kind]
    if name not in known:
        raise InputError(
            f"{encoder.key}: {encoder.checkpoint.config / folder / 'tokenizer_config.json'} describes {name}, but only "
            f"{known[0]} is supported; take a checkpoint with one"
        )
