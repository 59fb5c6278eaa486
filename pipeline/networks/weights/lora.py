"""LoRA files: which layers of a UNet or a transformer they change, and by how much.

W becomes W + scale * alpha / rank * up @ down, layer by layer (arXiv 2106.09685, section 4.1). Kohya's trainers, PEFT
and diffusers write one matrix pair under different names; all of them are read here, so that one formula holds for all.
The original code of FLUX.1 and FLUX.2 has queries, keys and values in one layer; files with its names are converted by
diffusers.
A file that is trained otherwise (LoHa, LoKr, DoRA ...) is refused by the name of its method.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from pipeline.errors import InputError
from pipeline.networks.weights.original_lora import in_diffusers_names, original_code
from pipeline.networks.weights.original_names import original_name
from pipeline.study.main_lora import AddedLora
from pipeline.study.weaken import WEAKEN

# The ends of the names of a layer's tensors. Kohya's, diffusers' two older ones, and those of text encoders.
_ROLES = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".alpha": "alpha",
}
# PEFT's, with the adapter's name where a model had a named one.
_PEFT_ROLE = re.compile(r"\.lora_([AB])(?:\.([^.]+))?\.weight$")
_PEFT_FILE = "base_model.model."
_TEXTS = (
    *("lora_te_", "lora_te1_", "lora_te2_", "lora_te3_", "text_encoder.", "text_encoder_2.", "text_encoder_3."),
    *("text_encoders.", "clip_l.", "clip_g.", "t5xxl."),  # ComfyUI's
)
# The beginnings of the names of layers of the first, second and third text encoder: diffusers', Kohya's, ComfyUI's.
_TOWERS = (
    ("text_encoder.", "lora_te_", "lora_te1_", "text_encoders.clip_l.transformer.", "clip_l.transformer.", "clip_l."),
    ("text_encoder_2.", "lora_te2_", "text_encoders.clip_g.transformer.", "clip_g.transformer.", "clip_g."),
    ("text_encoder_3.", "lora_te3_", "text_encoders.t5xxl.", "t5xxl."),
)
_TEXT_MODEL = "text_model_"
# diffusers' before it left LoRAs to PEFT.
_OLD_TEXT_NAMES = {"_to_q": "_q_proj", "_to_k": "_k_proj", "_to_v": "_v_proj", "_to_out": "_out_proj"}
# Embeddings that were trained with the LoRA and belong to the texts, too
# (https://github.com/AUTOMATIC1111/stable-diffusion-webui/pull/13568).
_BUNDLED = "bundle_emb."
_NETWORK = (
    *("lora_unet_", "lycoris_", "unet.", "transformer.", "model.diffusion_model.", "diffusion_model."),
    "lora_transformer_",  # OneTrainer's
)
# What gives another method away, by its name.
_METHODS = {
    r"\.dora_scale$|\.lora_magnitude_vector": "DoRA",
    r"\.hada_": "LoHa",
    r"\.lokr_": "LoKr",
    r"\.oft_|\.boft_": "OFT",
    r"\.on_input$|\.ia3_l": "IA3",
    r"\.[ab][12]\.weight$": "GLoRA",
    r"\.lora_mid\.weight$": "LoRA with a Tucker core (lora_mid)",
    r"\.diff(_b)?$|\.[wb]_norm$": "full weight differences (diff)",
    r"\.vera_lambda": "VeRA",
    r"\.lora_B(\.[^.]+)?\.bias$": "biases (lora_bias)",
    r"\.reshape_weight$": "layers of another size (reshape_weight)",
    r"(^|\.)scaled_fp8$|\.(scale_weight|weight_scale|comfy_quant)$": "scaled 8-bit weights",
}
# PEFT's initializations that move a part of each weight into the matrices. Added to the original weights, that part
# counts twice (https://github.com/huggingface/peft/issues/2184).
_CHANGES_BASE = ("pissa", "olora", "loftq", "corda")
_SHOWN = 3
_METADATA = "lora_adapter_metadata"


@dataclass(frozen=True)
class LoraLayer:
    """A layer of the network that a file changes: its name, its two tensors in the file, and alpha / rank."""

    module: str
    down: str
    up: str
    factor: float


@dataclass(frozen=True)
class LoraContent:
    """What a file changes, in the order of its names: `layers` of the network, `texts` of each CLIP that reads texts.

    `left_out` counts layers of text encoders that are not changed, T5's and bundled embeddings with them.
    """

    layers: tuple[LoraLayer, ...]
    left_out: int
    texts: tuple[tuple[LoraLayer, ...], ...] = ()


def fuse(network: torch.nn.Module, path: Path, scale: float, key: str = WEAKEN) -> None:
    """Add a LoRA to the weights of `network` in place. Raises InputError, by `key`, where the file does not fit it."""
    where = f"{key} {path}"
    with _opened(where, path, network) as file:
        _fuse_layers(where, file, network, _content(where, file, network, ()).layers, scale)


def fuse_main(network: torch.nn.Module, lora: AddedLora) -> None:
    """Add the layers of `network` in a LoRA to its weights in place, of which there may be none. Raises InputError."""
    with _opened(lora.where, lora.file, network) as file:
        if layers := _network_layers(lora.where, file, network):
            _fuse_layers(lora.where, file, network, layers, lora.weight)


def fuse_texts(texts: Sequence[torch.nn.Module], lora: AddedLora) -> None:
    """Add the layers of CLIPs in a LoRA to their weights in place. Raises InputError where they do not fit."""
    with _opened(lora.where, lora.file) as file:
        for text, layers in zip(filter(_is_clip, texts), _text_layers(lora.where, file, texts), strict=True):
            if layers:
                _fuse_layers(lora.where, file, text, layers, lora.text_weight)


@torch.no_grad()
def _fuse_layers(where: str, file: Any, network: torch.nn.Module, layers: Sequence[LoraLayer], scale: float) -> None:
    changed = False
    for layer in layers:
        weight: Any = network.get_submodule(layer.module).weight
        down, up = (file.get_tensor(key).float().flatten(1) for key in (layer.down, layer.up))
        delta = (up @ down).view(weight.shape).to(weight.device) * (scale * layer.factor)
        fused = (weight.float() + delta).to(weight.dtype)
        changed = changed or not torch.equal(fused, weight)
        weight.copy_(fused)
    if scale and not changed:
        raise InputError(
            f"{where} changes no weight of this network: its matrices or its alphas are zero, "
            "or too small for the weights' dtype; name a trained file"
        )


def read_lora(path: Path, network: torch.nn.Module, key: str = WEAKEN) -> LoraContent:
    """What a guide's file changes of a network, whose weights need no storage here.

    Raises InputError that names the file and the `key` of the configuration that named it.
    """
    where = f"{key} {path}"
    with _opened(where, path, network) as file:
        return _content(where, file, network, ())


def read_main(lora: AddedLora, network: torch.nn.Module, texts: Sequence[torch.nn.Module]) -> LoraContent:
    """What a LoRA changes of the main network and of its `texts`, none where its family takes none of their layers.

    Raises InputError that names the file and what named it.
    """
    with _opened(lora.where, lora.file, network) as file:
        return _content(lora.where, file, network, texts)


@contextmanager
def _opened(where: str, path: Path, network: torch.nn.Module | None = None) -> Iterator[Any]:
    """A file of safetensors, with diffusers' names where it has those of FLUX's original code. Raises InputError."""
    try:
        with ExitStack() as opened:
            file: Any = opened.enter_context(safe_open(path, "pt"))
            if code := original_code(file.keys(), network):
                converted = Path(opened.enter_context(TemporaryDirectory())) / "converted.safetensors"
                save_file(_converted(where, file, code), converted)
                file = opened.enter_context(safe_open(converted, "pt"))
            yield file
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{where} cannot be loaded ({reason}); download it again") from None


def _converted(where: str, file: Any, code: str) -> dict[str, torch.Tensor]:
    """The tensors of a file with the names of an original `code` under diffusers' names.

    Raises InputError where diffusers does not know one of them.
    """
    keys = sorted(file.keys())
    _check_method(where, keys)
    for key in keys:
        _check_alpha_is_in_file(where, key)
    try:
        tensors = in_diffusers_names({key: file.get_tensor(key) for key in keys}, code)
    except Exception as error:  # diffusers raises many kinds for names and shapes that it does not know
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{where} cannot be converted from {code}'s original names ({reason}); name a file in diffusers' names"
        ) from None
    # Layers that were one share a matrix, which safetensors does not write twice.
    return {key: tensor.contiguous().clone() for key, tensor in tensors.items()}


def _is_clip(network: torch.nn.Module) -> bool:
    return isinstance(network, CLIPTextModel | CLIPTextModelWithProjection)


def _kind(network: torch.nn.Module) -> str:
    if _is_clip(network):
        return "text encoder"
    return "UNet" if isinstance(network, UNet2DConditionModel) else "transformer"


def _content(where: str, file: Any, network: torch.nn.Module, texts: Sequence[torch.nn.Module]) -> LoraContent:
    """All that a file changes. Raises InputError where that is nothing, or text encoders alone that are not changed."""
    stems, bundled = _stems(where, file)
    layers = _network_layers(where, file, network)
    of_texts = [stem for stem in stems if stem.startswith(_TEXTS)]
    if not layers and not (of_texts and texts):
        found = len(of_texts) + len(bundled)
        what = f"changes text encoders alone ({found} layers)" if found else "is empty"
        whose = "a guide reads the main network's texts" if where.startswith(WEAKEN) else "those of this model stay"
        raise InputError(f"{where} {what}, and {whose}; name a LoRA that changes a {_kind(network)}")
    read = _text_layers(where, file, texts) if texts else ()
    return LoraContent(layers, len(bundled) + len(of_texts) - sum(map(len, read)), read)


def _network_layers(where: str, file: Any, network: torch.nn.Module) -> tuple[LoraLayer, ...]:
    stems = {stem: found for stem, found in _stems(where, file)[0].items() if not stem.startswith(_TEXTS)}
    return _layers(where, file, network, stems, {stem: _flat(stem) for stem in stems}, ("unet.", "transformer.", ""))


def _text_layers(where: str, file: Any, texts: Sequence[torch.nn.Module]) -> tuple[tuple[LoraLayer, ...], ...]:
    """The layers of each CLIP, in their order; of one that a file leaves alone there are none."""
    stems = {stem: found for stem, found in _stems(where, file)[0].items() if stem.startswith(_TEXTS)}
    found = []
    for text, prefixes in zip(texts, _TOWERS, strict=False):
        own = {stem: stems.pop(stem) for stem in list(stems) if stem.startswith(prefixes)}
        if _is_clip(text):
            found.append(
                _layers(where, file, text, own, {stem: _flat_text(stem, prefixes) for stem in own}, prefixes[:1])
            )
    if stems:
        raise InputError(
            f"{where} changes layers of a text encoder that this model does not have ({_listed(list(stems))}); name a "
            "LoRA that was trained for this kind of network"
        )
    return tuple(found)


def _layers(
    where: str,
    file: Any,
    network: torch.nn.Module,
    stems: Mapping[str, Mapping[str, str]],
    flat: Mapping[str, str],
    parts: tuple[str, ...],
) -> tuple[LoraLayer, ...]:
    """The layers of `network` that stems name, each by its `flat` name. `parts` begin the names in the header."""
    if not stems:
        return ()
    names = layer_names(network)
    modules = {stem: names.get(flat[stem]) for stem in stems}
    strange = [stem for stem, module in modules.items() if module is None]
    if strange:
        raise InputError(
            f"{where}: {len(strange)} of its {len(stems)} layers match no layer of this {_kind(network)} "
            f"({_listed(strange)}); name a LoRA that was trained for this kind of network"
        )
    layers: dict[str, LoraLayer] = {}
    patterns = _metadata(where, file.metadata() or {}, parts)
    for stem, found in stems.items():
        module = str(modules[stem])
        if module in layers:
            raise InputError(f"{where} changes {module} twice, the second time as {stem}; name a file with one of them")
        layers[module] = _layer(where, file, stem, found, network.get_submodule(module), module, patterns)
    return tuple(layers.values())


def _stems(where: str, file: Any) -> tuple[dict[str, dict[str, str]], set[str]]:
    """The tensors of every layer by their role, by what their names begin with; and the embeddings in the file."""
    keys = sorted(file.keys())
    _check_method(where, keys)
    stems: dict[str, dict[str, str]] = {}
    bundled, adapters = set(), set()
    for key in keys:
        if key.startswith(_BUNDLED):
            bundled.add(key.split(".")[1])
            continue
        if match := _PEFT_ROLE.search(key):
            stem, role = key[: match.start()], "down" if match[1] == "A" else "up"
            adapters.add(match[2])
        else:
            end = next((end for end in _ROLES if key.endswith(end)), None)
            if end is None:
                raise InputError(f"{where} is not a LoRA: it holds {key}; name a file of lora_down and lora_up pairs")
            stem, role = key.removesuffix(end), _ROLES[end]
        _check_alpha_is_in_file(where, key)
        stems.setdefault(stem, {})[role] = key
    if len(adapters) > 1:
        raise InputError(
            f"{where} holds several adapters ({_listed(sorted(map(str, adapters)))}); name a file with one of them"
        )
    return stems, bundled


def _check_method(where: str, keys: list[str]) -> None:
    for pattern, method in _METHODS.items():
        found = next((key for key in keys if re.search(pattern, key)), None)
        if found is not None:
            raise InputError(
                f"{where} is trained with {method} ({found}), which is not supported; name a LoRA of lora_down and "
                "lora_up pairs, or merge the file into a checkpoint and name that as model.guide"
            )


def _check_alpha_is_in_file(where: str, key: str) -> None:
    if key.startswith(_PEFT_FILE):
        raise InputError(
            f"{where} was saved by PEFT ({key}), whose alpha stands in another file, adapter_config.json; "
            "save it with diffusers' save_lora_weights and unet_lora_adapter_metadata"
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")


def _flat(stem: str) -> str:
    """A layer's name in a file as its words, joined alike in all layouts."""
    prefix = next((prefix for prefix in _NETWORK if stem.startswith(prefix)), "")
    return stem.removeprefix(prefix).replace(".processor.", ".").replace(".", "_")


def _flat_text(stem: str, prefixes: tuple[str, ...]) -> str:
    """The same for a layer of a text encoder."""
    flat = stem.removeprefix(next(prefix for prefix in prefixes if stem.startswith(prefix))).replace(".", "_")
    for old, new in _OLD_TEXT_NAMES.items():
        flat = f"{flat.removesuffix(old)}{new}" if flat.endswith(old) else flat
    return flat.removeprefix(_TEXT_MODEL)


def layer_names(network: Any) -> dict[str, str]:
    """The matrices and convolutions of a network by the names that files have for them, dots written as underscores."""
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    modules = [name for name, module in network.named_modules() if isinstance(module, kinds)]
    if _kind(network) == "text encoder":  # in which transformers 5 has no `text_model` any more
        return {name.replace(".", "_").removeprefix(_TEXT_MODEL): name for name in modules}
    attended = {int(m[1]) for name in modules if (m := re.match(r"up_blocks\.(\d+)\.attentions\.", name))}
    depth = network.config.get("layers_per_block")
    found = {}
    for name in modules:
        found[name.replace(".", "_")] = name
        # Older files do not say that the projection after attention is the first in a list. FLUX.2 also has it alone.
        found[re.sub(r"\.to_out\.0$", ".to_out", name).replace(".", "_")] = name
        if isinstance(depth, int):
            found[original_name(name, depth, attended).replace(".", "_")] = name
    return found


def _layer(
    where: str,
    file: Any,
    stem: str,
    found: Mapping[str, str],
    target: torch.nn.Module,
    module: str,
    patterns: Mapping[str, Any],
) -> LoraLayer:
    for role in ("down", "up"):
        if role not in found:
            other = next(iter(found.values()))
            raise InputError(f"{where} holds {other} without its {role} matrix; download the file again")
    down, up = (tuple(file.get_slice(found[role]).get_shape()) for role in ("down", "up"))
    weight = target.weight
    assert isinstance(weight, torch.Tensor)
    shape = tuple(weight.shape)  # [out, in] or [out, in, height, width]
    rank = down[0] if down else 0
    fits = (
        rank > 0
        and up[:2] == (shape[0], rank)
        and math.prod(up[2:]) == 1
        and math.prod(down[1:]) == math.prod(shape[1:])
        and (len(down) == len(shape) or math.prod(shape[2:]) == 1)
    )
    if not fits:
        raise InputError(
            f"{where}: {stem} holds down {_shape(down)} and up {_shape(up)}, which do not fit the layer's weight "
            f"{_shape(shape)}; name a LoRA that was trained for this kind of network"
        )
    for role in ("down", "up"):
        matrix = file.get_tensor(found[role])
        if not matrix.is_floating_point():
            raise InputError(f"{where}: {found[role]} holds integers, whose scale is not read; name a file of floats")
        if not matrix.float().isfinite().all():
            raise InputError(
                f"{where}: {found[role]} holds values that are not finite numbers, so its training has failed; "
                "name another file"
            )
    if "alpha" not in found:
        return LoraLayer(module, found["down"], found["up"], _factor(where, patterns, module, rank))
    alpha = file.get_tensor(found["alpha"]).float()
    if alpha.numel() != 1 or not math.isfinite(float(alpha.flatten()[0])):
        raise InputError(f"{where}: {found['alpha']} is not one finite number; download the file again")
    return LoraLayer(module, found["down"], found["up"], float(alpha.flatten()[0]) / rank)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "()"


def _metadata(where: str, metadata: Mapping[str, str], parts: tuple[str, ...]) -> dict[str, Any]:
    """The settings of PEFT that diffusers writes into a file's header for a part; empty where there are none."""
    if _METADATA not in metadata:
        return {}
    try:
        content = json.loads(metadata[_METADATA])
        own = {
            key.removeprefix(part): value
            for part in parts[::-1]
            for key, value in content.items()
            if key.startswith(part)
        }
        own["lora_alpha"] = float(own["lora_alpha"]) if "lora_alpha" in own else None
        own["alpha_pattern"] = {  # beginnings of names may be left out, as PEFT reads its patterns
            re.compile(rf"(.*\.)?({key})"): float(value) for key, value in (own.get("alpha_pattern") or {}).items()
        }
    except (ValueError, TypeError, AttributeError, re.error) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{where}: {_METADATA} in its header cannot be read ({reason}); save it again") from None
    start = str(own.get("init_lora_weights", "")).lower()
    if start.startswith(_CHANGES_BASE):
        raise InputError(
            f"{where} holds a part of the weights that it was trained on (init_lora_weights {start}), which would "
            "count twice; name a plain LoRA, such as PEFT makes of it with path_initial_model_for_weight_conversion"
        )
    return own


def _factor(where: str, patterns: Mapping[str, Any], module: str, rank: int) -> float:
    """alpha / rank of a layer without its own alpha; a file that names none has alpha = rank."""
    alpha = patterns.get("lora_alpha")
    for pattern, value in patterns.get("alpha_pattern", {}).items():
        if pattern.fullmatch(module):
            alpha = value
            break
    if alpha is None:
        return 1.0
    return float(alpha) / (math.sqrt(rank) if patterns.get("use_rslora") else rank)
