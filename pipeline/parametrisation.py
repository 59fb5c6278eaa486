"""Noise, v and x0 predictions, and the way from one to another.

At signal level a and noise level b (a^2 + b^2 = 1) the noisy picture is x = a x0 + b e, and v = a e - b x0
(arXiv 2202.00512, appendix D). diffusers calls them "sample" (x0), "epsilon" (e) and "v_prediction" (v).
"""

import torch

PREDICTION_TYPES = ("sample", "epsilon", "v_prediction")


def to_x0(output: torch.Tensor, kind: str, x: torch.Tensor, a: float, b: float) -> torch.Tensor:
    """x0 from a network's output of type `kind`; `x` is the noisy picture, all [B, C, H, W].

    Raises ValueError for a kind that is not in PREDICTION_TYPES.
    """
    if kind == "sample":
        return output
    if kind == "epsilon":
        return (x - b * output) / a
    if kind == "v_prediction":
        return a * x - b * output
    raise ValueError(f"prediction type '{kind}' is unknown; known types: {', '.join(PREDICTION_TYPES)}")


def from_x0(x0: torch.Tensor, kind: str, x: torch.Tensor, a: float, b: float) -> torch.Tensor:
    """The inverse of `to_x0`."""
    if kind == "sample":
        return x0
    if kind == "epsilon":
        return (x - a * x0) / b
    if kind == "v_prediction":
        return (a * x - x0) / b
    raise ValueError(f"prediction type '{kind}' is unknown; known types: {', '.join(PREDICTION_TYPES)}")


def x0_per_output(kind: str, a: float, b: float) -> float:
    """|d x0 / d output|: turns the size of a difference of outputs into a size in x0."""
    return {"sample": 1.0, "epsilon": b / a, "v_prediction": b}[kind]
