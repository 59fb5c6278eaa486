"""ImageReward (Xu et al., 2304.05977): BLIP reads a prompt while it looks at the image; a head says how good that is.

transformers' parts of BLIP (Li et al., 2201.12086) replace the authors' copy of its code, which needs a
transformers of 2022.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchvision.transforms import v2
from transformers import BertTokenizerFast, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from eval.features.extractor import forward_precision, weights_digest
from pipeline.errors import InputError
from pipeline.study.scorers import PREFERENCES

# Of the rewards of the authors' training images; what is published is (reward - mean) / std.
_MEAN, _STD = 0.16717362830052426, 1.0333394966054072
_TOKENS = 35
# Both of BLIP's transformers have heads of 64 channels.
_HEAD = 64
# BLIP's names, which are timm's, and those of transformers.
_VISION_NAMES = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.", "encoder.layers."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.attn\.qkv\.", ".self_attn.qkv."),
    (r"\.attn\.proj\.", ".self_attn.projection."),
)


@dataclass
class ImageReward:
    """The reward of an image for its prompt, near 0 with a standard deviation near 1 on the authors' images."""

    vision: Any
    text: Any
    head: Any
    tokenizer: Any
    digest: str
    device: torch.device

    def __post_init__(self) -> None:
        side = self.vision.config.image_size
        self._prepare = v2.Compose(
            [
                v2.Resize(side, v2.InterpolationMode.BICUBIC),
                v2.CenterCrop(side),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
            ]
        )

    @torch.inference_mode()
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Rewards [B] of RGB images and their prompts."""
        pixels = torch.stack([self._prepare(image) for image in images]).to(self.device)
        read = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=_TOKENS, return_tensors="pt"
        ).to(self.device)
        with torch.autocast(self.device.type, torch.float16, enabled=forward_precision(self.device) == torch.float16):
            seen = self.vision(pixels).last_hidden_state
            found = self.text(read.input_ids, attention_mask=read.attention_mask, encoder_hidden_states=seen)
        reward = self.head(found.last_hidden_state[:, 0].float()).squeeze(1)
        return (reward - _MEAN) / _STD  # type: ignore[no-any-return]


def load_image_reward(folder: Path, device: torch.device, fetch: str) -> ImageReward:
    """Load converted weights and BERT's tokenizer from a folder, which `fetch` fills. Raises InputError.

    Sizes follow from the weights.
    """
    paths = PREFERENCES["imagereward"].paths(folder)
    digest = weights_digest(paths, fetch)
    try:
        tensors = load_file(paths[0])
        vision, text, head = (build(tensors, device) for build in (_vision, _text, _head))
        tokenizer = BertTokenizerFast.from_pretrained(folder, local_files_only=True)
    except (SafetensorError, RuntimeError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder} cannot be loaded as ImageReward ({reason}); restore it with `{fetch}`") from None
    return ImageReward(vision, text, head, tokenizer, digest, device)


def image_reward_tensors(tensors: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """The tensors of ImageReward.pt under transformers' names: `vision.`, `text.` and `head.`. Raises InputError.

    BLIP's decoder and projections, which scores do not use, are left out.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith("blip.visual_encoder."):
            short = name.removeprefix("blip.visual_encoder.")
            for pattern, replacement in _VISION_NAMES:
                short = re.sub(pattern, replacement, short)
            found[f"vision.{short}"] = tensor.contiguous()
        elif name.startswith("blip.text_encoder.") and not name.endswith("position_ids"):
            found[f"text.{name.removeprefix('blip.text_encoder.')}"] = tensor.contiguous()
        elif name.startswith("mlp.layers."):
            found[f"head.{name.removeprefix('mlp.layers.')}"] = tensor.contiguous()
    for part in ("vision", "text", "head"):
        if not any(name.startswith(f"{part}.") for name in found):
            raise InputError(f"{source} has no {part} part of ImageReward; is it ImageReward.pt?")
    return found


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _layers(tensors: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max(int(match[1]) for name in tensors if (match := re.match(pattern, name)))


def _vision(tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    own = _part(tensors, "vision.")
    patches, width = own["embeddings.position_embedding"].shape[1:]
    patch = own["embeddings.patch_embedding.weight"].shape[-1]
    configuration = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=own["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_layers(own, r"encoder\.layers\.(\d+)\."),
        num_attention_heads=width // _HEAD,
        image_size=patch * isqrt(patches - 1),
        patch_size=patch,
        layer_norm_eps=1e-6,
    )
    return _filled(BlipVisionModel(configuration), own, device)


def _text(tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    own = _part(tensors, "text.")
    vocabulary, width = own["embeddings.word_embeddings.weight"].shape
    configuration = BlipTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        encoder_hidden_size=own["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        intermediate_size=own["encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=_layers(own, r"encoder\.layer\.(\d+)\."),
        num_attention_heads=width // _HEAD,
        max_position_embeddings=own["embeddings.position_embeddings.weight"].shape[0],
        # With cross-attention; the call itself asks for an encoder's mask.
        is_decoder=True,
    )
    return _filled(BlipTextModel(configuration, add_pooling_layer=False), own, device)


def _head(tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    # Linear layers alone: between them the authors have dropout, which is off, and no nonlinearity.
    own = _part(tensors, "head.")
    numbers = sorted({int(name.split(".")[0]) for name in own})
    shapes = [own[f"{number}.weight"].shape for number in numbers]
    layers = [torch.nn.Linear(into, out) for out, into in shapes]
    renamed = {
        f"{at}.{what}": own[f"{number}.{what}"] for at, number in enumerate(numbers) for what in ("weight", "bias")
    }
    return _filled(torch.nn.Sequential(*layers), renamed, device)


def _filled(model: Any, tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    model.load_state_dict(tensors)
    return model.to(device).eval().requires_grad_(False)
