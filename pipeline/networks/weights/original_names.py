"""Names of a UNet's layers in the original Stable Diffusion code, which numbers the blocks through."""

import re

# The places of a UNet's layers in the original Stable Diffusion code, which Kohya's trainers keep for SDXL.
_OUTSIDE_BLOCKS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
}
_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def original_name(name: str, layers: int, attended: set[int]) -> str:
    """A UNet layer's name in the original code, which numbers the blocks through.

    `layers` is the number of layers of a block, `attended` the blocks on the way up that have attention.
    """
    if match := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", name):
        side, block, kind, layer, rest = match.groups()
        # A block has one place more than layers: on the way up a layer, on the way down the downsampler. 0 is conv_in.
        number = int(block) * (layers + 1) + int(layer) + (side == "down")
        place = f"{'input' if side == 'down' else 'output'}_blocks.{number}"
        return f"{place}.0.{_RESNET.get(rest, rest)}" if kind == "resnets" else f"{place}.1.{rest}"
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", name):
        kind, layer, rest = match.groups()
        if kind == "resnets":
            return f"middle_block.{2 * int(layer)}.{_RESNET.get(rest, rest)}"
        return f"middle_block.{2 * int(layer) + 1}.{rest}"
    if match := re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv", name):
        return f"input_blocks.{(int(match[1]) + 1) * (layers + 1)}.0.op"
    if match := re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.conv", name):
        last = int(match[1]) * (layers + 1) + layers
        return f"output_blocks.{last}.{2 if int(match[1]) in attended else 1}.conv"
    return _OUTSIDE_BLOCKS.get(name, name)
