"""How a model's weights are held in memory, as conf/model describes it."""

from typing import Literal, Self

from pydantic import model_validator

from pipeline.settings import Settings


class Loading(Settings):
    """Precision, and what trades time for memory.

    `attention_slicing` computes attention in parts, `vae_slicing` decodes image by image and `vae_tiling` in tiles
    (which shows in the pixels of large canvases); `offload` keeps the network on the CPU and brings each layer to the
    accelerator when it is needed. `compile` has torch.compile fuse a network's operations: the first batches take a
    minute more, once a network and size of batch, and all that follow less.
    """

    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    attention_slicing: bool = False
    vae_slicing: bool = False
    vae_tiling: bool = False
    offload: bool = False
    compile: bool = False

    @model_validator(mode="after")
    def _compiled_where_it_lies(self) -> Self:
        if self.compile and self.offload:
            raise ValueError("compile and offload exclude each other: layers that move cannot be fused; leave one out")
        return self
