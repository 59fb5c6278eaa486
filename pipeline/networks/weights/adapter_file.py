"""Files of IP-Adapters (arXiv 2308.06721): a projection of an image's embedding to tokens, and keys and values of them.

The published files have `image_proj.*` and, for every cross-attention of a UNet in diffusers' order, `ip_adapter.n.*`
with n = 1, 3, 5 ... Three projections are read: that of "ip-adapter" (the embedding of an image), of "plus" (a
resampler of its patches) and of "full-face" (a feed-forward network on its patches).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from pipeline.errors import InputError

KEY = "model.ip_adapter.file"
_PROJECTION, _ATTENTION = "image_proj.", "ip_adapter."
_CROSS = ".attn2.processor"
# Of the projection: the tensor that only this kind has.
_PLAIN, _FULL, _PLUS = "proj.weight", "proj.3.weight", "latents"
_FACE = ("perceiver_resampler.proj_in.weight", "norm.weight")


@dataclass(frozen=True)
class AdapterLayout:
    """What a file's header says: `reads` the embedding or the patches of an image, of `width`; tokens are of `text`.

    `shapes` has the tensors by their names in the file.
    """

    reads: str
    width: int
    text: int
    shapes: Mapping[str, tuple[int, ...]]


def read_layout(path: Path) -> AdapterLayout:
    """The layout of a file, by its header alone. Raises InputError where it is not a supported IP-Adapter."""
    try:
        with safe_open(path, "pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise InputError(f"{KEY} {path} is missing; put the adapter there (docs/reference-images.md)") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{KEY} {path} cannot be read ({_line(error)}); download it again") from None
    projection = {name.removeprefix(_PROJECTION): s for name, s in shapes.items() if name.startswith(_PROJECTION)}
    attention = [name for name in shapes if name.startswith(_ATTENTION)]
    if not projection or not attention:
        found = ", ".join(sorted(shapes)[:3]) or "nothing"
        raise InputError(
            f"{KEY} {path} is not an IP-Adapter: it holds {found}; name a file with image_proj.* and ip_adapter.*"
        )
    if any("lora" in name for name in attention) or (_PLAIN not in projection and set(_FACE) & set(projection)):
        raise InputError(
            f"{KEY} {path} is an IP-Adapter FaceID, which reads a face recogniser and not an image encoder, and is not "
            "supported; take ip-adapter, ip-adapter-plus or ip-adapter-full-face"
        )
    try:
        if _PLAIN in projection:
            return AdapterLayout("embedding", projection[_PLAIN][1], projection["norm.weight"][0], shapes)
        if _FULL in projection:
            return AdapterLayout("patches", projection["proj.0.weight"][1], projection[_FULL][0], shapes)
        return AdapterLayout("patches", projection["proj_in.weight"][1], projection["norm_out.weight"][0], shapes)
    except (KeyError, IndexError):
        known = f"{_PLAIN} (ip-adapter), {_PLUS} (plus) or {_FULL} (full-face)"
        raise InputError(
            f"{KEY} {path} has a projection of an unknown kind ({', '.join(sorted(projection)[:3])}); known ones have "
            f"{known}"
        ) from None


def cross_attention(unet: Any) -> list[str]:
    """The names of the processors of a UNet's cross-attention, in the order in which adapters number them."""
    return [name for name in unet.attn_processors if name.endswith(_CROSS)]


def check_adapter(path: Path, unet: Any, encoder: Mapping[str, Any], where: str) -> None:
    """Raise InputError where an adapter does not fit a UNet, called `where`, or the configuration of an image encoder.

    No weight is read.
    """
    layout = read_layout(path)
    text = unet.config.cross_attention_dim
    if layout.text != text:
        raise InputError(
            f"{KEY} {path} makes tokens of width {layout.text} ({_kind(layout.text)}), and {where} reads texts of "
            f"width {text} ({_kind(text)}); use an adapter of this kind of model"
        )
    held = {
        name: layout.shapes.get(f"{_ATTENTION}{2 * k + 1}.to_k_ip.weight")
        for k, name in enumerate(cross_attention(unet))
    }
    there = sum(name.startswith(_ATTENTION) and name.endswith("to_k_ip.weight") for name in layout.shapes)
    if there != len(held):
        raise InputError(
            f"{KEY} {path} is for a UNet with {there} layers of cross-attention, and {where} has {len(held)}; use an "
            "adapter of this kind of model"
        )
    for name, shape in held.items():
        own = tuple(unet.get_submodule(name.removesuffix(".processor")).to_k.weight.shape)
        if shape != own:
            raise InputError(
                f"{KEY} {path} has keys of {_shape(shape)} for {name.removesuffix('.processor')}, and {where} has "
                f"{_shape(own)} there; use an adapter that was trained with this network"
            )
    own_width = encoder.get("projection_dim") if layout.reads == "embedding" else encoder.get("hidden_size")
    if own_width != layout.width:
        raise InputError(
            f"{KEY} {path} reads the {layout.reads} of an image of width {layout.width}, and "
            f"model.ip_adapter.image_encoder gives {own_width}; name the encoder that the adapter was trained with"
        )


def read_tensors(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors as diffusers' loader takes them, by `image_proj` and `ip_adapter`. Raises InputError."""
    content: dict[str, dict[str, torch.Tensor]] = {}
    try:
        with safe_open(path, "pt") as file:
            for prefix in (_PROJECTION, _ATTENTION):
                names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (no mapping)
                content[prefix[:-1]] = {name.removeprefix(prefix): file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{KEY} {path} cannot be read ({_line(error)}); download it again") from None
    if not all(t.isfinite().all() for own in content.values() for t in own.values() if t.is_floating_point()):
        raise InputError(f"{KEY} {path} holds values that are not finite numbers; name another file")
    return content


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _shape(shape: tuple[int, ...] | None) -> str:
    return "no size" if shape is None else "x".join(map(str, shape))


def _kind(width: int) -> str:
    return {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"}.get(width, "another kind")
