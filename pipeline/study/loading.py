"""How a model's weights are held in memory, as conf/model describes it."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, model_validator

from pipeline.settings import Settings

Offloaded = Literal["text_encoders", "main", "guide", "vae"]
# What `offload: true` means: the networks, by far the largest parts of most models.
_NETWORKS: tuple[Offloaded, ...] = ("main", "guide")


def _listed(parts: object) -> object:
    return (_NETWORKS if parts else ()) if isinstance(parts, bool) else parts


class Loading(Settings):
    """Precision, and what trades time for memory.

    `attention_slicing` computes attention in parts, `vae_slicing` decodes image by image and `vae_tiling` in tiles
    (which shows in the pixels of large canvases). `offload` keeps parts on the CPU: of networks and text encoders each
    layer is brought to the accelerator when it is needed, the autoencoder as a whole; true means both networks.
    `compile` has torch.compile fuse a network's operations: the first batches take a minute more, once a network and
    size of batch, and all that follow less.
    """

    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    attention_slicing: bool = False
    vae_slicing: bool = False
    vae_tiling: bool = False
    offload: Annotated[tuple[Offloaded, ...], BeforeValidator(_listed)] = ()
    compile: bool = False

    @model_validator(mode="after")
    def _compiled_where_it_lies(self) -> Self:
        if self.compile and {"main", "guide"} & {*self.offload}:
            raise ValueError("compile and offload exclude each other: layers that move cannot be fused; leave one out")
        return self
