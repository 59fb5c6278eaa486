"""Noise paths: how image and noise are mixed at a noise level, and what networks predict there.

On every path the noisy image is x = a x0 + b e, and its noise level is spoken of as sigma = b / a. The two in use:

    variance preserving   a^2 + b^2 = 1    a = 1 / sqrt(1 + sigma^2)   (DDPM, arXiv 2006.11239)
    rectified flow        a = 1 - t, b = t   t = sigma / (1 + sigma)   (arXiv 2209.03003)

At one sigma the x of one path is a multiple of the x of the other, so a network of either can be asked along both.
Networks predict x0, the noise e, on the variance preserving path v = a e - b x0 (arXiv 2202.00512, appendix D), and on
rectified flow the velocity f = e - x0. diffusers calls them "sample", "epsilon", "v_prediction" and "flow_prediction".
All are affine in each other at one sigma.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:  # families name their path, and are read without torch
    import torch

PathName = Literal["variance_preserving", "rectified_flow"]
PREDICTION_TYPES = ("sample", "epsilon", "v_prediction", "flow_prediction")


def to_x0(
    output: torch.Tensor, kind: str, x: torch.Tensor, a: float | torch.Tensor, b: float | torch.Tensor
) -> torch.Tensor:
    """x0 from a network's output of type `kind`; `x` = a x0 + b e is the noisy image, all [B, C, H, W].

    v_prediction is meant where a^2 + b^2 = 1, flow_prediction where a + b = 1 (`NoisePath.prediction_types`).
    Raises ValueError for a kind that is not in PREDICTION_TYPES.
    """
    if kind == "sample":
        return output
    if kind == "epsilon":
        return (x - b * output) / a
    if kind == "v_prediction":
        return a * x - b * output
    if kind == "flow_prediction":
        return x - b * output
    raise ValueError(_unknown(kind, PREDICTION_TYPES))


def from_x0(
    x0: torch.Tensor, kind: str, x: torch.Tensor, a: float | torch.Tensor, b: float | torch.Tensor
) -> torch.Tensor:
    """The inverse of `to_x0`."""
    if kind == "sample":
        return x0
    if kind == "epsilon":
        return (x - a * x0) / b
    if kind == "v_prediction":
        return (a * x - x0) / b
    if kind == "flow_prediction":
        return (x - x0) / b
    raise ValueError(_unknown(kind, PREDICTION_TYPES))


def _unknown(kind: str, known: tuple[str, ...], where: str = "") -> str:
    return f"prediction type '{kind}' is unknown{where}; known types: {', '.join(known)}"


class NoisePath(ABC):
    """One way to mix image and noise; `prediction_types` are what networks predict along it, `velocity` is its own."""

    name: ClassVar[PathName]
    prediction_types: ClassVar[tuple[str, ...]]
    velocity: ClassVar[str]

    @abstractmethod
    def signal_and_noise(self, sigma: float) -> tuple[float, float]:
        """(a, b) of x = a x0 + b e at the noise level `sigma` = b / a >= 0."""

    def to_x0(self, output: torch.Tensor, kind: str, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """x0 from an output of type `kind` for `x` on this path at `sigma`, all [B, C, H, W].

        Raises ValueError for a kind that is not predicted along this path.
        """
        return to_x0(output, self._known(kind), x, *self.signal_and_noise(sigma))

    def from_x0(self, x0: torch.Tensor, kind: str, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """The output of type `kind` that means `x0`; the inverse of `to_x0`, for sigma > 0."""
        return from_x0(x0, self._known(kind), x, *self.signal_and_noise(sigma))

    def x0_per_output(self, kind: str, sigma: float) -> float:
        """|d x0 / d output|: turns the size of a difference of outputs into a size in x0."""
        return abs(self._x0_per_output(kind, sigma))

    def _x0_per_output(self, kind: str, sigma: float) -> float:
        a, b = self.signal_and_noise(sigma)
        return {"sample": 1.0, "epsilon": -b / a, "v_prediction": -b, "flow_prediction": -b}[self._known(kind)]

    def per_output(self, kind: str, of: str, sigma: float) -> float:
        """d prediction of type `kind` / d prediction of type `of`: turns a difference of the one into the other's."""
        return 1.0 if kind == of else self._x0_per_output(of, sigma) / self._x0_per_output(kind, sigma)

    def moved(self, x: torch.Tensor, sigma: float, to: NoisePath) -> torch.Tensor:
        """The noisy image `x` of this path [B, C, H, W] as the path `to` has it: the same x0, noise and sigma."""
        if to is self:
            return x
        return x * (to.signal_and_noise(sigma)[0] / self.signal_and_noise(sigma)[0])

    def _known(self, kind: str) -> str:
        if kind not in self.prediction_types:
            raise ValueError(_unknown(kind, self.prediction_types, f" on the path {self.name}"))
        return kind


class _VariancePreserving(NoisePath):
    name = "variance_preserving"
    prediction_types = ("sample", "epsilon", "v_prediction")
    velocity = "v_prediction"

    def signal_and_noise(self, sigma: float) -> tuple[float, float]:
        a = 1 / (1 + sigma**2) ** 0.5
        return a, sigma * a


class _RectifiedFlow(NoisePath):
    name = "rectified_flow"
    prediction_types = ("sample", "epsilon", "flow_prediction")
    velocity = "flow_prediction"

    def signal_and_noise(self, sigma: float) -> tuple[float, float]:
        a = 1 / (1 + sigma)
        return a, sigma * a


VARIANCE_PRESERVING: NoisePath = _VariancePreserving()
RECTIFIED_FLOW: NoisePath = _RectifiedFlow()
PATHS: dict[PathName, NoisePath] = {path.name: path for path in (VARIANCE_PRESERVING, RECTIFIED_FLOW)}


@dataclass(frozen=True)
class OutputSpaces:
    """How outputs of type `kind`, for `x` [B, C, H, W] on a noise path at `sigma`, read in the spaces of guidance.

    It is what pipeline/guidance/postprocess calls Spaces: output, x0, noise, and v, which is the path's own velocity.
    """

    path: NoisePath
    kind: str
    x: torch.Tensor
    sigma: float

    def seen(self, output: torch.Tensor, space: str) -> torch.Tensor:
        """A prediction as `space` has it, [B, C, H, W]; `output` itself where the network predicts just that."""
        kind = self._kind(space)
        if kind == self.kind:
            return output
        return self.path.from_x0(self.path.to_x0(output, self.kind, self.x, self.sigma), kind, self.x, self.sigma)

    def per_output(self, space: str) -> float:
        """d prediction / d output, with its sign."""
        return self.path.per_output(self._kind(space), self.kind, self.sigma)

    def _kind(self, space: str) -> str:
        return {"output": self.kind, "x0": "sample", "noise": "epsilon", "v": self.path.velocity}[space]
