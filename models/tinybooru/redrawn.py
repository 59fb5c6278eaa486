"""Images redrawn from low noise by the trained networks: the finish of networks on a structure that is known.

A counter that learns from clean drawings alone takes the texture of a strongly guided network for a smeared hand: of
real hands that a network redrew from timestep 60 of 1,000, with autoguidance at 3, it found 75 % uncountable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.tinybooru.networks.families import FamilyRecipe, Side, alphas_on, sample
from models.tinybooru.networks.run import FLOW, FLOW_SMALL, UNET, UNET_SMALL, Sizes
from models.tinybooru.networks.snapshots import load_network, load_texts
from models.tinybooru.networks.text_encoder import encode_text
from models.tinybooru.tokenizer import CONTEXT_LENGTH
from pipeline.prompting.presets import NEGATIVE_PRESETS

# Shares of the schedule that an image is noised to. Beyond these, networks begin to draw another hand.
NOISED = {"unet": (0.02, 0.12), "flow": (0.05, 0.25)}
SCALES = (1.0, 3.0)
STEPS = 3  # at most
NEGATIVE = NEGATIVE_PRESETS["field-note-novelai"].text


def as_bytes(x: torch.Tensor) -> torch.Tensor:
    """Images in [-1, 1] as uint8."""
    return ((x + 1) * 127.5).round().byte()


@dataclass(frozen=True)
class Pair:
    """A main network and its guide, with their recipes."""

    recipe: FamilyRecipe
    main: Any
    small: FamilyRecipe
    guide: Any


class Redrawing:
    """The networks of one training seed, of both families and at every stage, as they redraw images."""

    def __init__(self, state: Path, sizes: Sizes, seed: int = 0):
        """`state` is the folder of the run that trained them. Raises InputError where one is not there."""
        self.tokenizer, self.text_encoder = load_texts(state, seed)
        stages = (*sizes.stages, sizes.steps)
        self.pairs = [
            Pair(recipe, load_network(state, recipe, seed, step).eval(), small, guide)
            for recipe, small in ((UNET, UNET_SMALL), (FLOW, FLOW_SMALL))
            for guide in [load_network(state, small, seed, sizes.small_steps).eval()]
            for step in stages
        ]
        self.stages = len(stages)
        self.mark = f"networks of seed {seed} at {stages}"

    def finished(self) -> list[Pair]:
        """The fully trained main network of each family, with its guide."""
        return self.pairs[self.stages - 1 :: self.stages]

    def __call__(self, x: torch.Tensor, captions: Sequence[str], generator: torch.Generator) -> torch.Tensor:
        """Images in [-1, 1] [B, 3, H, W], redrawn by one network under one random guidance."""

        def uniform(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=generator))

        pair = self.pairs[int(torch.randint(len(self.pairs), (), generator=generator))]
        negative = (None, "", NEGATIVE)[int(torch.randint(3, (), generator=generator))]
        steps = 1 + int(torch.randint(STEPS, (), generator=generator))
        return self.redraw(
            x, captions, pair, negative, uniform(*SCALES), steps, uniform(*NOISED[pair.recipe.family]), generator
        )

    @torch.no_grad()
    def redraw(
        self,
        x: torch.Tensor,
        captions: Sequence[str],
        pair: Pair,
        negative: str | None,
        scale: float,
        steps: int,
        noised: float,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Images in [-1, 1] [B, 3, H, W], noised to a share of the schedule and generated from there in `steps`.

        Away from the main network under a `negative` text, or from its guide under the captions where that is None.
        """
        positive = Side(pair.recipe, pair.main, *self.read(captions))
        reference = (
            Side(pair.small, pair.guide, positive.context, positive.pooled)
            if negative is None
            else Side(pair.recipe, pair.main, *self.read([negative] * len(x)))
        )
        noise = torch.randn(x.shape, generator=generator)
        return sample(noise, positive, reference, scale, steps, alphas_on(x.device), (x, noised))

    def read(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Text embeddings [B, L, D] and pooled ones [B, D]."""
        ids = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=CONTEXT_LENGTH, return_tensors="pt"
        ).input_ids
        return encode_text(self.text_encoder, ids)
