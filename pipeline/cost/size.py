"""How large a network is and what an evaluation of it takes, from its configuration alone.

Networks are built on torch's device "meta", where tensors have a shape and a type and no values, so a network of twelve
billion parameters takes no memory here. FLOPs are torch's count of matrix products and convolutions; a multiply-add is
two. The memory of an evaluation is the most bytes that its tensors hold at a time, attention counted as kernels compute
it that never hold the map of all positions against all (FlashAttention, arXiv 2205.14135).
"""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import init_empty_weights
from diffusers import FlowMatchEulerDiscreteScheduler
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from pipeline.networks.checkpoints import latent_patch, of_videos
from pipeline.networks.families import Family
from pipeline.networks.text.conditioning import Conditioning

# FLOPs a second that an H100 is taken to reach, of 990 TFLOP/s in 16 bits (dense): 40 %.
H100 = 0.4 * 990e12


@dataclass(frozen=True)
class Size:
    """A network's parameters, its values and those of its largest layer, and the FLOPs and bytes of one evaluation.

    Values are parameters and the tables that lie with them in files, such as SD3's of positions (`values_of`).
    """

    parameters: int
    values: int
    largest_layer: int
    flops: int
    activations: int

    def memory(self, bytes_per_weight: int) -> int:
        """Bytes of weights and one evaluation together."""
        return self.values * bytes_per_weight + self.activations


def described(kind: Any, config: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """The network of class `kind` (diffusers') that a configuration describes, on device "meta"."""
    with init_empty_weights(include_buffers=True):
        return kind.from_config(config).to(dtype)


def evaluation_of(family: Family, network: Any, height: int, width: int, tokens: int) -> Callable[[], object]:
    """One evaluation of a network on device "meta", for one image of `height` x `width` latents and a text of `tokens`.

    A transformer is evaluated by its family's denoiser, as in sampling; a UNet is told what its pipeline tells it.
    """
    config, dtype = network.config, network.dtype

    def of(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device="meta", dtype=dtype)

    if family.network == "transformer":
        denoise = family.denoiser(network, FlowMatchEulerDiscreteScheduler(), family, dtype=dtype)
        told = {"tokens": of(1, tokens, config.get("joint_attention_dim") or config.cap_feat_dim)}
        told["read"] = torch.ones(1, tokens, dtype=torch.bool)  # which networks count
        if pooled := config.get("pooled_projection_dim"):
            told["pooled"] = of(1, pooled)
        return lambda: denoise(of(1, denoise.channels, height, width), 1.0, Conditioning(told))
    widths = config.encoder_hid_dim or config.cross_attention_dim
    text = of(1, tokens, widths if isinstance(widths, int) else widths[0])
    added = None
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        added = {"text_embeds": of(1, pooled), "time_ids": of(1, 6)}
    return lambda: network(of(1, config.in_channels, height, width), of(), text, added_cond_kwargs=added)


def decoding_of(vae: Any, height: int, width: int) -> Callable[[], object]:
    """One decoding by an autoencoder on device "meta", of one image's `height` x `width` latents."""
    config = vae.config
    shape = (config.z_dim, 1) if of_videos(config) else (config.latent_channels,)  # channels, for videos also frames
    patch = latent_patch(config)
    latents = torch.empty(1, *shape, height * patch, width * patch, device="meta", dtype=vae.dtype)
    return lambda: vae.decode(latents)


def size_of(network: torch.nn.Module, evaluate: Callable[[], object]) -> Size:
    """The size of a network on device "meta"; `evaluate` calls it on tensors of that device."""
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        evaluate()
    live = LiveBytes()
    with torch.no_grad(), _AttentionWithoutMap(), live:
        evaluate()
    parameters = sum(weight.numel() for weight in network.parameters())
    return Size(parameters, *values_of(network), int(counter.get_total_flops()), live.peak)


def values_of(network: torch.nn.Module) -> tuple[int, int]:
    """The values that files have for a network, and for its largest layer without the layers inside that.

    They are parameters and tables: SD3.5 medium's of positions are a tenth of its file.
    """
    parameters = sum(weight.numel() for weight in network.parameters())
    tables = [sum(table.numel() for table in _tables(layer)) for layer in network.modules()]
    layers = [sum(weight.numel() for weight in layer.parameters(recurse=False)) for layer in network.modules()]
    return parameters + sum(tables), max(map(sum, zip(tables, layers, strict=True)))


def _tables(layer: torch.nn.Module) -> list[torch.Tensor]:
    unwritten = layer._non_persistent_buffers_set
    return [table for name, table in layer.named_buffers(recurse=False) if name not in unwritten]


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are made inside; `peak` is the most that were there at a time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = {
            leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)
        }
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if not isinstance(leaf, torch.Tensor):
                continue
            storage = leaf.untyped_storage()
            key = storage._cdata
            if key in self._known or key in inputs:
                continue  # a view, or in place
            self._known.add(key)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._freed, key, storage.nbytes())
        return result

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


class _AttentionWithoutMap(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            named = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
            query, value = named["query"], named["value"]
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return func(*args, **(kwargs or {}))
