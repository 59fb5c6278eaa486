"""What a picture takes of the denoising networks: how often each prediction is evaluated, and the FLOPs of one."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.conditioning import Conditioning
from pipeline.guidance import MAIN, Prediction
from pipeline.networks import DenoisingNetwork
from pipeline.perturbation import perturbed
from pipeline.trace import TraceStep


def evaluations(trace: Sequence[TraceStep]) -> tuple[Counter[str], Counter[str]]:
    """How often each prediction was evaluated for one picture, by name: for its guidance, and as a mere probe."""
    probed = Counter(name for step in trace for name in step.probed)
    return Counter(name for step in trace for name in (MAIN.name, *step.references)) - probed, probed


def prediction_flops(
    network: DenoisingNetwork, prediction: Prediction, like: torch.Tensor, conditioning: Conditioning
) -> int:
    """FLOPs of one evaluation for one picture like `like` [1, C, H, W]; a multiply-add is two.

    `conditioning` is of one text. torch's counter knows attention only as matrix products on a CPU, so it is computed
    that way here.
    """
    x, timestep = torch.zeros_like(like), torch.tensor(1, device=like.device)
    # The counter sees no operation of a compiled network.
    eager = torch.compiler.set_stance("force_eager")
    with eager, FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        if prediction.perturbation is None:
            network(x, timestep, conditioning)
        else:
            with perturbed(network.unet, prediction.perturbation, like.shape[-2:]):
                network(x, timestep, conditioning)
    return int(counter.get_total_flops())
