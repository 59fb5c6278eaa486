"""What generating a study will take, by arithmetic from configurations alone (pipeline/cost/size.py)."""

from collections import Counter
from dataclasses import dataclass
from functools import cache

import torch

from pipeline.cost.size import H100, Size, decoding_of, described, evaluation_of, size_of, values_of
from pipeline.generation.arm_guidance import guidance_of
from pipeline.generation.shard_plan import arm_texts, main_checkpoint
from pipeline.guidance.algebra import Network
from pipeline.networks.checkpoints import Checkpoint, locate
from pipeline.networks.families import TextPart
from pipeline.networks.text.language_model_tower import language_model_tokens, load_language_tokenizer, tokens_read
from pipeline.networks.weights.loaded_part import DTYPES
from pipeline.study.study import Study

_CLIP_TOKENS = 77
# Images of each arm whose texts say how long texts are.
_SAMPLED = 500


@dataclass(frozen=True)
class Estimate:
    """What generating a study takes: seconds on an H100 at 40 % of its peak, and the most bytes of memory."""

    seconds: float
    memory: int


def study_estimate(study: Study) -> str:
    """What generating a study takes, in words."""
    found, arms, images = estimated(study), len(study.arms), study.generate.images
    return (
        f"this study: {arms} arm{'s' if arms > 1 else ''} x {images:,} images, about {_hours(found.seconds / 3600)} on "
        f"one H100 at 40 % of its peak, {found.memory / 1e9:.0f} GB (arithmetic, not a measurement)"
    )


def estimated(study: Study) -> Estimate:
    """What generating a study takes.

    Every prediction of an arm counts at every step, whatever its schedule leaves out, and texts as CLIP's first chunk,
    T5's whole length or, for a language model, the longest of the first images' texts. Text encoders count by
    themselves where they are dropped before the network is loaded. A part that is offloaded counts as its largest
    layer, an autoencoder while it decodes.
    """
    model, batch = study.model, study.generate.batch
    dtype = DTYPES[model.loading.dtype]
    bytes_each = torch.finfo(dtype).bits // 8
    main = main_checkpoint(model)
    sources: dict[Network, Checkpoint] = {"main": main}

    @cache
    def network_size(name: Network, height: int, width: int) -> Size:
        source, family = sources[name], sources[name].family
        own = described(family.model_class, source.settings(family.network) or {}, dtype)
        return size_of(own, evaluation_of(family, own, height, width, _tokens(study, main)))

    @cache
    def decoder_size(height: int, width: int) -> Size:
        settings = main.settings("vae") or {}
        vae = described(main.family.autoencoder_class, settings, dtype)
        return size_of(vae, decoding_of(vae, height, width))

    flops, weights, evaluated, decoded = 0, {}, 0, 0
    for arm in study.arms.values():
        counted = Counter(prediction.network for prediction in guidance_of(arm).predictions())
        if "guide" in counted:
            sources.setdefault("guide", locate(model.guide, model.config_of_guide))
        width, height = (arm.canvas.width, arm.canvas.height) if arm.canvas is not None else main.canvas
        extent = (height // main.factor, width // main.factor)
        decoder = decoder_size(*extent)
        weights["vae"] = decoder.values
        decoded = max(decoded, decoder.activations)
        for name, count in counted.items():
            size = network_size(name, *extent)
            weights[name] = size.largest_layer if name in model.loading.offload else size.values
            flops += size.flops * count * study.sampler_of(arm).steps * study.generate.images
            # The predictions of one network are one call.
            evaluated = max(evaluated, size.activations * count)
    texts = _text_weights(study, main) * bytes_each
    autoencoder = weights.pop("vae", 0) * bytes_each
    held = sum(weights.values()) * bytes_each + (0 if main.family.encodes_first else texts)
    away = autoencoder if "vae" in model.loading.offload else 0
    memory = max(texts, held + autoencoder + max(evaluated * batch - away, decoded * batch))
    return Estimate(flops / H100, memory)


def _text_weights(study: Study, main: Checkpoint) -> int:
    """The values of the text encoders that are on the accelerator at a time."""
    encoder = main.family.load_texts(main, torch.device("cpu"), study.text, weights=False)
    sizes = [values_of(tower.model) for tower in encoder.towers]
    if "text_encoders" in study.model.loading.offload:
        return max(largest for _, largest in sizes)
    return sum(whole for whole, _ in sizes)


def _tokens(study: Study, main: Checkpoint) -> int:
    whole = main.family.whole_text
    if whole is not None and whole.padded:
        return whole.length
    if whole is not None and whole.is_language_model:
        return _longest(study, main, whole)
    tokenizer = main.mapping("tokenizer/tokenizer_config.json") or {}
    context = min(int(tokenizer.get("model_max_length", _CLIP_TOKENS)), _CLIP_TOKENS)
    clip = any(text.kind == "clip" and text.tokens for text in main.family.texts)
    longer = [study.text.t5_length or text.length for text in main.family.texts if text.kind == "t5"]
    return clip * context * study.text.chunks + sum(longer)


def _longest(study: Study, main: Checkpoint, whole: TextPart) -> int:
    """The most tokens that the network reads of a text of the first images."""
    images = min(study.generate.images, _SAMPLED)
    study = study.model_copy(update={"generate": study.generate.model_copy(update={"images": images})})
    texts = {
        whole.system + text if kind == "prompt" else text
        for name in study.arms
        for kind, own in arm_texts(study, name).items()
        for text in own
    }
    tokenizer = load_language_tokenizer(main.config, whole)
    return max(tokens_read(language_model_tokens(text, tokenizer, whole, study.text), whole) for text in texts)


def _hours(hours: float) -> str:
    return f"{hours:.0f} h" if hours >= 10 else f"{hours:.1f} h" if hours >= 1 else f"{max(1, round(60 * hours))} min"
