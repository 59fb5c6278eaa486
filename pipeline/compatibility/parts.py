"""The parts of a study's networks fit each other, and the UNets read nothing that sampling does not give them.

All of it is read from configurations: main network and guide, autoencoder and text encoders. Missing files are named
where files are looked for (pipeline/networks/weights/weight_files.py).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.compatibility.declarations import UNET_DEFAULTS
from pipeline.errors import InputError
from pipeline.networks.checkpoints import Checkpoint, latent_patch, latent_space, of_videos, reads_masks
from pipeline.networks.families import SD, patch_side

# What a UNet reads besides a noisy sample, its noise level and texts, by the key of its configuration: the values that
# add nothing, and what any other adds.
_INPUTS: dict[str, tuple[tuple[Any, ...], str]] = {
    "time_cond_proj_dim": ((None,), "the guidance scale (a latent consistency model, arXiv 2310.04378)"),
    "class_embed_type": ((None,), "a class label"),
    "num_class_embeds": ((None,), "a class label"),
    "encoder_hid_dim_type": ((None, "text_proj"), "the embedding of an image"),
    "attention_type": (("default", None), "boxes (GLIGEN)"),
}
_NOT_GIVEN = "sampling does not provide; take a plain text-to-image checkpoint"
# diffusers' and transformers' own values where a configuration leaves a key out.
_TEXT_WIDTH, _TEXT_POSITIONS, _POOLED_WIDTH = 512, 77, 512
_VOCABULARY, _END = 49408, "<|endoftext|>"
_TEXT_MODELS = ("clip_text_model", "clip", None)
_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast", None)


@dataclass(frozen=True)
class Part:
    """A part's configuration, with the study's key that names its checkpoint."""

    key: str
    checkpoint: Checkpoint
    part: str

    @property
    def settings(self) -> Mapping[str, Any] | None:
        """None where the checkpoint has no such part."""
        found = self.checkpoint.settings(self.part)
        # A whole CLIP, of which the text encoder is taken.
        own = found.get("text_config") if found is not None and self.part.startswith("text_encoder") else None
        return own if isinstance(own, dict) else found

    @property
    def file(self) -> Path:
        return self.checkpoint.config / self.part / "config.json"

    def __str__(self) -> str:
        return f"{self.key}: {self.file}"

    def number(self, name: str, default: int) -> int:
        """The whole number that the configuration gives for `name`. Raises InputError where it gives another value."""
        value = (self.settings or {}).get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{self} sets {name} to {value}, which must be a whole number; fetch it again")
        return value

    @property
    def context(self) -> int:
        """Tokens that a text encoder reads at once: what its tokenizer cuts to and it has positions for."""
        tokenizer = self.checkpoint.mapping(f"{self.part.replace('text_encoder', 'tokenizer')}/tokenizer_config.json")
        length, positions = (
            (tokenizer or {}).get("model_max_length"),
            self.number("max_position_embeddings", _TEXT_POSITIONS),
        )
        return min(int(length), positions) if isinstance(length, int | float) and length > 0 else positions


def check_stored(part: Part) -> None:
    """Raise InputError where a part's weights are stored in a way that only another library reads."""
    found = (part.settings or {}).get("quantization_config")
    if found is None:
        found = (part.checkpoint.settings(part.part) or {}).get("quantization_config")
    if found:
        method = found.get("quant_method") if isinstance(found, dict) else None
        raise InputError(
            f"{part} has a quantization_config{f' ({method})' if method else ''}, which is not supported; "
            "take the checkpoint in float32, float16 or bfloat16"
        )


def check_inputs(key: str, checkpoint: Checkpoint) -> None:
    """Raise InputError where the UNet of `checkpoint`, which the study names in `key`, is asked for what it cannot be.

    It may read a noisy sample, its noise level, texts, and what its family adds to them.
    """
    unet = Part(key, checkpoint, "unet")
    settings = unet.settings
    if settings is None:
        return
    check_class(unet, "UNet2DConditionModel")
    check_stored(unet)
    for name, (nothing, what) in _INPUTS.items():
        value = settings.get(name, nothing[0])
        if value not in nothing:
            raise InputError(f"{unet} sets {name} to {value}: its UNet reads {what}, which {_NOT_GIVEN}")
    added, family = settings.get("addition_embed_type"), checkpoint.family
    if added not in family.additions:
        raise InputError(
            f"{unet} sets addition_embed_type to {_word(added)}, but UNets of family {family.name} have "
            f"{' or '.join(map(_word, family.additions))}; "
            "take a plain text-to-image checkpoint of that family"
        )


def check_samples(key: str, checkpoint: Checkpoint, vae: Part) -> None:
    """Raise InputError where the UNet of `checkpoint` does not read and predict the samples of the autoencoder `vae`.

    A network without an autoencoder reads and predicts patches of pixels.
    """
    unet = Part(key, checkpoint, "unet")
    if unet.settings is None:
        return
    reads, predicts = (unet.number(name, UNET_DEFAULTS[name]) for name in ("in_channels", "out_channels"))
    latent = None if vae.settings is None else channels_of_latents(vae)[1]
    if latent is None and patch_side(predicts) is None:
        return  # neither latents nor patches, which is said where the autoencoder is missed
    samples = "patches" if latent is None else "latents"
    channels = predicts if latent is None else latent
    if predicts not in (channels, reads):
        raise InputError(
            f"{unet} sets out_channels to {predicts} and in_channels to {reads}: it also predicts a variance, "
            "which is not supported; take a checkpoint that predicts as many channels as it reads"
        )
    if predicts != channels:
        raise InputError(
            f"{vae} sets latent_channels to {latent}, but {key} {checkpoint.path} predicts {predicts} "
            "(out_channels); take an autoencoder that fits the UNet"
        )
    if latent is not None and reads_masks(reads, predicts):
        return  # what it reads besides samples, an arm may give it (inpainting.py)
    more = reads - channels
    if more < 0:
        raise InputError(
            f"{unet} sets in_channels to {reads}, but {samples} have {channels} channels; "
            "take a checkpoint whose UNet and autoencoder fit"
        )
    if more:
        image = "an image (InstructPix2Pix)"
        what = image if more == channels else f"{more} more channel{'s' if more > 1 else ''}"
        raise InputError(
            f"{unet} sets in_channels to {reads}, but {samples} have {channels} channels: "
            f"its UNet also reads {what}, which {_NOT_GIVEN}"
        )


def check_autoencoder(own: Part, used: Part) -> None:
    """Raise InputError where the autoencoder `used` is not for images or has other latents than the main one's `own`.

    Which UNet reads them is known by the autoencoder that it came with.
    """
    settings = used.settings
    if settings is None:
        return
    check_class(used, own.checkpoint.family.autoencoder_name)
    check_stored(used)
    for name in ("in_channels", "out_channels", "input_channels"):
        if used.number(name, 3) != 3:
            raise InputError(
                f"{used} sets {name} to {settings[name]}: images have 3 channels; take an autoencoder for RGB images"
            )
    scale: Any = settings.get("scaling_factor")
    has_statistics = of_videos(settings) or latent_patch(settings) > 1
    if "scaling_factor" not in settings and own.checkpoint.family is not SD and not has_statistics:
        raise InputError(
            f"{used} states no scaling_factor, which only Stable Diffusion 1.x and 2.x may leave out; "
            "fetch the autoencoder's own configuration"
        )
    if "scaling_factor" in settings and (type(scale) not in (int, float) or scale <= 0):
        raise InputError(
            f"{used} sets scaling_factor to {_word(scale)}, which must be a positive number; fetch it again"
        )
    for name in ("latents_mean", "latents_std"):
        values, (key, channels) = settings.get(name), channels_of_latents(used)
        if values is not None and (not isinstance(values, list) or len(values) != channels):
            raise InputError(
                f"{used} has {name} that are not {channels} numbers, one for each of its {key}; "
                "fetch the autoencoder's own configuration"
            )
    if own.settings is not None and latent_space(settings) != latent_space(own.settings):
        raise InputError(
            f"{used} describes other latents ({latent_space(settings)}) than the autoencoder of "
            f"{own.key} {own.checkpoint.path} ({latent_space(own.settings)}); take an autoencoder with the same latents"
        )


def channels_of_latents(vae: Part) -> tuple[str, int]:
    """The channels of an autoencoder's latents, after the key that gives them. Raises InputError."""
    key, default = ("z_dim", 16) if of_videos(vae.settings or {}) else ("latent_channels", 4)
    return key, vae.number(key, default)


def check_texts(unet: Part, encoders: Mapping[str, Part]) -> None:
    """Raise InputError where text encoders, by part, do not fit the UNet or, read side by side, each other."""
    if unet.settings is None or any(encoder.settings is None for encoder in encoders.values()):
        return
    pooled = [encoders[text.part] for text in unet.checkpoint.family.texts if text.pooled]
    for encoder in encoders.values():
        model = (encoder.settings or {}).get("model_type")
        if model not in _TEXT_MODELS:
            raise InputError(
                f"{encoder} describes a {model} model, but only CLIP text encoders are supported; "
                "take a checkpoint with one"
            )
        check_stored(encoder)
        check_vocabulary(encoder, encoder in pooled)
    first, *others = encoders.values()
    for other in others:
        if other.context != first.context:
            raise InputError(
                f"{first} and its tokenizer read {first.context} tokens at once, {other.file} and its tokenizer "
                f"{other.context}; their embeddings are joined token by token, so take text encoders of equal contexts"
            )
    width = sum(encoder.number("hidden_size", _TEXT_WIDTH) for encoder in encoders.values())
    for name, read in _widths_read(unet):
        if read != width:
            raise InputError(
                f"{unet} sets {name} to {read}, but the text embeddings of {_listed(encoders)} have "
                f"width {width}; take text encoders that fit the UNet"
            )
    family = unet.checkpoint.family
    if family.sizes is not None and pooled:
        sizes = len(family.sizes(1, 1)) * unet.number("addition_time_embed_dim", 0)
        own = pooled[0].number("projection_dim", _POOLED_WIDTH) + sizes
        read = unet.number("projection_class_embeddings_input_dim", 0)
        if read != own:
            raise InputError(
                f"{unet} sets projection_class_embeddings_input_dim to {read}, but the pooled "
                f"embedding of {pooled[0].file} and the image's sizes have width {own}; "
                "take text encoders that fit the UNet"
            )


def check_vocabulary(encoder: Part, is_pooled: bool) -> None:
    """Raise InputError where a tokenizer is not CLIP's, or makes tokens that the text encoder reads wrongly."""
    folder = encoder.checkpoint.config / encoder.part.replace("text_encoder", "tokenizer")
    settings = encoder.checkpoint.mapping(f"{folder.name}/tokenizer_config.json") or {}
    name = settings.get("tokenizer_class")
    if name not in _TOKENIZERS:
        raise InputError(
            f"{encoder.key}: {folder / 'tokenizer_config.json'} describes {name}, but only CLIPTokenizer is supported; "
            "take a checkpoint with one"
        )
    tokens, size = _tokens(encoder.checkpoint, folder.name), encoder.number("vocab_size", _VOCABULARY)
    last = max(tokens.items(), key=lambda pair: pair[1], default=None)
    if last is not None and last[1] >= size:
        raise InputError(
            f"{encoder} sets vocab_size to {size}, but the tokenizer beside it has token {last[1]} ({last[0]}); fetch "
            "the text encoder that was trained with this tokenizer, or the tokenizer without added tokens"
        )
    end = tokens.get(_END)
    # With the 2 of early configurations transformers takes the token with the largest number for the end mark.
    takes_last = is_pooled and (encoder.settings or {}).get("eos_token_id") == 2
    if takes_last and end is not None and last is not None and last[1] > end:
        raise InputError(
            f"{encoder} sets eos_token_id to 2, but the tokenizer beside it ends texts with {end} and has token "
            f"{last[1]} ({last[0]}) above it, where the pooled embedding would be taken; set eos_token_id to {end}"
        )


def _tokens(checkpoint: Checkpoint, folder: str) -> dict[str, int]:
    """The tokens of a tokenizer with their numbers, as far as its files give them."""
    whole = checkpoint.mapping(f"{folder}/tokenizer.json") or {}
    model, added = whole.get("model"), whole.get("added_tokens")
    found: dict[str, Any] = {
        **((model.get("vocab") if isinstance(model, dict) else None) or {}),
        **(checkpoint.mapping(f"{folder}/vocab.json") or {}),
        **(checkpoint.mapping(f"{folder}/added_tokens.json") or {}),
        **{str(one.get("content")): one.get("id") for one in (added or ()) if isinstance(one, dict)},
    }
    return {token: number for token, number in found.items() if isinstance(number, int)}


def _widths_read(unet: Part) -> Iterator[tuple[str, int]]:
    settings = unet.settings or {}
    if settings.get("encoder_hid_dim") is not None:
        yield "encoder_hid_dim", settings["encoder_hid_dim"]
        return
    widths = settings.get("cross_attention_dim", UNET_DEFAULTS["cross_attention_dim"])
    for width in widths if isinstance(widths, list) else [widths]:
        yield "cross_attention_dim", width


def _listed(encoders: Mapping[str, Part]) -> str:
    return " and ".join(str(encoder.file.parent) for encoder in encoders.values())


def check_class(part: Part, known: str) -> None:
    """Raise InputError where a part is of another class of diffusers' than `known`."""
    name = (part.settings or {}).get("_class_name", known)
    if name != known:
        raise InputError(f"{part} describes {name}, but only {known} is supported; take a checkpoint with one")


def _word(value: object) -> str:
    return "null" if value is None else str(value)
