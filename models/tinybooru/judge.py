"""The judge: reads off an image what tinybooru's tags would say about it.

A separate network, trained on real images only, that no other network or score sees: it decides whether generated
images are what their prompts say (`make worldcheck`), and stands in for a person in `make label-demo`. One choice was
made with it: which images the main network's recipe shows more often (`focus`, README.md).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from timm.models.resnet import BasicBlock, ResNet

from eval.scorers.image_classifier import image_logits, load_weights
from models.tinybooru.corpus import Corpus
from models.tinybooru.scorers import ScorerRecipe, ScorerTraining, shifted
from pipeline.tinybooru.colours import BACKGROUNDS, HAIR_COLOURS
from pipeline.tinybooru.flaws import QUALITIES
from pipeline.tinybooru.styles import STYLES

CANVAS = 64
# What the judge decides, and the answers to choose from.
QUESTIONS: dict[str, tuple[str, ...]] = {
    "kind": ("person", "object", "scenery", "pattern"),
    "style": tuple(style.name for style in STYLES),
    "hair": tuple(HAIR_COLOURS),
    "background": tuple(BACKGROUNDS),
    "glasses": ("no", "yes"),
    "malformed": ("no", "yes"),
    "quality": QUALITIES,
}
_PERSON_ONLY = ("glasses", "malformed")
NO_ANSWER = -1


@dataclass(frozen=True)
class Judgements:
    """Verdicts on N images; `hair`, `background` and `glasses` mean something only where the prompt names one."""

    kind: list[str]
    style: list[str]
    hair: list[str]
    background: list[str]
    quality: list[str]
    glasses: torch.Tensor  # bool [N]
    p_malformed: torch.Tensor  # float64 [N], in [0, 1]

    @property
    def malformed(self) -> torch.Tensor:
        """Whether an image is of a malformed person, bool [N]."""
        return self.p_malformed > 0.5


def build_judge() -> Any:
    """timm's ResNet with a deep stem: 64x64 RGB in [-1, 1] to the logits of all questions, side by side."""
    answers = sum(len(options) for options in QUESTIONS.values())
    return ResNet(
        BasicBlock, layers=(1, 1, 1, 1), channels=(32, 64, 128, 192), stem_width=24, stem_type="deep",
        num_classes=answers,
    )  # fmt: skip


def truths(corpus: Corpus) -> dict[str, torch.Tensor]:
    """The right answer of every question as an index [N]; NO_ANSWER where an image has none."""
    person = [kind == "person" for kind in corpus.kind]
    answers: dict[str, list[str]] = {
        "kind": corpus.kind,
        "style": corpus.style,
        "hair": corpus.hair,
        "background": corpus.background,
        "glasses": ["yes" if worn else "no" for worn in corpus.glasses],
        "malformed": ["yes" if bad else "no" for bad in corpus.malformed],
        "quality": corpus.quality,
    }
    found = {}
    for question, options in QUESTIONS.items():
        place = {option: k for k, option in enumerate(options)}
        asked = person if question in _PERSON_ONLY else [True] * len(corpus)
        found[question] = torch.tensor(
            [place.get(a, NO_ANSWER) if p else NO_ANSWER for a, p in zip(answers[question], asked, strict=True)]
        )
    return found


class JudgeTraining(ScorerTraining):
    """Cross-entropy of every question over the images that have an answer to it.

    Images are shifted and, half of them, lightly blurred or given noise: generated images have small faults of
    finish that real ones lack, and the judge must look past them.
    """

    def __init__(self, recipe: ScorerRecipe, corpus: Corpus, checkpoint: Path, device: torch.device):
        torch.manual_seed(recipe.seed)
        super().__init__(recipe, build_judge(), corpus.mark, checkpoint, device)
        self.corpus, self.truths = corpus, truths(corpus)

    def loss(self, chosen: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        pixels = disturbed(shifted(self.corpus.pixels[chosen], generator), generator)
        logits = torch.split(self.read(pixels), [len(options) for options in QUESTIONS.values()], dim=1)
        losses = [
            F.cross_entropy(found, self.truths[question][chosen].to(self.device), ignore_index=NO_ANSWER)
            for question, found in zip(QUESTIONS, logits, strict=True)
        ]
        return torch.stack(losses).nan_to_num(0.0).sum()  # a batch may hold no image with an answer


def disturbed(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images [B, 3, H, W] in [-1, 1], a quarter lightly blurred and a quarter with a little noise."""
    draw = torch.rand(len(pixels), generator=generator)
    strength = torch.rand(len(pixels), 1, 1, 1, generator=generator)
    noise = torch.randn(pixels.shape, generator=generator)
    soft = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    blurred, noisy = (draw < 0.25).view(-1, 1, 1, 1), (draw > 0.75).view(-1, 1, 1, 1)
    pixels = torch.where(blurred, pixels.lerp(soft, 0.6 * strength), pixels)
    return torch.where(noisy, pixels + 0.1 * strength * noise, pixels)


class Judge:
    """Answers all questions about images."""

    def __init__(self, network: Any, device: torch.device):
        self.network, self.device = network.to(device).eval(), device

    def __call__(self, images: Iterable[Image.Image], batch: int = 256) -> Judgements:
        """Judge images; those of another size are resized to 64x64 (bicubic). Raises ValueError for none."""
        answers = image_logits(self.network, images, self.device, batch)
        logits = torch.split(answers, [len(options) for options in QUESTIONS.values()], dim=1)
        found = dict(zip(QUESTIONS, logits, strict=True))
        named = {
            question: [QUESTIONS[question][k] for k in found[question].argmax(1).tolist()]
            for question in ("kind", "style", "hair", "background", "quality")
        }
        person = torch.tensor([kind == "person" for kind in named["kind"]])
        p_malformed = found["malformed"].softmax(1)[:, 1] * person
        return Judgements(**named, glasses=found["glasses"].argmax(1) == 1, p_malformed=p_malformed)


def load_judge(path: Path, device: torch.device) -> Judge:
    """Load the judge from safetensors. Raises InputError."""
    network = build_judge()
    load_weights(network, path, "judge")
    return Judge(network, device)
