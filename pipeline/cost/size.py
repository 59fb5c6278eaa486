"""How large a network is and what an evaluation of it takes, from its configuration alone.

Networks are built on torch's device "meta", where tensors have a shape and a type and no values, so a network of twelve
billion parameters takes no memory here. FLOPs are torch's count of matrix products and convolutions; a multiply-add is
two. The memory of an evaluation is the most bytes that its tensors hold at a time, attention counted as kernels compute
it that never hold the map of all positions against all (FlashAttention, arXiv 2205.14135).
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Size:
    """Parameters of a network, and the FLOPs and bytes of one evaluation."""

    parameters: int
    flops: int
    activations: int

    def memory(self, bytes_per_weight: int) -> int:
        """Bytes of weights and one evaluation together."""
        return self.parameters * bytes_per_weight + self.activations


def size_of(network: torch.nn.Module, evaluate: Callable[[], object]) -> Size:
    """The size of a network on device "meta"; `evaluate` calls it on tensors of that device."""
    parameters = sum(weight.numel() for weight in network.parameters())
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        evaluate()
    live = LiveBytes()
    with torch.no_grad(), _AttentionWithoutMap(), live:
        evaluate()
    return Size(parameters, int(counter.get_total_flops()), live.peak)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made inside; `peak` is the most that were there at a time."""

    def __init__(self) -> None:
        super().__init__()
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
