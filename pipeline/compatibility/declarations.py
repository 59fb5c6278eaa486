"""What a checkpoint's file declares about itself, compared with the configuration that it is loaded with.

A safetensors file says more than its weights. Tensors without elements are marks that ComfyUI and Forge read (`v_pred`,
`ztsnr`, `edm_vpred.sigma_max`); metadata in the header follow ModelSpec (`modelspec.*`,
https://github.com/Stability-AI/ModelSpec) or are sd-scripts' (`ss_*`); the shapes of some weights give sizes of the
network. A single file takes its configuration from another folder, so the two can disagree, and the images would be
noise. Only the header of a file is read.
"""

import json
import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.networks.checkpoints import Checkpoint
from pipeline.networks.families import FAMILIES
from pipeline.networks.noise_path import VARIANCE_PRESERVING
from pipeline.networks.weights.weight_files import unreadable, weight_paths

# The longest header that safetensors itself reads.
_LONGEST_HEADER = 100_000_000
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = 60

_MARKS: Mapping[str, tuple[str, Any]] = {
    "v_pred": ("prediction_type", "v_prediction"),
    "ztsnr": ("rescale_betas_zero_snr", True),
}
# CosXL and Playground v2.5: continuous noise levels and EDM's scaling of what goes in and comes out (arXiv 2206.00364).
_EDM_MARKS = ("edm_vpred.sigma_max", "edm_vpred.sigma_min", "edm_mean", "edm_std")

_PREDICTIONS = {
    **dict.fromkeys(("v", "v_pred", "v_prediction", "v-prediction"), "v_prediction"),
    **dict.fromkeys(("epsilon", "eps"), "epsilon"),
    **dict.fromkeys(("sample", "x0"), "sample"),
}
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
# The two SD 2.x differ in nothing but what they predict.
_PREDICTED_BY = {"stable-diffusion-v2-768-v": "v_prediction", "stable-diffusion-v2-512": "epsilon"}
# What a name may not add to an architecture's: networks that read or predict something else, or are none.
_OTHER_KINDS = re.compile(r"refiner|inpaint|edit|instruct|unclip|depth|controlnet|lora|textual-inversion|embedding")
# Beginnings of names of other architectures. A name that is in neither list is someone's own and says nothing.
_OTHER_ARCHITECTURES = (
    *("stable-diffusion", "stable-video-diffusion", "stable-cascade", "flux", "chroma", "lumina", "auraflow"),
    *("pixart", "hunyuan", "qwen-image", "wan-", "wan2", "sana-", "kolors", "playground"),
)
_BASE_MODELS = (
    *(("sdxl", "sdxl"), ("sd_v1", "sd"), ("sd_v2", "sd"), ("sd_1", "sd"), ("sd_2", "sd")),
    *(("sd3", "sd3"), ("flux1", "flux"), ("chroma", "chroma"), ("lumina2", "lumina2")),
)
# sd-scripts' names of other architectures begin so.
_OTHER_BASE_MODELS = ("flux", "lumina", "hunyuan", "anima")
# Scales of weights that are stored in 8 or 4 bits, as ComfyUI, bitsandbytes and others name them. A loader that does
# not know them reads the stored numbers as weights.
_QUANTIZED = re.compile(
    r"(.*\.)?scaled_fp8|.*\.(scale_weight|weight_scale(_2)?|comfy_quant|absmax|nested_absmax|quant_map|SCB)"
    r"|.*\.quant_state\..*"
)
_QUANTIZED_METADATA = "_quantization_metadata"

# Sizes of a network: the weight that has each, under its original and its diffusers' name, and on which axis.
_PREFIX = r"(model\.diffusion_model\.)"
_SIZES: tuple[tuple[str, re.Pattern[str], int], ...] = (
    ("in_channels", re.compile(rf"{_PREFIX}input_blocks\.0\.0\.weight|conv_in\.weight"), 1),
    ("out_channels", re.compile(rf"{_PREFIX}out\.2\.weight|conv_out\.weight"), 0),
    (
        "cross_attention_dim",
        re.compile(rf"({_PREFIX}(input|middle|output)_block|(down|up)_blocks\.|mid_block\.).*\.attn2\.to_k\.weight"),
        1,
    ),
    (
        "projection_class_embeddings_input_dim",
        re.compile(rf"{_PREFIX}label_emb\.0\.0\.weight|add_embedding\.linear_1\.weight"),
        1,
    ),
    (
        "time_cond_proj_dim",
        re.compile(rf"{_PREFIX}time_embed\.cond_proj\.weight|time_embedding\.cond_proj\.weight"),
        1,
    ),
)
# Sizes of the other parts that a single file holds, by the part whose configuration gives them.
_FIRST_TEXT = r"(cond_stage_model|conditioner\.embedders\.0)"
_PART_SIZES: tuple[tuple[str, str, re.Pattern[str], int], ...] = (
    (
        "text_encoder",
        "max_position_embeddings",
        re.compile(
            rf"{_FIRST_TEXT}\.(transformer\.(text_model\.)?embeddings\.position_embedding\.weight"
            r"|model\.positional_embedding)"
        ),
        0,
    ),
    (
        "text_encoder_2",
        "max_position_embeddings",
        re.compile(r"conditioner\.embedders\.1\.model\.positional_embedding"),
        0,
    ),
    ("vae", "latent_channels", re.compile(r"first_stage_model\.decoder\.conv_in\.weight"), 1),
)
# diffusers' own values where unet/config.json leaves a key out.
UNET_DEFAULTS: Mapping[str, Any] = {"in_channels": 4, "out_channels": 4, "cross_attention_dim": 1280}


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file: its metadata, and the shape of each tensor by name."""

    metadata: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Declaration:
    """What a file says about a `key` of its configuration, and `where` in the file it says so."""

    key: str
    value: Any
    where: str


def read_header(path: Path) -> Header:
    """The header of a safetensors file. Raises InputError where it cannot be read."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _LONGEST_HEADER:
                raise ValueError("no header of safetensors")
            content = json.loads(file.read(length))
        metadata = content.pop("__metadata__", None) or {}
        shapes = {name: tuple(map(int, tensor["shape"])) for name, tensor in content.items()}
        return Header({str(key): str(value) for key, value in metadata.items()}, shapes)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise unreadable(path, error) from None


def declared(header: Header) -> list[Declaration]:
    """What a file declares. Marks count before metadata on the same key: they are what other programs act on."""
    marks = [Declaration(*meaning, f"tensor {name}") for name, meaning in _MARKS.items() if name in header.shapes]
    marked = {mark.key for mark in marks}
    told = [said for said in _in_metadata(header.metadata) if said.key not in marked]
    return [*marks, *told, *_in_shapes(header.shapes)]


def _in_metadata(metadata: Mapping[str, str]) -> Iterator[Declaration]:
    for name in ("modelspec.prediction_type", "modelspec.predict_key"):
        if text := metadata.get(name, "").strip().lower():
            yield Declaration("prediction_type", _PREDICTIONS.get(text, _SHOWN.repr(text)), f"metadata {name}")
    predicts_v = _FLAGS.get(metadata.get("ss_v_parameterization", "").strip().lower())
    if predicts_v is not None:
        kind = "v_prediction" if predicts_v else "epsilon"
        yield Declaration("prediction_type", kind, "metadata ss_v_parameterization")
    without_signal = _FLAGS.get(metadata.get("ss_zero_terminal_snr", "").strip().lower())
    if without_signal is not None:
        yield Declaration("rescale_betas_zero_snr", without_signal, "metadata ss_zero_terminal_snr")
    name = metadata.get("modelspec.architecture", "").strip().lower()
    where = "metadata modelspec.architecture"
    if (family := _family_of(name)) is not None:
        yield Declaration("family", family, where)
    for beginning, kind in _PREDICTED_BY.items():
        if name.startswith(beginning):
            yield Declaration("prediction_type", kind, where)
    base = metadata.get("ss_base_model_version", "").strip().lower()
    where = "metadata ss_base_model_version"
    known = [family for beginning, family in _BASE_MODELS if base.startswith(beginning)]
    for family in known or ([_SHOWN.repr(base)] if base.startswith(_OTHER_BASE_MODELS) else []):
        yield Declaration("family", family, where)
    if re.fullmatch(r"sd_v\d_v", base) and predicts_v is None:
        yield Declaration("prediction_type", "v_prediction", where)


def _family_of(architecture: str) -> str | None:
    """The family of an architecture by ModelSpec's name, the name itself for none of ours, None for unknown names."""
    for family in FAMILIES.values():
        for name in family.architectures:
            if architecture.startswith(name) and not _OTHER_KINDS.search(architecture.removeprefix(name)):
                return family.name
    return _SHOWN.repr(architecture) if architecture.startswith(_OTHER_ARCHITECTURES) else None


def _in_shapes(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Declaration]:
    others = [(f"{part} {key}", pattern, axis) for part, key, pattern, axis in _PART_SIZES]
    for key, pattern, axis in (*_SIZES, *others):
        name = next((name for name in shapes if pattern.fullmatch(name)), None)
        if name is not None and len(shapes[name]) > axis:
            yield Declaration(key, shapes[name][axis], f"tensor {name}")


def headers(checkpoint: Checkpoint) -> list[Header]:
    """The headers of the files with the network's weights; none where they are missing, which is said elsewhere."""
    if checkpoint.is_file:
        return [read_header(checkpoint.path)]
    network = checkpoint.family.network
    if not any((checkpoint.path / network).glob("*.safetensors")):
        return []
    return [read_header(path) for path in weight_paths(checkpoint.path, network)]


def check_declarations(key: str, checkpoint: Checkpoint, config_key: str, with_parts: bool = True) -> None:
    """Raise InputError where a file of `checkpoint`, which the study names in `key`, contradicts its configuration.

    `config_key` is the study's key that names the configuration of a single file. Of a guide the autoencoder and the
    text encoders are not read (`with_parts`).
    """
    configured = _configured(checkpoint, with_parts)
    for header in headers(checkpoint):
        _check_quantized(f"{key} {checkpoint.path}", header)
        for mark in _EDM_MARKS:
            if mark in header.shapes:
                raise InputError(
                    f"{key} {checkpoint.path} has tensor {mark}: it was trained on EDM's noise levels "
                    "(arXiv 2206.00364), which are not supported; take a checkpoint with a DDPM noise schedule"
                )
        against = [said for said in declared(header) if configured.get(said.key, said.value) != said.value]
        if against:
            said = "; ".join(
                f"{one.where} says {one.key} {_word(one.value)}, the configuration says {_word(configured[one.key])}"
                for one in against
            )
            raise InputError(
                f"{key} {checkpoint.path} contradicts {checkpoint.config}: {said}; {way_out(checkpoint, config_key)}"
            )


def way_out(checkpoint: Checkpoint, config_key: str) -> str:
    """What to do where weights and configuration of a network contradict each other."""
    if checkpoint.is_file:
        return f"set {config_key} to a folder with its own configuration"
    return "fetch weights and configuration that belong together"


def _check_quantized(place: str, header: Header) -> None:
    name = next((f"tensor {name}" for name in header.shapes if _QUANTIZED.fullmatch(name)), None)
    if name is None and _QUANTIZED_METADATA in header.metadata:
        name = f"metadata {_QUANTIZED_METADATA}"
    if name is not None:
        raise InputError(
            f"{place} has {name}: its weights are quantized, and their scales are not read; "
            "take a checkpoint in float32, float16 or bfloat16"
        )


def _configured(checkpoint: Checkpoint, with_parts: bool) -> dict[str, Any]:
    """What the configuration says about the keys that files declare."""
    family, schedule = checkpoint.family, checkpoint.schedule
    found: dict[str, Any] = {"family": family.name}
    if schedule and family.path is VARIANCE_PRESERVING:
        found["prediction_type"] = schedule.get("prediction_type", "epsilon")
        found["rescale_betas_zero_snr"] = bool(schedule.get("rescale_betas_zero_snr", False))
    unet = checkpoint.settings("unet") if family.network == "unet" else None
    if unet is not None:
        sizes = {key: unet.get(key, UNET_DEFAULTS.get(key)) for key, _, _ in _SIZES}
        # One width per block is compared with the texts' (parts.py).
        found |= {key: size for key, size in sizes.items() if not isinstance(size, list)}
    for part, key, _, _ in _PART_SIZES if with_parts else ():
        # What a configuration leaves out is compared where the parts are (parts.py).
        if key in (settings := checkpoint.settings(part) or {}):
            found[f"{part} {key}"] = settings[key]
    return found


def _word(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
