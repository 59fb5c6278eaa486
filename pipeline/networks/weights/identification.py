"""What a file or folder is that cannot be drawn with: a LoRA, a refiner, a part alone, a network of another family.

Names of tensors and classes of configurations say it, before anything is loaded.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pipeline.errors import InputError
from pipeline.networks.families import Family, known_families, labelled_family, network_classes
from pipeline.networks.weights.transformer_file import without_prefix

_LORA = re.compile(r"(^|[._])(lora|lokr|hada|oft)_|[._]lora\.|\.dora_scale$")
_CONTROL = re.compile(r"^control_model\.|controlnet_|input_hint_block|^image_proj\.|^ip_adapter\.")
_EMBEDDING = {"emb_params", "clip_l", "clip_g"}
_PIECE = re.compile(r"-(\d{5})-of-(\d{5})\.")
# Tensors that only one family has, in the original layout and in diffusers'.
_OTHERS = {
    "double_layers.": "AuraFlow",
    "clip_txt_mapper.": "Stable Cascade",
    "clip_txt_pooled_mapper.": "Stable Cascade",
    "adaln_single.": "PixArt",
    "transformer_blocks.": "a diffusion transformer",
}
_SD3 = ("SD3", ("sd3", "pixel_flow"), "stabilityai/stable-diffusion-3.5-medium")
# Tensors of transformers in one file, by the beginnings of names in either layout: what they are, the families, and a
# repository with the other parts. The first that fits counts: Chroma and FLUX.2 have all that FLUX.1 has, Z-Image all
# that Lumina 2 has, and several have SD3's attention.
_TRANSFORMERS = {
    "distilled_guidance_layer.": ("Chroma", ("chroma",), "lodestones/Chroma1-HD"),
    "single_stream_modulation.": ("FLUX.2", ("flux2", "flux2_klein"), "black-forest-labs/FLUX.2-dev"),
    "double_blocks.": ("FLUX", ("flux",), "black-forest-labs/FLUX.1-dev"),
    "single_transformer_blocks.": ("FLUX", ("flux",), "black-forest-labs/FLUX.1-dev"),
    "txt_norm.": ("Qwen-Image", ("qwen_image",), "Qwen/Qwen-Image"),
    "x_pad_token": ("Z-Image", ("z_image",), "Tongyi-MAI/Z-Image"),
    "cap_embedder.": ("Lumina 2", ("lumina2",), "Alpha-VLLM/Lumina-Image-2.0"),
    "time_caption_embed.": ("Lumina 2", ("lumina2",), "Alpha-VLLM/Lumina-Image-2.0"),
    "joint_blocks.": _SD3,
    "transformer_blocks.0.attn.add_k_proj.": _SD3,
}
# The parts of a checkpoint in one file by the beginnings of their tensors' names, a network's after its prefix; alone
# they have none in common.
_PARTS = {
    "unet": ("input_blocks.", "down_blocks."),
    "transformer": ("joint_blocks.", "transformer_blocks."),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.", "text_model.", "text_encoders.clip_l."),
    "text_encoder_2": ("conditioner.embedders.1.", "text_encoders.clip_g."),
    "text_encoder_3": ("text_encoders.t5xxl.",),
    "vae": ("first_stage_model.", "decoder.", "vae."),
}
_WORDS = {
    "unet": "a UNet",
    "transformer": "a transformer",
    "text_encoder": "a text encoder",
    "text_encoder_2": "a second text encoder",
    "text_encoder_3": "a third text encoder",
    "vae": "an autoencoder",
}
# The parts that a setting of their name can take from another checkpoint.
_REPLACEABLE = ("text_encoder", "vae")
_REFINER = (
    "SDXL's refiner, which only continues images of SDXL's base model; name the base model, for instance "
    "hub:stabilityai/stable-diffusion-xl-base-1.0"
)


def check_file(path: Path, family: Family | None) -> None:
    """Raise InputError that says what a file is, where it is not a checkpoint of a known family and no part of one.

    `family` is that of its configurations, None where there are none.
    """
    keys = _keys(path)
    if any(_LORA.search(key) for key in keys):
        raise InputError(_lora(path, path))
    if any(_CONTROL.search(key) for key in keys):
        raise InputError(f"{path} is a ControlNet or an adapter, which is not supported; name a whole checkpoint")
    if keys and keys <= _EMBEDDING:
        raise InputError(
            f"{path} is an embedding (textual inversion), which a text calls by its name in embeddings/; name a whole "
            "checkpoint"
        )
    if piece := _PIECE.search(path.name):
        raise InputError(
            f"{path} is one of {int(piece[2])} pieces of a checkpoint; name the folder of the whole checkpoint, "
            "which holds the part's folder"
        )
    names = without_prefix(dict.fromkeys(keys)).keys()
    known = next((own for start, own in _TRANSFORMERS.items() if any(n.startswith(start) for n in names)), None)
    if known is not None:
        title, fitting, repository = known
        if family is not None and family.name in fitting:
            return
        alone = ", which holds a transformer alone" if set(held_parts(keys)) <= {"transformer"} else ""
        configured = "" if family is None else f", and model.config is of family {family.name}"
        raise InputError(
            f"{path} is {title} in one file{alone}{configured}; set model.config to a folder or repository of {title} "
            f"in diffusers' layout, whose other parts are then read, such as hub:{repository}"
        )
    if family is not None and family.network_alone:
        raise InputError(
            f"{path} holds no transformer of family {family.name}, which model.config is of; set model.config to a "
            "folder with its own configuration"
        )
    for beginning, other in _OTHERS.items():
        if any(name.startswith(beginning) for name in names):
            raise InputError(f"{path} is {other}, which is not supported; supported families: {known_families()}")
    if any(key.startswith("conditioner.embedders.0.model.") for key in keys):
        raise InputError(f"{path} is {_REFINER}")


def check_main(path: Path, family: Family | None, needed: Iterable[str], replaced: Collection[str]) -> None:
    """Raise InputError where a file that is to be the main network lacks one of the parts `needed`, or is none at all.

    `family` is that of its configurations, None where there are none. `replaced` are the parts that come from other
    checkpoints.
    """
    check_file(path, family)
    if family is not None and family.network_alone:
        return
    held = held_parts(_keys(path))
    expected = [part for part in needed if family is None or read_from_file(path, family, part)]
    lacking = [part for part in expected if part not in held and part not in replaced]
    if not held or not lacking:
        return
    what = f"{_WORDS[held[0]]} alone" if len(held) == 1 else f"no {_WORDS[lacking[0]].split(maxsplit=1)[1]}"
    settings = [f"model.{part}" for part in lacking if part in _REPLACEABLE]
    also = f", or add {' and '.join(settings)}" if len(settings) == len(lacking) else ""
    raise InputError(f"model.main {path} holds {what}; name a whole checkpoint{also}")


def held_parts(names: Collection[str]) -> list[str]:
    """The parts of a checkpoint that a file with tensors of these names holds, of families whose files hold several."""
    known = {*names, *without_prefix(dict.fromkeys(names))}
    return [part for part, starts in _PARTS.items() if any(name.startswith(starts) for name in known)]


def read_from_file(path: Path, family: Family, part: str) -> bool:
    """Whether the weights of a part are read from a file of a family; else they are beside its configurations.

    A UNet's file has to hold all parts. Of SD3's, published with all text encoders, with the CLIPs and with none, what
    they hold is read; one without a transformer is the part that it was named for.
    """
    if family.network == "unet":
        return True
    if family.network_alone:
        return part == family.network
    held = held_parts(_keys(path))
    return part in held or family.network not in held


def check_folder(folder: Path) -> None:
    """Raise InputError that says what a folder without unet/ and model_index.json is, where that can be seen."""
    for part in ("transformer", "prior", "decoder"):
        name = _class(folder / part)
        if name is not None:
            labelled_family(name, folder)
    own = _class(folder)
    if own == "UNet2DConditionModel":
        whole = folder.parent
        where = whole if (whole / "scheduler").is_dir() else "the one that holds it as unet/, with scheduler/ beside it"
        raise InputError(f"{folder} is a UNet alone; name the folder of the whole checkpoint: {where}")
    if own is not None:
        if "Transformer" in own and own not in network_classes():
            labelled_family(own, folder)
        raise InputError(f"{folder} is one part of a checkpoint alone ({own}); name the folder of the whole checkpoint")
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        if any(_LORA.search(key) for key in _keys(file)):
            raise InputError(_lora(folder, file))
    if files:
        raise InputError(
            f"{folder} holds no unet/; a checkpoint in a single file is named itself: {files[0]}, with model.config"
        )


def check_base(network: Mapping[str, Any], index: Mapping[str, Any], place: object) -> None:
    """Raise InputError for SDXL's refiner, by model_index.json or the configuration of its UNet.

    It reads one text encoder, and five numbers beside its pooled text instead of six.
    """
    added = int(network.get("projection_class_embeddings_input_dim") or 0)
    numbers = 5 * int(network.get("addition_time_embed_dim") or 0)
    width = network.get("cross_attention_dim")
    is_told = network.get("addition_embed_type") == "text_time"
    if index.get("requires_aesthetics_score") or (is_told and isinstance(width, int) and added == width + numbers):
        raise InputError(f"{place} is {_REFINER}")


def _lora(place: Path, file: Path) -> str:
    return (
        f"{place} is a LoRA, not a network; name the checkpoint that it was trained on. A guide takes it as "
        f"model.weaken: {{name: lora, file: {file}}}; the main network as model.loras: [{{file: {file}}}]"
    )


def _keys(path: Path) -> set[str]:
    try:
        with safe_open(path, "np") as file:
            return set(file.keys())
    except (SafetensorError, OSError):  # refused where the weights are looked at
        return set()


def _class(folder: Path) -> str | None:
    try:
        content = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    architectures = content.get("architectures")
    first: Iterable[object] = architectures if isinstance(architectures, list) else ()
    name = content.get("_class_name") or next(iter(first), None)
    return None if name is None else str(name)
