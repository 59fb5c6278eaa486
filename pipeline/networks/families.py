"""The families of networks: which part of a checkpoint makes it one of a family, and what a family asks for.

A family is one record here and one module that loads and runs its networks, named by the record and imported when a
network is loaded. Everything else reads the record, without torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Literal

from pipeline.errors import InputError
from pipeline.guidance.postprocess.post_process import PostProcess
from pipeline.guidance.postprocess.results import Renorm
from pipeline.networks.noise_path import RECTIFIED_FLOW, VARIANCE_PRESERVING, NoisePath
from pipeline.study.solvers import solvers_along

# What UNets that are mixed must have in common, by the key of their configuration: they see the same noisy sample and
# the same texts.
_UNETS_SHARE = {
    "in_channels": "channels of a sample",
    "cross_attention_dim": "width of the text embeddings",
    "addition_embed_type": "kind of added conditioning (text_time is SDXL's)",
    "projection_class_embeddings_input_dim": "width of the added conditioning",
}


# What transformers that are mixed must have in common: they see the same noisy latents and the same texts. Their own
# width and number of blocks may differ.
_TRANSFORMERS_SHARE = {
    "in_channels": "channels of a sample",
    "joint_attention_dim": "width of the text embeddings",
    "pooled_projection_dim": "width of the pooled text embedding",
}
_STREAMS_SHARE = {
    "in_channels": "channels of a sample",
    "cap_feat_dim": "width of the text embeddings",
}

# What Lumina2Pipeline writes before every prompt, and not before a negative prompt.
_LUMINA2_SYSTEM = (
    "You are an assistant designed to generate superior images with the superior degree of image-text alignment based "
    "on textual prompts or user prompts. <Prompt Start> "
)
# The message as which QwenImagePipeline has every text read. Its embeddings before the text are dropped.
_QWEN_IMAGE_TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
_QWEN_IMAGE_DROPPED = 34
# What Flux2Pipeline tells its language model to do, before every text.
_FLUX2_INSTRUCTION = (
    "You are an AI that reasons about image descriptions. You give structured responses focusing on object "
    "relationships, object\nattribution and actions without speculation."
)


@dataclass(frozen=True)
class TextPart:
    """A text encoder of a checkpoint.

    CLIP reads chunks of its context with weighted words; T5 reads a whole text of up to `length` tokens, filled up to
    them, without weights; a language model (gemma2, qwen3, qwen2_5_vl, mistral3) reads a whole text of up to `length`
    tokens as it is, or (`padded`) filled up to them, with padding that the network reads as well.
    A text's `pooled` embedding is the projection of its end mark, or (`end`) its last layer there as it is. `tokens`:
    whether the network reads its embeddings of single tokens. `masked`: T5 reads no padding, and the network the first
    token of it alone.
    A language model is told `system` before each prompt, and not before a negative one. With `chat`, the options of its
    tokenizer's template, it reads every text as a user's message in that template, after the system's message
    `instruction` where there is one. `template` is what the family writes around every text, which replaces its `{}`.
    The network is not given the embeddings of the first `dropped` tokens. An embedding is what leaves the last layer,
    or what leaves each of `layers`, counted from 1, side by side.
    """

    part: str
    pooled: Literal["projection", "end"] | None = None
    kind: Literal["clip", "t5", "gemma2", "qwen3", "qwen2_5_vl", "mistral3"] = "clip"
    tokens: bool = True
    length: int = 0
    masked: bool = False
    padded: bool = False
    system: str = ""
    chat: Mapping[str, bool] | None = None
    instruction: str = ""
    template: str = "{}"
    dropped: int = 0
    layers: tuple[int, ...] = ()

    @property
    def is_language_model(self) -> bool:
        """Whether it is a language model, made to continue texts."""
        return self.kind not in ("clip", "t5")

    @property
    def around(self) -> tuple[str, str]:
        """What is written before and after every text."""
        before, _, after = self.template.partition("{}")
        return before, after

    @property
    def title(self) -> str:
        """What people call it."""
        names = {"gemma2": "Gemma 2", "qwen3": "Qwen3", "qwen2_5_vl": "Qwen2.5-VL", "mistral3": "Mistral Small 3"}
        return names.get(self.kind, self.kind.upper())


@dataclass(frozen=True)
class Family:
    """One family of networks.

    `pipelines` are the classes of model_index.json that it answers to; a folder without that file is one of the family
    if `unlabelled` says so of the configuration of its `network`, empty where there is none, and of whether an
    autoencoder is beside it.
    `texts` are the text encoders; `penultimate`: each is read at its last layer but one, without the final norm.
    `zero_empty`: an empty reference text reads as zeros, unless model_index.json says otherwise
    (force_zeros_for_empty_prompt).
    `added` are the conditions besides the tokens, with the name that the network has for each; `sizes` gives the row
    of `time_ids` for an image of (height, width) in pixels. `additions` are the values of a UNet's addition_embed_type
    that need no more than that. `architectures` are ModelSpec's names (modelspec.architecture) of its checkpoints, or
    their beginnings. `network` is the part that denoises, `model` its class ("module:class"), `shared` the keys of
    its configuration in which guide and main must agree, in words, `path` the noise path of its training.
    `patch` gives the side of the patches that the network cuts latents into, by its configuration; a canvas is whole
    patches, and a `packed` network is given them as its channels. `grid` gives the most patches in one direction that
    it has positions for, None for any number. `side` is the trained canvas in positions of latents, where
    configurations do not say it. `one_stream`: its blocks have text and image in one stream. `embedded_guidance` is the
    key of its configuration that says whether it reads a guidance scale. `post` are the post-processes that its
    pipeline has built in. `autoencoder` is the class of its autoencoder ("module:class"). `needs_latents`: it works on
    latents alone. `encodes_first`: its text encoders are so large that they are dropped before the network is loaded.
    `network_alone`: its single files hold the network, and other parts come from the folder of the configurations.
    `loader` and `text_loader` are "module:function", imported by `load` and `load_texts`.
    """

    name: str
    pipelines: tuple[str, ...]
    unlabelled: Callable[[Mapping[str, Any], bool], bool]
    texts: tuple[TextPart, ...] = (TextPart("text_encoder"),)
    penultimate: bool = False
    zero_empty: bool = False
    added: Mapping[str, str] = field(default_factory=dict)
    sizes: Callable[[int, int], tuple[float, ...]] | None = None
    additions: tuple[str | None, ...] = (None,)
    architectures: tuple[str, ...] = ()
    network: str = "unet"
    model: str = "diffusers:UNet2DConditionModel"
    shared: Mapping[str, str] = field(default_factory=lambda: _UNETS_SHARE)
    path: NoisePath = VARIANCE_PRESERVING
    patch: Callable[[Mapping[str, Any]], int] = lambda _: 1
    packed: bool = False
    grid: Callable[[Mapping[str, Any]], int | None] = lambda network: network.get("pos_embed_max_size")
    side: int | None = None
    one_stream: bool = False
    embedded_guidance: str | None = None
    post: tuple[PostProcess, ...] = ()
    autoencoder: str = "diffusers:AutoencoderKL"
    needs_latents: bool = False
    encodes_first: bool = False
    network_alone: bool = False
    loader: str = "pipeline.networks.denoisers.unet:load_network"
    text_loader: str = "pipeline.networks.text.text_encoder:load_text_encoder"

    @property
    def model_name(self) -> str:
        """The name of its network's class, as configurations have it."""
        return self.model.partition(":")[2]

    @property
    def model_class(self) -> Any:
        """The class of its network."""
        return _imported(self.model)

    @property
    def autoencoder_name(self) -> str:
        """The name of its autoencoder's class, as configurations have it."""
        return self.autoencoder.partition(":")[2]

    @property
    def autoencoder_class(self) -> Any:
        """The class of its autoencoder."""
        return _imported(self.autoencoder)

    @property
    def text_parts(self) -> tuple[str, ...]:
        """The parts of a checkpoint that hold its text encoders."""
        return tuple(text.part for text in self.texts)

    @property
    def solvers(self) -> tuple[str, ...]:
        """The names of the solvers that step along its noise path."""
        return solvers_along(self.path.name)

    @property
    def reads_clip(self) -> bool:
        """Whether it reads tokens of a CLIP.

        Weights of words and chunks mean something to it then, and layers of CLIPs in a LoRA are added to its own.
        """
        return any(text.kind == "clip" and text.tokens for text in self.texts)

    @property
    def whole_text(self) -> TextPart | None:
        """The text encoder that reads a whole text of limited length, and neither weights nor chunks; None for CLIP."""
        return next((text for text in self.texts if text.kind != "clip"), None)

    @property
    def reads_clip_alone(self) -> bool:
        """Whether all that it reads of a text are tokens of CLIPs: embeddings can then stand in it."""
        return all(text.kind == "clip" and text.tokens for text in self.texts)

    @property
    def layers_left_out(self) -> int:
        """The layers at the end of a text encoder that are left out without being asked."""
        return int(self.penultimate)

    @property
    def load(self) -> Callable[..., Any]:
        """The function that loads its networks (`pipeline.networks.denoisers.unet.load_network` for UNets)."""
        return _imported(self.loader)

    @property
    def denoiser(self) -> Any:
        """The class of a transformer's denoiser, of which `load` is a method."""
        load: Any = self.load
        return load.__self__

    @property
    def load_texts(self) -> Callable[..., Any]:
        """The function that loads its text encoders."""
        return _imported(self.text_loader)


def _imported(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def patch_side(channels: int) -> int | None:
    """The side of the RGB patches that a pixel network's channels are: 3, 12, 48 ... are 1, 2, 4 ...; else None."""
    side = round((channels / 3) ** 0.5)
    return side if 3 * side**2 == channels else None


def _has_sizes(network: Mapping[str, Any]) -> bool:
    return network.get("addition_embed_type") == "text_time"


def _of_pixels(network: Mapping[str, Any], has_autoencoder: bool) -> bool:
    patches = patch_side(int(network.get("in_channels", 3))) is not None
    return patches and not has_autoencoder and not _has_sizes(network)


def _sd3_of_pixels(network: Mapping[str, Any]) -> bool:
    # SD3's own latents have 16 channels, diffusers' value where the configuration leaves it out.
    return network.get("_class_name") == "SD3Transformer2DModel" and network.get("in_channels", 16) == 3


def _flux2(network: Mapping[str, Any]) -> bool:
    return network.get("_class_name") == "Flux2Transformer2DModel"


def _patch_size(network: Mapping[str, Any]) -> int:
    return int(network.get("patch_size", 2))


def _rotary_grid(network: Mapping[str, Any]) -> int:
    # Lengths of the tables of positions: text, rows, columns; diffusers' own where the configuration has none.
    _, *sides = network.get("axes_lens") or (1, 512, 512)
    return int(min(sides))


SD = Family(
    name="sd",
    pipelines=("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"),
    unlabelled=lambda network, has: not _has_sizes(network) and not _of_pixels(network, has),
    additions=(None, "text"),
    architectures=("stable-diffusion-v1", "stable-diffusion-v2"),
)
SDXL = Family(
    name="sdxl",
    # StableDiffusionXLImg2ImgPipeline is the refiner, which reads one text encoder and an aesthetic score.
    pipelines=("StableDiffusionXLPipeline", "StableDiffusionXLInpaintPipeline"),
    unlabelled=lambda network, _: _has_sizes(network),
    texts=(TextPart("text_encoder"), TextPart("text_encoder_2", pooled="projection")),
    penultimate=True,
    zero_empty=True,
    added={"pooled": "text_embeds", "time_ids": "time_ids"},
    # Original size, top and left of the crop, target size (arXiv 2307.01952): those of a whole image.
    sizes=lambda height, width: (height, width, 0, 0, height, width),
    additions=("text_time",),
    architectures=("stable-diffusion-xl",),
)
# The embedded networks: pixels in patches, and the pooled text inside the UNet itself.
PIXEL = Family(name="pixel", pipelines=(), unlabelled=_of_pixels, additions=(None, "text"))

# The embedded networks that predict a velocity: SD3's transformer (arXiv 2403.03206) on pixels.
PIXEL_FLOW = Family(
    name="pixel_flow",
    pipelines=(),
    unlabelled=lambda network, _: _sd3_of_pixels(network),
    texts=(TextPart("text_encoder", pooled="end"),),
    network="transformer",
    model="diffusers:SD3Transformer2DModel",
    shared=_TRANSFORMERS_SHARE,
    path=RECTIFIED_FLOW,
    patch=_patch_size,
    loader="pipeline.networks.denoisers.joint_transformer:load_network",
)
# Stable Diffusion 3 and 3.5: two CLIPs side by side, T5 after them.
SD3 = Family(
    name="sd3",
    pipelines=("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline"),
    unlabelled=lambda network, _: network.get("_class_name") == "SD3Transformer2DModel" and not _sd3_of_pixels(network),
    texts=(
        TextPart("text_encoder", pooled="projection"),
        TextPart("text_encoder_2", pooled="projection"),
        TextPart("text_encoder_3", kind="t5", length=256),
    ),
    penultimate=True,
    architectures=("stable-diffusion-v3",),
    network="transformer",
    model="diffusers:SD3Transformer2DModel",
    shared=_TRANSFORMERS_SHARE,
    path=RECTIFIED_FLOW,
    patch=_patch_size,
    needs_latents=True,
    encodes_first=True,
    loader="pipeline.networks.denoisers.joint_transformer:load_network",
)

# FLUX.1: T5's tokens, and a CLIP for the pooled text alone. Its configurations do not say the canvas of training.
FLUX = Family(
    name="flux",
    pipelines=("FluxPipeline", "FluxImg2ImgPipeline"),
    unlabelled=lambda network, _: network.get("_class_name") == "FluxTransformer2DModel",
    texts=(
        TextPart("text_encoder", pooled="end", tokens=False),
        TextPart("text_encoder_2", kind="t5", length=512),
    ),
    architectures=("flux-1",),
    network="transformer",
    model="diffusers:FluxTransformer2DModel",
    shared=_TRANSFORMERS_SHARE,
    path=RECTIFIED_FLOW,
    patch=lambda _: 2,
    packed=True,
    side=128,
    embedded_guidance="guidance_embeds",
    needs_latents=True,
    encodes_first=True,
    network_alone=True,
    loader="pipeline.networks.denoisers.flux_transformer:load_network",
)

# Chroma: FLUX.1's latents and positions, T5 alone, and padding that is masked.
CHROMA = Family(
    name="chroma",
    pipelines=("ChromaPipeline", "ChromaImg2ImgPipeline"),
    unlabelled=lambda network, _: network.get("_class_name") == "ChromaTransformer2DModel",
    texts=(TextPart("text_encoder", kind="t5", length=512, masked=True),),
    architectures=("chroma",),
    network="transformer",
    model="diffusers:ChromaTransformer2DModel",
    shared=_TRANSFORMERS_SHARE,
    path=RECTIFIED_FLOW,
    patch=lambda _: 2,
    packed=True,
    side=128,
    needs_latents=True,
    encodes_first=True,
    network_alone=True,
    loader="pipeline.networks.denoisers.chroma_transformer:load_network",
)

# Qwen-Image: tokens of Qwen2.5-VL, latents of one frame, and a norm that guidance does not change.
QWEN_IMAGE = Family(
    name="qwen_image",
    pipelines=("QwenImagePipeline", "QwenImageImg2ImgPipeline"),
    unlabelled=lambda network, _: network.get("_class_name") == "QwenImageTransformer2DModel",
    texts=(
        TextPart(
            "text_encoder",
            kind="qwen2_5_vl",
            length=512,
            template=_QWEN_IMAGE_TEMPLATE,
            dropped=_QWEN_IMAGE_DROPPED,
        ),
    ),
    architectures=("qwen-image",),
    network="transformer",
    model="diffusers:QwenImageTransformer2DModel",
    shared=_TRANSFORMERS_SHARE,
    path=RECTIFIED_FLOW,
    patch=lambda _: 2,
    packed=True,
    side=128,
    post=(Renorm(name="renorm", per="patch"),),
    autoencoder="diffusers:AutoencoderKLQwenImage",
    needs_latents=True,
    encodes_first=True,
    network_alone=True,
    loader="pipeline.networks.denoisers.qwen_transformer:load_network",
)

# Lumina Image 2.0: image and text in one stream, of Gemma 2's tokens.
LUMINA2 = Family(
    name="lumina2",
    pipelines=("Lumina2Pipeline", "Lumina2Text2ImgPipeline"),
    unlabelled=lambda network, _: network.get("_class_name") == "Lumina2Transformer2DModel",
    texts=(TextPart("text_encoder", kind="gemma2", length=256, system=_LUMINA2_SYSTEM),),
    penultimate=True,
    architectures=("lumina-2",),
    network="transformer",
    model="diffusers:Lumina2Transformer2DModel",
    shared=_STREAMS_SHARE,
    path=RECTIFIED_FLOW,
    patch=_patch_size,
    grid=_rotary_grid,
    one_stream=True,
    post=(Renorm(name="renorm", per="row"),),
    needs_latents=True,
    encodes_first=True,
    network_alone=True,
    loader="pipeline.networks.denoisers.lumina2_transformer:load_network",
)

# Z-Image: image and text in one stream, of Qwen3's tokens. Its configurations do not say the canvas of training.
Z_IMAGE = Family(
    name="z_image",
    pipelines=("ZImagePipeline", "ZImageImg2ImgPipeline"),
    unlabelled=lambda network, _: network.get("_class_name") == "ZImageTransformer2DModel",
    # An answer that may think is asked for, of which nothing is written yet.
    texts=(
        TextPart(
            "text_encoder",
            kind="qwen3",
            length=512,
            chat={"add_generation_prompt": True, "enable_thinking": True},
        ),
    ),
    penultimate=True,
    network="transformer",
    model="diffusers:ZImageTransformer2DModel",
    shared=_STREAMS_SHARE,
    path=RECTIFIED_FLOW,
    patch=lambda _: 2,
    grid=_rotary_grid,
    side=128,
    one_stream=True,
    needs_latents=True,
    encodes_first=True,
    network_alone=True,
    loader="pipeline.networks.denoisers.z_image_transformer:load_network",
)

# FLUX.2: FLUX.1's two kinds of blocks, one modulation for all of a kind, and padding that is read. An autoencoder with
# 2x2 patches as channels; its configurations do not say the canvas of training.
FLUX2 = Family(
    name="flux2",
    pipelines=("Flux2Pipeline",),
    unlabelled=lambda network, _: _flux2(network) and network.get("guidance_embeds", True),
    texts=(
        TextPart(
            "text_encoder",
            kind="mistral3",
            length=512,
            padded=True,
            chat={"add_generation_prompt": False},
            instruction=_FLUX2_INSTRUCTION,
            layers=(10, 20, 30),
        ),
    ),
    architectures=("flux-2-dev", "flux.2-dev"),
    network="transformer",
    model="diffusers:Flux2Transformer2DModel",
    shared=_TRANSFORMERS_SHARE,
    path=RECTIFIED_FLOW,
    side=64,
    embedded_guidance="guidance_embeds",
    autoencoder="diffusers:AutoencoderKLFlux2",
    needs_latents=True,
    encodes_first=True,
    network_alone=True,
    loader="pipeline.networks.denoisers.flux2_transformer:load_network",
)

# FLUX.2 klein: smaller, with Qwen3 and without embedded guidance.
FLUX2_KLEIN = replace(
    FLUX2,
    name="flux2_klein",
    pipelines=("Flux2KleinPipeline",),
    unlabelled=lambda network, _: _flux2(network) and not network.get("guidance_embeds", True),
    texts=(
        TextPart(
            "text_encoder",
            kind="qwen3",
            length=512,
            padded=True,
            chat={"add_generation_prompt": True, "enable_thinking": False},
            layers=(9, 18, 27),
        ),
    ),
    architectures=("flux-2-klein", "flux.2-klein"),
    embedded_guidance=None,
)

# Families that are not supported, by the beginnings of their classes' names.
_OTHERS = {
    "Flux2": "another kind of FLUX.2",
    "PixArt": "PixArt",
    "Hunyuan": "Hunyuan",
    "Lumina": "Lumina-Next",
    "Sana": "SANA",
    "AuraFlow": "AuraFlow",
    "QwenImage": "another kind of Qwen-Image",
    "ZImage": "another kind of Z-Image",
    "Chroma": "another kind of Chroma",
    "HiDream": "HiDream",
    "Kandinsky": "Kandinsky",
    "Kolors": "Kolors",
    "StableCascade": "Stable Cascade",
    "Wuerstchen": "Wuerstchen",
    "IF": "DeepFloyd IF",
    "CogView": "CogView",
    "Wan": "Wan",
    "LTX": "LTX-Video",
    "StableVideoDiffusion": "Stable Video Diffusion",
}

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (SD3, FLUX, FLUX2, FLUX2_KLEIN, CHROMA, QWEN_IMAGE, LUMINA2, Z_IMAGE, PIXEL_FLOW, SD, SDXL, PIXEL)
}


def labelled_family(pipeline: str, place: object) -> Family:
    """The family that answers to a class of model_index.json. Raises InputError that names it and those known.

    Classes of networks that belong to one of the other families are named by it as well.
    """
    for family in FAMILIES.values():
        if pipeline in family.pipelines:
            return family
    other = next((name for start, name in _OTHERS.items() if pipeline.startswith(start)), None)
    if other is not None:
        raise InputError(
            f"{place} is {other} ({pipeline}), which is not supported; supported families: {known_families()}"
        )
    raise InputError(f"{place} is a {pipeline}, of no known family; known families: {known_families()}")


def unlabelled_family(settings: Callable[[str], Mapping[str, Any] | None], has_autoencoder: bool) -> Family:
    """The family of a folder without model_index.json, by the `settings` of its parts, None for those it has not."""
    return next(f for f in FAMILIES.values() if f.unlabelled(settings(f.network) or {}, has_autoencoder))


def known_families() -> str:
    """The known families with the pipelines that they answer to, for people to read."""
    return ", ".join(f"{f.name} ({', '.join(f.pipelines) or 'no model_index.json'})" for f in FAMILIES.values())


def network_classes() -> set[str]:
    """The classes of the networks of known families, as configurations name them."""
    return {family.model_name for family in FAMILIES.values()}
