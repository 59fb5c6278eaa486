"""The algebra of guidance.

With all predictions in one parametrisation (noise, v or x0; they are affine in each other at one noise level, so
the choice does not matter as long as it is one),

    guided = main + sum_i (s_i - 1) (main - reference_i)

where each *reference* is a prediction to move away from and s_i its *scale*; 1 means none. One term is the
familiar `reference + s (main - reference)`. Which reference makes which method:

    classifier-free guidance (arXiv 2207.12598)   main network, empty prompt
    negative prompt                               main network, negative prompt
    autoguidance (arXiv 2406.02507)               a weaker network, the same prompt
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from pipeline.arm import Arm

Network = Literal["main", "guide"]
Text = Literal["prompt", "empty", "negative"]


@dataclass(frozen=True)
class Prediction:
    """What to evaluate: which network, given which text."""

    network: Network
    text: Text


MAIN = Prediction("main", "prompt")
EMPTY = Prediction("main", "empty")
NEGATIVE = Prediction("main", "negative")
GUIDE = Prediction("guide", "prompt")

REFERENCES = {"cfg": EMPTY, "negative": NEGATIVE, "autoguidance": GUIDE}


@dataclass(frozen=True)
class Term:
    """A reference to move away from, and how far: scale 1 is not at all."""

    reference: Prediction
    scale: float


@dataclass(frozen=True)
class Guidance:
    """A list of terms; without any (or with scales of 1 only) the main prediction stands as it is."""

    terms: tuple[Term, ...] = ()

    @property
    def active(self) -> tuple[Term, ...]:
        """The terms that change anything; the others cost no evaluation."""
        return tuple(term for term in self.terms if term.scale != 1)

    def predictions(self) -> tuple[Prediction, ...]:
        """What has to be evaluated, the main prediction first, each once."""
        return tuple(dict.fromkeys((MAIN, *(term.reference for term in self.active))))

    def combine(self, predicted: Mapping[Prediction, torch.Tensor]) -> torch.Tensor:
        """The guided prediction from the predictions named by `predictions()`, all of one shape [B, C, H, W]."""
        main = predicted[MAIN]
        guided = main
        for term in self.active:
            guided = guided + (term.scale - 1) * (main - predicted[term.reference])
        return guided


def guidance_of(arm: Arm) -> Guidance:
    """The guidance that an arm's method and scale stand for."""
    reference = REFERENCES.get(arm.method)
    return Guidance(() if reference is None else (Term(reference, arm.scale),))


def by_network(predictions: Sequence[Prediction]) -> dict[Network, list[Prediction]]:
    """Group predictions by network: those of one network go through it in one call."""
    groups: dict[Network, list[Prediction]] = {}
    for prediction in predictions:
        groups.setdefault(prediction.network, []).append(prediction)
    return groups
