"""How a model's weights are held in memory, as conf/model describes it."""

from typing import Literal

from pipeline.section import Section


class Loading(Section):
    """Precision, and what trades time for memory.

    `attention_slicing` computes attention in parts, `vae_slicing` decodes picture by picture and `vae_tiling` in tiles
    (which shows in the pixels of large canvases); `offload` keeps the UNet on the CPU and brings each layer to the
    accelerator when it is needed.
    """

    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    attention_slicing: bool = False
    vae_slicing: bool = False
    vae_tiling: bool = False
    offload: bool = False
