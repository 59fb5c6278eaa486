"""A pipeline of diffusers as one file in the layout of the original Stable Diffusion code, for tests of its reading.

The names are those of CompVis/stable-diffusion, for SDXL of Stability-AI/generative-models; diffusers knows the way
from there (diffusers/loaders/single_file_utils.py), this is the way back.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
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


_SD3_PLACES = {
    "pos_embed.proj.": "x_embedder.proj.",
    "pos_embed.pos_embed": "pos_embed",
    "time_text_embed.timestep_embedder.linear_1.": "t_embedder.mlp.0.",
    "time_text_embed.timestep_embedder.linear_2.": "t_embedder.mlp.2.",
    "time_text_embed.text_embedder.linear_1.": "y_embedder.mlp.0.",
    "time_text_embed.text_embedder.linear_2.": "y_embedder.mlp.2.",
    "norm_out.linear.": "final_layer.adaLN_modulation.1.",
    "proj_out.": "final_layer.linear.",
}
_SD3_LAYERS = {
    "attn.to_out.0.": "x_block.attn.proj.",
    "attn.to_add_out.": "context_block.attn.proj.",
    "attn.norm_q.": "x_block.attn.ln_q.",
    "attn.norm_k.": "x_block.attn.ln_k.",
    "attn.norm_added_q.": "context_block.attn.ln_q.",
    "attn.norm_added_k.": "context_block.attn.ln_k.",
    "attn2.to_out.0.": "x_block.attn2.proj.",
    "attn2.norm_q.": "x_block.attn2.ln_q.",
    "attn2.norm_k.": "x_block.attn2.ln_k.",
    "norm1.linear.": "x_block.adaLN_modulation.1.",
    "norm1_context.linear.": "context_block.adaLN_modulation.1.",
    "ff.net.0.proj.": "x_block.mlp.fc1.",
    "ff.net.2.": "x_block.mlp.fc2.",
    "ff_context.net.0.proj.": "context_block.mlp.fc1.",
    "ff_context.net.2.": "context_block.mlp.fc2.",
}
# Queries, keys and values, which the original code has in one matrix.
_SD3_JOINED = {
    "attn.to_q.": ("x_block.attn.qkv.", ("attn.to_q.", "attn.to_k.", "attn.to_v.")),
    "attn2.to_q.": ("x_block.attn2.qkv.", ("attn2.to_q.", "attn2.to_k.", "attn2.to_v.")),
    "attn.add_q_proj.": ("context_block.attn.qkv.", ("attn.add_q_proj.", "attn.add_k_proj.", "attn.add_v_proj.")),
}


def save_sd3_single_file(folder: Path, path: Path) -> None:
    """Write the weights of the SD3 pipeline in `folder` to one safetensors file, as Stability AI has them."""
    tensors = _prefixed("model.diffusion_model.", original_sd3_transformer(folder))
    tensors |= _prefixed("first_stage_model.", original_vae(folder))
    for part, name in (("text_encoder", "clip_l"), ("text_encoder_2", "clip_g"), ("text_encoder_3", "t5xxl")):
        tensors |= _prefixed(f"text_encoders.{name}.transformer.", load_file(folder / part / "model.safetensors"))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})


def original_sd3_transformer(folder: Path) -> Tensors:
    """A transformer's weights under the names of Stability AI's code."""
    tensors = load_file(folder / "transformer/diffusion_pytorch_model.safetensors")
    last = max(int(name.split(".")[1]) for name in tensors if name.startswith("transformer_blocks."))
    found = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", name)
        if match is None:
            place = _renamed(name, _SD3_PLACES)
            found[place] = _swapped(tensor) if place.startswith("final_layer.adaLN") else tensor
            continue
        block, layer = match.groups()
        joined = next((own for start, own in _SD3_JOINED.items() if layer.startswith(start)), None)
        if joined is not None:
            kind = layer.rpartition(".")[2]
            parts = [tensors[f"transformer_blocks.{block}.{start}{kind}"] for start in joined[1]]
            found[f"joint_blocks.{block}.{joined[0]}{kind}"] = torch.cat(parts)
        elif place := next((new for old, new in _SD3_LAYERS.items() if layer.startswith(old)), None):
            old = next(old for old in _SD3_LAYERS if layer.startswith(old))
            # The last block's norm of the text has scale before shift in diffusers, and after it in the original.
            swap = int(block) == last and old == "norm1_context.linear."
            found[f"joint_blocks.{block}.{place}{layer.removeprefix(old)}"] = _swapped(tensor) if swap else tensor
    return found


_FLUX2_PLACES = {
    "x_embedder.": "img_in.",
    "context_embedder.": "txt_in.",
    "time_guidance_embed.timestep_embedder.linear_1.": "time_in.in_layer.",
    "time_guidance_embed.timestep_embedder.linear_2.": "time_in.out_layer.",
    "_modulation_img.linear.": "_modulation_img.lin.",
    "_modulation_txt.linear.": "_modulation_txt.lin.",
    "_modulation.linear.": "_modulation.lin.",
    "proj_out.": "final_layer.linear.",
    "norm_out.linear.": "final_layer.adaLN_modulation.1.",
    "single_transformer_blocks.": "single_blocks.",
    "transformer_blocks.": "double_blocks.",
    "attn.to_qkv_mlp_proj.": "linear1.",
    "attn.to_out.0.": "img_attn.proj.",
    "attn.to_out.": "linear2.",
    "attn.to_add_out.": "txt_attn.proj.",
    "attn.norm_added_q.weight": "txt_attn.norm.query_norm.scale",
    "attn.norm_added_k.weight": "txt_attn.norm.key_norm.scale",
    "ff.linear_in.": "img_mlp.0.",
    "ff.linear_out.": "img_mlp.2.",
    "ff_context.linear_in.": "txt_mlp.0.",
    "ff_context.linear_out.": "txt_mlp.2.",
}
_FLUX2_JOINED = {
    "attn.to_q.": ("img_attn.qkv.", ("attn.to_q.", "attn.to_k.", "attn.to_v.")),
    "attn.add_q_proj.": ("txt_attn.qkv.", ("attn.add_q_proj.", "attn.add_k_proj.", "attn.add_v_proj.")),
}


def original_flux2_transformer(folder: Path) -> Tensors:
    """A transformer's weights under the names of Black Forest Labs' code, which a file of theirs holds alone."""
    tensors = load_file(folder / "transformer/diffusion_pytorch_model.safetensors")
    joined = {part: own for _, parts in _FLUX2_JOINED.values() for own, part in enumerate(parts)}
    found = {}
    for name, tensor in tensors.items():
        layer = next((part for part in joined if part in name), None)
        if layer is None:
            # Norms of queries and keys lie in the attention of double blocks, and in single blocks by themselves.
            norm = "norm." if name.startswith("single") else "img_attn.norm."
            norms = {"attn.norm_q.weight": f"{norm}query_norm.scale", "attn.norm_k.weight": f"{norm}key_norm.scale"}
            place = _renamed(name, {**norms, **_FLUX2_PLACES})
            found[place] = _swapped(tensor) if place.startswith("final_layer.adaLN") else tensor
        elif layer in _FLUX2_JOINED:
            place, parts = _FLUX2_JOINED[layer]
            whole = torch.cat([tensors[name.replace(layer, part)] for part in parts])
            found[_renamed(name.replace(layer, place), _FLUX2_PLACES)] = whole
    return found


def _swapped(tensor: torch.Tensor) -> torch.Tensor:
    return torch.cat(tensor.chunk(2)[::-1])
