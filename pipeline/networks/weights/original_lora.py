"""LoRAs in the names of the original code of FLUX.1, Chroma and FLUX.2, which diffusers converts, and of SD3.

That code has queries, keys and values in one layer. Kohya's trainers, XLabs and ai-toolkit write its names.
"""

import re
from collections.abc import Iterable

import torch
from diffusers import ChromaTransformer2DModel, Flux2Transformer2DModel, FluxTransformer2DModel, SD3Transformer2DModel
from diffusers.loaders.lora_pipeline import Flux2LoraLoaderMixin, FluxLoraLoaderMixin

_FLUX = re.compile(r"(^|[._])(double|single)_blocks[._]")
_SD3 = re.compile(r"(^|[._])joint_blocks[._]")
# The last norm's rows are shift and scale in the original code, scale and shift in diffusers.
_LAST_NORM = "transformer.norm_out.linear.lora_B.weight"


def original_code(keys: Iterable[str], network: torch.nn.Module | None) -> str | None:
    """Whose original code has the names `keys`, if `network` is of its kind; else None."""
    if isinstance(network, SD3Transformer2DModel):
        return "SD3" if any(map(_SD3.search, keys)) else None
    if not any(map(_FLUX.search, keys)):
        return None
    if isinstance(network, Flux2Transformer2DModel):
        return "FLUX.2"
    return "FLUX.1" if isinstance(network, FluxTransformer2DModel | ChromaTransformer2DModel) else None


def in_diffusers_names(content: dict[str, torch.Tensor], code: str) -> dict[str, torch.Tensor]:
    """What diffusers makes of the tensors of a file with the names of the original `code`, alphas in the matrices.

    Raises ValueError for names that it leaves out with a warning, and what diffusers raises for others.
    """
    if code == "SD3":
        raise ValueError("diffusers has no conversion for them")
    if code == "FLUX.1":
        converted: dict[str, torch.Tensor] = FluxLoraLoaderMixin.lora_state_dict(content)
        return converted
    kohyas = any(key.endswith(".lora_down.weight") for key in content)
    converted = Flux2LoraLoaderMixin.lora_state_dict(content)
    if kohyas and content:  # what it has converted of these is taken out
        raise ValueError(f"unknown: {', '.join(sorted(content)[:3])}")
    if _LAST_NORM in converted:  # left in its original order by diffusers 0.42
        shift, scale = converted[_LAST_NORM].chunk(2)
        converted[_LAST_NORM] = torch.cat([scale, shift])
    return converted
