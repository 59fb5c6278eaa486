"""The families of networks: what of a checkpoint makes it one of a family, and what a family asks for.

A family is one record here and one module that loads and runs its networks, named by the record and imported when a
network is loaded. Everything else reads the record, without torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from pipeline.errors import InputError
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


@dataclass(frozen=True)
class TextPart:
    """A text encoder of a checkpoint.

    A text's `pooled` embedding is the projection of its end mark, or (`end`) its last layer there as it is.
    """

    part: str
    pooled: Literal["projection", "end"] | None = None


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
    their beginnings. `network` is the part that denoises, `shared` the keys of
    its configuration in which guide and main must agree, in words, `path` the noise path of its training.
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
    shared: Mapping[str, str] = field(default_factory=lambda: _UNETS_SHARE)
    path: NoisePath = VARIANCE_PRESERVING
    loader: str = "pipeline.networks.denoisers.unet:load_network"
    text_loader: str = "pipeline.networks.text.text_encoder:load_text_encoder"

    @property
    def text_parts(self) -> tuple[str, ...]:
        """The parts of a checkpoint that hold its text encoders."""
        return tuple(text.part for text in self.texts)

    @property
    def solvers(self) -> tuple[str, ...]:
        """The names of the solvers that step along its noise path."""
        return solvers_along(self.path.name)

    @property
    def layers_left_out(self) -> int:
        """The layers at the end of a text encoder that are left out without being asked."""
        return int(self.penultimate)

    @property
    def load(self) -> Callable[..., Any]:
        """The function that loads its networks (`pipeline.networks.denoisers.unet.load_network` for UNets)."""
        return _imported(self.loader)

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


SD = Family(
    name="sd",
    pipelines=("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"),
    unlabelled=lambda network, has: not _has_sizes(network) and not _of_pixels(network, has),
    additions=(None, "text"),
    architectures=("stable-diffusion-v1", "stable-diffusion-v2"),
)
SDXL = Family(
    name="sdxl",
    # StableDiffusionXLImg2ImgPipeline is the refiner, which reads one text encoder and an aesthetic score.
    pipelines=("StableDiffusionXLPipeline",),
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
    shared={
        "in_channels": "channels of a sample",
        "joint_attention_dim": "width of the text embeddings",
        "pooled_projection_dim": "width of the pooled text embedding",
    },
    path=RECTIFIED_FLOW,
    loader="pipeline.networks.denoisers.pixel_transformer:load_network",
)

# Families that are not supported, by the beginnings of their classes' names.
_OTHERS = {
    "StableDiffusion3": "Stable Diffusion 3",
    "SD3": "Stable Diffusion 3",
    "Flux2": "FLUX.2",
    "Flux": "FLUX.1",
    "PixArt": "PixArt",
    "Hunyuan": "Hunyuan",
    "Lumina": "Lumina",
    "Sana": "SANA",
    "AuraFlow": "AuraFlow",
    "QwenImage": "Qwen-Image",
    "ZImage": "Z-Image",
    "Chroma": "Chroma",
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

FAMILIES: dict[str, Family] = {family.name: family for family in (SD, SDXL, PIXEL_FLOW, PIXEL)}


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
