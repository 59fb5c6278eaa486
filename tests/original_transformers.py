"""Transformers of diffusers under the names of their original codes, for tests of the reading of such files.

diffusers knows the way from there (diffusers/loaders/single_file_utils.py), this is the way back.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

Tensors = dict[str, torch.Tensor]


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for ours, original in names.items():
        name = name.replace(ours, original)
    return name


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
