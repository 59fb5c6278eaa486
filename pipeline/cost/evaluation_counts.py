"""How many network evaluations an image takes, by prediction, and how many FLOPs each of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.guidance.algebra import Prediction
from pipeline.guidance.chance import Chance
from pipeline.guidance.trace import TraceStep
from pipeline.networks.denoiser import Denoiser
from pipeline.networks.text.conditioning import Conditioning


def evaluations(trace: Sequence[TraceStep]) -> tuple[Counter[str], Counter[str]]:
    """How often each prediction was evaluated for one image, by name: for its guidance, and as a mere probe."""
    probed = Counter(name for step in trace for name in step.probed)
    return Counter(name for step in trace for name in (step.main, *step.references)) - probed, probed


def prediction_flops(network: Denoiser, prediction: Prediction, like: torch.Tensor, conditioning: Conditioning) -> int:
    """FLOPs of one evaluation for one image like `like` [1, C, H, W]; a multiply-add is two.

    `conditioning` is what it reads (`told` in pipeline/networks/text/conditioning.py). torch's counter knows attention
    only as matrix products on a CPU, so it is counted that way here. Those products would need much memory on a large
    canvas, so nothing is computed: on torch's device "meta" tensors have a shape and a type, and no values.
    """
    x = torch.zeros(like.shape, device="meta")
    # The counter sees no operation of a compiled network.
    eager = torch.compiler.set_stance("force_eager")
    with _on_meta(network.module), eager, FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(
            x, 1.0, conditioning, damage=prediction.perturbation, chance=Chance((0,), 0), attention=prediction.attention
        )
    return int(counter.get_total_flops())


@contextmanager
def _on_meta(network: torch.nn.Module) -> Iterator[None]:
    """The weights of the network are on torch's device "meta" inside the `with`, and where they were after it."""
    modules: list[Any] = list(network.modules())
    weights = [
        (tensors, name, tensor)
        for module in modules
        for tensors in (module._parameters, module._buffers)
        for name, tensor in tensors.items()
        if tensor is not None
    ]
    # Layers that are offloaded have accelerate bring their weights.
    bringing = [(module, module.forward) for module in modules if hasattr(module, "_hf_hook")]
    try:
        for tensors, name, tensor in weights:
            tensors[name] = tensor.to("meta")
        for module, _ in bringing:
            module.forward = module._old_forward
        yield
    finally:
        for tensors, name, tensor in weights:
            tensors[name] = tensor
        for module, forward in bringing:
            module.forward = forward
