"""A pipeline of diffusers as one file in the layout of the original Stable Diffusion code, for tests of its reading.

The names are those of CompVis/stable-diffusion, for SDXL of Stability-AI/generative-models; diffusers knows the way
from there (diffusers/loaders/single_file_utils.py), this is the way back.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from original_transformers import original_sd3, transformer_of
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]

_UNET = {
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "add_embedding.linear_1.": "label_emb.0.0.",
    "add_embedding.linear_2.": "label_emb.0.2.",
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
}
_UNET_RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "time_emb_proj.": "emb_layers.1.",
    "conv_shortcut.": "skip_connection.",
}
_VAE_ATTENTION = {"group_norm.": "norm.", "to_q.": "q.", "to_k.": "k.", "to_v.": "v.", "to_out.0.": "proj_out."}
_OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.": "ln_final.",
    "encoder.layers.": "transformer.resblocks.",
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
    "self_attn.": "attn.",
}


def save_single_file(folder: Path, path: Path) -> None:
    """Write the weights of the pipeline in `folder` (SD 1.x, SD 2.x or SDXL) to one safetensors file."""
    tensors = _prefixed("model.diffusion_model.", original_unet(folder))
    tensors |= _prefixed("first_stage_model.", original_vae(folder))
    if (folder / "text_encoder_2").is_dir():
        tensors |= _prefixed("conditioner.embedders.0.transformer.text_model.", _clip(folder / "text_encoder"))
        tensors |= _prefixed("conditioner.embedders.1.model.", _open_clip(folder / "text_encoder_2"))
    elif predicts_v(folder):
        tensors |= _prefixed("cond_stage_model.model.", _open_clip(folder / "text_encoder"))
    else:
        tensors |= _prefixed("cond_stage_model.transformer.text_model.", _clip(folder / "text_encoder"))
    # A schedule's constants, which the original files carry along.
    tensors["alphas_cumprod"] = torch.linspace(1, 0, 1000)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})


def predicts_v(folder: Path) -> bool:
    """Whether a pipeline is of SD 2.x, whose text encoder is OpenCLIP's."""
    prediction: str = json.loads((folder / "scheduler/scheduler_config.json").read_text())["prediction_type"]
    return prediction == "v_prediction"


def _prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for ours, original in names.items():
        name = name.replace(ours, original)
    return name


def original_unet(folder: Path) -> Tensors:
    """The UNet's weights under their original names, whose blocks are numbered through."""
    layers = json.loads((folder / "unet/config.json").read_text())["layers_per_block"]
    tensors = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    attended = {int(m[1]) for name in tensors if (m := re.match(r"up_blocks\.(\d+)\.attentions", name))}
    found = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", name):
            side, block, kind, layer, rest = match.groups()
            # Each block has one place more than layers: going up a layer, going down the downsampler. 0 is conv_in.
            number = int(block) * (layers + 1) + int(layer) + (side == "down")
            place = f"{'input' if side == 'down' else 'output'}_blocks.{number}"
            name = f"{place}.0.{_renamed(rest, _UNET_RESNET)}" if kind == "resnets" else f"{place}.1.{rest}"
        elif match := re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.+)", name):
            name = f"input_blocks.{(int(match[1]) + 1) * (layers + 1)}.0.op.{match[2]}"
        elif match := re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.conv\.(.+)", name):
            last = int(match[1]) * (layers + 1) + layers
            name = f"output_blocks.{last}.{2 if int(match[1]) in attended else 1}.conv.{match[2]}"
        elif match := re.fullmatch(r"mid_block\.resnets\.(\d)\.(.+)", name):
            name = f"middle_block.{2 * int(match[1])}.{_renamed(match[2], _UNET_RESNET)}"
        elif match := re.fullmatch(r"mid_block\.attentions\.0\.(.+)", name):
            name = f"middle_block.1.{match[1]}"
        else:
            name = _renamed(name, _UNET)
        found[name] = tensor
    return found


def original_vae(folder: Path) -> Tensors:
    """The autoencoder's weights under their original names; its attention was made of 1x1 convolutions."""
    blocks = len(json.loads((folder / "vae/config.json").read_text())["block_out_channels"])
    found = {}
    for name, tensor in load_file(folder / "vae/diffusion_pytorch_model.safetensors").items():
        name = name.replace("conv_norm_out.", "norm_out.").replace("conv_shortcut.", "nin_shortcut.")
        name = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", name)
        # The decoder's blocks are counted from the image.
        name = re.sub(r"up_blocks\.(\d+)\.", lambda m: f"up.{blocks - 1 - int(m[1])}.", name)
        name = re.sub(r"(up\.\d+)\.resnets\.", r"\1.block.", name)
        name = re.sub(r"(up\.\d+)\.upsamplers\.0\.", r"\1.upsample.", name)
        name = re.sub(r"mid_block\.resnets\.(\d)\.", lambda m: f"mid.block_{int(m[1]) + 1}.", name)
        if "mid_block.attentions.0." in name:
            name = _renamed(name.replace("mid_block.attentions.0.", "mid.attn_1."), _VAE_ATTENTION)
            tensor = tensor[..., None, None] if tensor.ndim == 2 else tensor
        found[name] = tensor
    return found


def _clip(folder: Path) -> Tensors:
    """A text encoder's weights without the prefix that some versions of transformers give them."""
    tensors = load_file(folder / "model.safetensors")
    found = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    # Written by the transformers of the time, no parameter any more.
    length = found["embeddings.position_embedding.weight"].shape[0]
    return {**found, "embeddings.position_ids": torch.arange(length)[None]}


def _open_clip(folder: Path) -> Tensors:
    """A text encoder's weights as OpenCLIP has them: queries, keys and values in one matrix."""
    found = {}
    tensors = {name: tensor for name, tensor in _clip(folder).items() if name != "embeddings.position_ids"}
    for name, tensor in tensors.items():
        if name == "text_projection.weight":
            found["text_projection"] = tensor.T
        elif ".q_proj." in name:
            joined = torch.cat([tensors[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"])
            found[_renamed(name, _OPEN_CLIP).replace("q_proj.", "in_proj_")] = joined
        elif ".k_proj." not in name and ".v_proj." not in name:
            found[_renamed(name, _OPEN_CLIP)] = tensor
    return found


SD3_TEXTS = {"text_encoder": "clip_l", "text_encoder_2": "clip_g", "text_encoder_3": "t5xxl"}


def save_sd3_single_file(
    folder: Path, path: Path, texts: Iterable[str] = SD3_TEXTS, t5: torch.dtype = torch.float32
) -> None:
    """Write the SD3 pipeline in `folder` with some of its text encoders to one safetensors file, as Stability AI has
    them: sd3.5_medium with none, sd3_medium_incl_clips with two, sd3_medium_incl_clips_t5xxlfp8 with three, the last
    in 8 bits.
    """
    tensors = _prefixed("model.diffusion_model.", original_sd3(transformer_of(folder)))
    tensors |= _prefixed("first_stage_model.", original_vae(folder))
    for part in texts:
        own = load_file(folder / part / "model.safetensors")
        dtype = t5 if part == "text_encoder_3" else torch.float32
        own = {name: tensor.to(dtype) for name, tensor in own.items()}
        tensors |= _prefixed(f"text_encoders.{SD3_TEXTS[part]}.transformer.", own)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})
