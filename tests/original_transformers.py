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


def transformer_of(folder: Path) -> Tensors:
    """The weights of a folder's transformer, in diffusers' names."""
    return load_file(folder / "transformer/diffusion_pytorch_model.safetensors")


def original_sd3(tensors: Tensors) -> Tensors:
    """A transformer's weights under the names of Stability AI's code."""
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
    "time_guidance_embed.guidance_embedder.linear_1.": "guidance_in.in_layer.",
    "time_guidance_embed.guidance_embedder.linear_2.": "guidance_in.out_layer.",
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


def original_flux2(tensors: Tensors) -> Tensors:
    """A transformer's weights under the names of Black Forest Labs' code for FLUX.2."""
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


_FLUX_PLACES = {
    "time_text_embed.timestep_embedder.linear_1.": "time_in.in_layer.",
    "time_text_embed.timestep_embedder.linear_2.": "time_in.out_layer.",
    "time_text_embed.text_embedder.linear_1.": "vector_in.in_layer.",
    "time_text_embed.text_embedder.linear_2.": "vector_in.out_layer.",
    "time_text_embed.guidance_embedder.linear_1.": "guidance_in.in_layer.",
    "time_text_embed.guidance_embedder.linear_2.": "guidance_in.out_layer.",
    "x_embedder.": "img_in.",
    "context_embedder.": "txt_in.",
    "norm_out.linear.": "final_layer.adaLN_modulation.1.",
}
_DOUBLE_PLACES = {
    "norm1.linear.": "img_mod.lin.",
    "norm1_context.linear.": "txt_mod.lin.",
    "attn.norm_q.weight": "img_attn.norm.query_norm.scale",
    "attn.norm_k.weight": "img_attn.norm.key_norm.scale",
    "attn.norm_added_q.weight": "txt_attn.norm.query_norm.scale",
    "attn.norm_added_k.weight": "txt_attn.norm.key_norm.scale",
    "attn.to_out.0.": "img_attn.proj.",
    "attn.to_add_out.": "txt_attn.proj.",
    "ff.net.0.proj.": "img_mlp.0.",
    "ff.net.2.": "img_mlp.2.",
    "ff_context.net.0.proj.": "txt_mlp.0.",
    "ff_context.net.2.": "txt_mlp.2.",
}
_SINGLE_PLACES = {
    "norm.linear.": "modulation.lin.",
    "attn.norm_q.weight": "norm.query_norm.scale",
    "attn.norm_k.weight": "norm.key_norm.scale",
    "proj_out.": "linear2.",
}
_DOUBLE_JOINED = {
    "attn.to_q.": ("img_attn.qkv.", ("attn.to_q.", "attn.to_k.", "attn.to_v.")),
    "attn.add_q_proj.": ("txt_attn.qkv.", ("attn.add_q_proj.", "attn.add_k_proj.", "attn.add_v_proj.")),
}
_SINGLE_JOINED = {"attn.to_q.": ("linear1.", ("attn.to_q.", "attn.to_k.", "attn.to_v.", "proj_mlp."))}
_APPROXIMATOR = {".linear_1.": ".in_layer.", ".linear_2.": ".out_layer."}


def original_flux(tensors: Tensors) -> Tensors:
    """A transformer's weights under the names of Black Forest Labs' code for FLUX.1, most of which Chroma has."""
    found = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.(.+)", name)
        if match is not None:
            single, block, layer = match.groups()
            places, joined = (_SINGLE_PLACES, _SINGLE_JOINED) if single else (_DOUBLE_PLACES, _DOUBLE_JOINED)
            place = f"{'single' if single else 'double'}_blocks.{block}."
            found |= _in_block(tensors, name.removesuffix(layer), place, layer, places, joined)
        elif name.startswith("distilled_guidance_layer."):
            scale = re.sub(r"(norms\.\d+)\.weight", r"\1.scale", name)
            found[_renamed(scale, _APPROXIMATOR)] = tensor
        elif name.startswith("proj_out."):
            found[name.replace("proj_out.", "final_layer.linear.")] = tensor
        else:
            place = _renamed(name, _FLUX_PLACES)
            found[place] = _swapped(tensor) if place.startswith("final_layer.adaLN") else tensor
    return found


_LUMINA2_PLACES = {
    "time_caption_embed.caption_embedder.": "cap_embedder.",
    "time_caption_embed.timestep_embedder.linear_1.": "t_embedder.mlp.0.",
    "time_caption_embed.timestep_embedder.linear_2.": "t_embedder.mlp.2.",
    "norm_out.linear_1.": "final_layer.adaLN_modulation.1.",
    "norm_out.linear_2.": "final_layer.linear.",
}
_LUMINA2_LAYERS = {
    "attn.to_out.0.": "attention.out.",
    "attn.norm_q.": "attention.q_norm.",
    "attn.norm_k.": "attention.k_norm.",
    "feed_forward.linear_1.": "feed_forward.w1.",
    "feed_forward.linear_2.": "feed_forward.w2.",
    "feed_forward.linear_3.": "feed_forward.w3.",
    "norm1.linear.": "adaLN_modulation.1.",
    "norm1.norm.": "attention_norm1.",
    "norm1.": "attention_norm1.",  # of blocks of the text, which no time modulates
    "norm2.": "attention_norm2.",
    "ffn_norm": "ffn_norm",
}
_LUMINA2_JOINED = {"attn.to_q.": ("attention.qkv.", ("attn.to_q.", "attn.to_k.", "attn.to_v."))}


def original_lumina2(tensors: Tensors) -> Tensors:
    """A transformer's weights under the names of Lumina 2's code, which also has a norm that it does not use."""
    found = {"norm_final.weight": torch.ones(2)}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"((?:layers|noise_refiner|context_refiner)\.\d+\.)(.+)", name)
        if match is None:
            found[_renamed(name, _LUMINA2_PLACES)] = tensor
        else:
            block, layer = match.groups()
            found |= _in_block(tensors, block, block, layer, _LUMINA2_LAYERS, _LUMINA2_JOINED)
    return found


_Z_IMAGE_PLACES = {"all_final_layer.2-1.": "final_layer.", "all_x_embedder.2-1.": "x_embedder."}
_Z_IMAGE_LAYERS = {
    "attention.to_out.0.": "attention.out.",
    "attention.norm_q.": "attention.q_norm.",
    "attention.norm_k.": "attention.k_norm.",
}
_Z_IMAGE_JOINED = {"attention.to_q.": ("attention.qkv.", ("attention.to_q.", "attention.to_k.", "attention.to_v."))}


def original_z_image(tensors: Tensors) -> Tensors:
    """A transformer's weights under the names of ComfyUI's files of Z-Image, which are Lumina 2's for its attention."""
    found = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(.+\.)(attention\..+)", name)
        if match is None:
            found[_renamed(name, _Z_IMAGE_PLACES)] = tensor
        else:
            block, layer = match.groups()
            found |= _in_block(tensors, block, block, layer, _Z_IMAGE_LAYERS, _Z_IMAGE_JOINED)
    return found


def _in_block(
    tensors: Tensors,
    block: str,
    place: str,
    layer: str,
    places: Mapping[str, str],
    joined: Mapping[str, tuple[str, tuple[str, ...]]],
) -> Tensors:
    """A layer of `block` at its original `place`: the first of several that are one there has them all, others none."""
    for first, (whole, parts) in joined.items():
        if layer.startswith(first):
            kind = layer.removeprefix(first)
            return {f"{place}{whole}{kind}": torch.cat([tensors[f"{block}{part}{kind}"] for part in parts])}
        if layer.startswith(parts):
            return {}
    for ours, original in places.items():
        if layer.startswith(ours):
            return {place + original + layer.removeprefix(ours): tensors[block + layer]}
    return {place + layer: tensors[block + layer]}


def _swapped(tensor: torch.Tensor) -> torch.Tensor:
    return torch.cat(tensor.chunk(2)[::-1])
