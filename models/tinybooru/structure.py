"""Training of the malformed-image classifier: digits, arms, legs, moved parts, on real images and on spoilt ones.

Hands are spoilt on purpose (ghosts of a second figure, smears, warps); their answer is "uncountable". What guidance and
small networks do to the finish varies at random in training, on sound and spoilt hands alike, and changes no answer:
sharpness, contrast, halos and noise along edges, blotches, the grid of a network's patches.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from eval.scorers.malformed import ANSWERS, NOTHING, UNCOUNTABLE, build_classifier, split_answers
from models.tinybooru.corpus import Corpus
from models.tinybooru.redrawn import Redrawing, as_bytes
from models.tinybooru.scorers import ScorerRecipe, ScorerTraining, shifted
from pipeline.storage.files import fingerprint
from pipeline.tinybooru.figures import GREETING, PAPERDOLL
from pipeline.tinybooru.flaws import BAD_ANATOMY

# Of each batch: spoilt figures, seldom counts, figures, and for the rest whatever the world shows.
SPOILT, SELDOM, FIGURES = 0.19, 0.19, 0.25
# Of each batch, images redrawn by networks, of so many that are redrawn once.
REDRAWN, REDRAWN_IMAGES, REDRAWN_AT_ONCE = 0.4, 8_000, 64
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
    """Images [B, 3, H, W] in [-1, 1] with a random finish: blur or sharpening, contrast, colour, noises."""

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(len(x), 1, 1, 1, generator=generator)

    edges = x - softened(x, 3)
    x = x + uniform(-0.75, 1.5) * edges  # below 0: blur
    x = x + uniform(-1.5, 1.5).clamp(min=0) * (x - softened(x, 5))  # halos
    x = x + finish_of_networks(edges, uniform, generator)
    grey = x.mean(1, keepdim=True)
    x = grey + uniform(0.4, 1.8) * (x - grey)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + uniform(0.6, 1.5) * (x - mean) + uniform(-0.2, 0.2)
    amount = uniform(-0.08, 0.14).clamp(min=0)
    x = x + amount * torch.randn(x.shape, generator=generator)
    return x.clamp(-1, 1)


def softened(x: torch.Tensor, width: int) -> torch.Tensor:
    """Images [B, C, H, W], each pixel the mean of a square of `width` pixels (odd) around it."""
    reach = width // 2
    return F.avg_pool2d(F.pad(x, (reach,) * 4, mode="replicate"), width, stride=1)


def finish_of_networks(
    edges: torch.Tensor, uniform: Callable[[float, float], torch.Tensor], generator: torch.Generator
) -> torch.Tensor:
    """What small networks leave behind, [B, 3, H, W]: noise along `edges`, blotches, the grid of patches.

    `edges` are images less their blur; `uniform(low, high)` gives a random number an image. Half of them get none.
    """
    n, _, height, width = edges.shape
    here = softened(edges.abs().amax(1, keepdim=True), 3)
    grain = torch.randn(edges.shape, generator=generator)
    found = uniform(-1.0, 1.5).clamp(min=0) * here * grain
    for cells in (8, 16, 32):
        blotches = torch.randn(n, 3, cells, cells, generator=generator)
        blotches = F.interpolate(blotches, size=(height, width), mode="bilinear")
        found = found + uniform(-0.1, 0.1).clamp(min=0) * blotches
    for patch in (2, 4):
        tile = torch.randn(n, 3, patch, patch, generator=generator).repeat(1, 1, height // patch, width // patch)
        found = found + uniform(-0.08, 0.08).clamp(min=0) * tile + uniform(-1.0, 1.0).clamp(min=0) * here * tile
    kept = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
    return found * kept


def spoilt(x: torch.Tensor, other: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images [B, 3, 64, 64] whose hands or limbs cannot be counted: a third each ghosted, smeared, warped.

    `other`: images to blend in, of figures of the same style.
    """
    n = len(x)
    kind = torch.randint(3, (n, 1, 1, 1), generator=generator)
    mix = 0.35 + 0.3 * torch.rand(n, 1, 1, 1, generator=generator)
    ghost = x.lerp(other, mix)
    smear = softened(softened(x, 9), 3)
    field = torch.randn(n, 2, 11, 11, generator=generator)
    field = F.interpolate(field, size=(64, 64), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    strength = 0.09 + 0.06 * torch.rand(n, 1, 1, 1, generator=generator)
    axis = torch.linspace(-1, 1, 64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)[None]
    warp = F.grid_sample(x, grid + strength * field, padding_mode="border", align_corners=True)
    return torch.where(kind == 0, ghost, torch.where(kind == 1, smear, warp))


class MalformedTraining(ScorerTraining):
    """Cross-entropy of every question over the images that have an answer to it."""

    def __init__(
        self,
        recipe: ScorerRecipe,
        corpus: Corpus,
        checkpoint: Path,
        device: torch.device,
        redrawing: Redrawing | None = None,
        redrawn_images: int = REDRAWN_IMAGES,
    ):
        """`redrawing` gives REDRAWN of each batch the finish of networks, from a store of `redrawn_images`."""
        torch.manual_seed(recipe.seed)
        data = fingerprint([corpus.mark, redrawing.mark if redrawing else None])
        super().__init__(recipe, build_classifier(), data, checkpoint, device)
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
        self.redrawing, self.redrawn_images = redrawing, redrawn_images

    @cached_property
    def redrawn(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Images as batches have them, redrawn: uint8 [N, 3, H, W], and their answers [N, questions].

        Made when the first step asks for them; a finished run asks for none. None without `redrawing`.
        """
        if self.redrawing is None:
            return None
        generator = torch.Generator().manual_seed(self.recipe.seed)
        captions, pixels, answers = self.corpus.captions(), [], []
        for _ in tqdm(range(self.redrawn_images // REDRAWN_AT_ONCE), desc="malformed: images redrawn", disable=None):
            chosen = torch.randint(len(captions), (REDRAWN_AT_ONCE,), generator=generator)
            rows, x, right = self.composed(chosen, generator)
            x = self.redrawing(x, [captions[row] for row in rows.tolist()], generator)
            pixels.append(as_bytes(x))
            answers.append(right)
        return torch.cat(pixels), torch.cat(answers)

    def composed(
        self, chosen: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A batch in place of the images at `chosen` [B]: indices, images in [-1, 1] [B, 3, H, W], right answers."""
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
        return rows, pixels, answers

    def loss(self, chosen: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        _, pixels, answers = self.composed(chosen, generator)
        if self.redrawn:
            count = round(REDRAWN * len(chosen))
            of_networks = torch.randint(len(self.redrawn[0]), (count,), generator=generator)
            # Anywhere in the batch: its first rows are the spoilt figures.
            at = torch.randperm(len(chosen), generator=generator)[:count]
            pixels[at] = shifted(self.redrawn[0][of_networks], generator)
            answers[at] = self.redrawn[1][of_networks]
        logits = split_answers(self.read(varied(pixels, generator)))
        losses = [
            F.cross_entropy(part, answers[:, column].to(self.device), ignore_index=NOT_ASKED)
            for column, part in enumerate(logits.values())
        ]
        return torch.stack(losses).nan_to_num(0.0).sum()


def picked(rows: list[int], count: int, generator: torch.Generator) -> torch.Tensor:
    """`count` of `rows` at random, with replacement."""
    return torch.tensor(rows)[torch.randint(len(rows), (count,), generator=generator)]
