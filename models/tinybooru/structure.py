"""Training of the malformed-image classifier: digits, arms, legs, moved parts, on real images and on spoilt ones.

Hands are spoilt on purpose (ghosts of a second figure, smears, warps); their answer is "uncountable". Sharpness,
contrast, light blur and noise, which guidance changes, vary at random in training and change no answer.
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from eval.scorers.malformed import ANSWERS, NOTHING, UNCOUNTABLE, build_classifier, split_answers
from models.tinybooru.corpus import Corpus
from models.tinybooru.scorers import ScorerRecipe, ScorerTraining, shifted
from pipeline.tinybooru.figures import GREETING, PAPERDOLL
from pipeline.tinybooru.flaws import BAD_ANATOMY

# Of each batch: spoilt figures, seldom counts, figures, and for the rest whatever the world shows.
SPOILT, SELDOM, FIGURES = 0.19, 0.19, 0.25
NOT_ASKED = -1
COUNTED = {GREETING: ("digits",), PAPERDOLL: ("arms", "legs")}


def answers_of(corpus: Corpus) -> torch.Tensor:
    """The right answers [N, questions] as indices into ANSWERS, in their order; NOT_ASKED where a flaw hides them."""
    rows = []
    for k, style in enumerate(corpus.style):
        row = [int(BAD_ANATOMY in corpus.tags[k])]
        for question in list(ANSWERS)[1:]:
            names = ANSWERS[question]
            if question not in COUNTED.get(style, ()):
                row.append(names.index(NOTHING))
            elif not corpus.countable[k]:
                row.append(NOT_ASKED)
            else:
                row.append(names.index(str(int(getattr(corpus, question)[k]))))
        rows.append(row)
    return torch.tensor(rows)


def varied(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images [B, 3, H, W] in [-1, 1] with random light blur or sharpening, contrast, saturation, brightness, noise."""

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(len(x), 1, 1, 1, generator=generator)

    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    x = x + uniform(-0.75, 1.5) * (x - soft)  # below 0: blur
    grey = x.mean(1, keepdim=True)
    x = grey + uniform(0.4, 1.8) * (x - grey)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + uniform(0.6, 1.5) * (x - mean) + uniform(-0.2, 0.2)
    amount = uniform(-0.08, 0.14).clamp(min=0)
    x = x + amount * torch.randn(x.shape, generator=generator)
    return x.clamp(-1, 1)


def spoilt(x: torch.Tensor, other: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images [B, 3, 64, 64] whose hands or limbs cannot be counted: a third each ghosted, smeared, warped.

    `other`: images to blend in, of figures of the same style.
    """
    n = len(x)
    kind = torch.randint(3, (n, 1, 1, 1), generator=generator)
    mix = 0.35 + 0.3 * torch.rand(n, 1, 1, 1, generator=generator)
    ghost = x.lerp(other, mix)
    smear = F.avg_pool2d(F.pad(x, (4, 4, 4, 4), mode="replicate"), 9, stride=1)
    smear = F.avg_pool2d(F.pad(smear, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    field = torch.randn(n, 2, 11, 11, generator=generator)
    field = F.interpolate(field, size=(64, 64), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    strength = 0.09 + 0.06 * torch.rand(n, 1, 1, 1, generator=generator)
    axis = torch.linspace(-1, 1, 64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)[None]
    warp = F.grid_sample(x, grid + strength * field, padding_mode="border", align_corners=True)
    return torch.where(kind == 0, ghost, torch.where(kind == 1, smear, warp))


class MalformedTraining(ScorerTraining):
    """Cross-entropy of every question over the images that have an answer to it."""

    def __init__(self, recipe: ScorerRecipe, corpus: Corpus, checkpoint: Path, device: torch.device):
        torch.manual_seed(recipe.seed)
        super().__init__(recipe, build_classifier(), corpus.mark, checkpoint, device)
        self.corpus, self.answers = corpus, answers_of(corpus)
        figures = [k for k, style in enumerate(corpus.style) if style in COUNTED and corpus.countable[k]]
        self.figures = figures or list(range(len(corpus)))
        # Ghosts blend two figures of one style.
        self.of_style = {style: [k for k in figures if corpus.style[k] == style] for style in COUNTED}
        self.seldom = [
            rows
            for column, question in enumerate(ANSWERS)
            for answer in range(len(ANSWERS[question]))
            if ANSWERS[question][answer] not in (NOTHING, UNCOUNTABLE)
            and (rows := [k for k in figures if self.answers[k, column] == answer])
            and len(rows) < len(figures) / 10
        ]

    def loss(self, chosen: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        rows, bad = chosen.clone(), 0
        if self.seldom and all(self.of_style.values()):
            bad, seldom, figures = (round(share * len(chosen)) for share in (SPOILT, SELDOM, FIGURES))
            style = (GREETING, PAPERDOLL)[int(torch.randint(4, (), generator=generator)) == 0]
            rows[:bad] = picked(self.of_style[style], bad, generator)
            for k in range(bad, bad + seldom):
                rows[k] = picked(self.seldom[k % len(self.seldom)], 1, generator)
            rows[bad + seldom : bad + seldom + figures] = picked(self.figures, figures, generator)
        pixels = shifted(self.corpus.pixels[rows], generator)
        answers = self.answers[rows].clone()
        if bad:
            partners = shifted(self.corpus.pixels[picked(self.of_style[style], bad, generator)], generator)
            pixels[:bad] = spoilt(pixels[:bad], partners, generator)
            answers[:bad, 0] = NOT_ASKED
            for column, question in enumerate(ANSWERS):
                if question in COUNTED[style]:
                    answers[:bad, column] = ANSWERS[question].index(UNCOUNTABLE)
        logits = split_answers(self.read(varied(pixels, generator)))
        losses = [
            F.cross_entropy(part, answers[:, column].to(self.device), ignore_index=NOT_ASKED)
            for column, part in enumerate(logits.values())
        ]
        return torch.stack(losses).nan_to_num(0.0).sum()


def picked(rows: list[int], count: int, generator: torch.Generator) -> torch.Tensor:
    """`count` of `rows` at random, with replacement."""
    return torch.tensor(rows)[torch.randint(len(rows), (count,), generator=generator)]
