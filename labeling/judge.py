"""What the embedded scorers say of pictures of tinybooru, in the words of the interface."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from eval.clip import load_clip
from eval.kinds import KINDS, kind_probabilities, load_kind_prompts
from eval.malformed import load_classifier
from pipeline.files import file_digest, fingerprint
from pipeline.rates import Verdict

_MODELS = Path("models/tinybooru")
_BATCH = 256


@dataclass(frozen=True)
class Judgement:
    """A verdict and how sure the judge is that the picture is of a malformed person, in [0, 1]."""

    verdict: Verdict
    p_malformed: float


def judge(images: Iterable[Image.Image], models: Path = _MODELS) -> list[Judgement]:
    """The judge's verdicts. Raises InputError where its weights are missing."""
    pictures, device = list(images), torch.device("cpu")
    clip = load_clip(models / "clip", device)
    parts = [pictures[start : start + _BATCH] for start in range(0, len(pictures), _BATCH)]
    embedded = torch.cat([clip.embed(torch.stack([clip.prepare(image) for image in part])).float() for part in parts])
    prompts = {kind: clip.embed_texts(texts) for kind, texts in load_kind_prompts(models / "kinds.json").items()}
    kinds = kind_probabilities(embedded, prompts, clip.logit_scale).argmax(1).tolist()
    malformed = load_classifier(models / "malformed.safetensors", device)(pictures).tolist()
    return [Judgement(_verdict(KINDS[kind], p), p) for kind, p in zip(kinds, malformed, strict=True)]


def judge_version(models: Path = _MODELS) -> str:
    """A name for the judge that changes with its weights."""
    files = ("clip/open_clip_model.safetensors", "kinds.json", "malformed.safetensors")
    return f"judge {fingerprint([file_digest(models / name) for name in files])}"


def _verdict(kind: str, p_malformed: float) -> Verdict:
    # CLIP tells people from the rest, the classifier malformed people from the others.
    if kind in ("legit_human", "malformed_human"):
        return "malformed_human" if p_malformed > 0.5 else "legit_human"
    return "pattern" if kind == "pattern" else "object_or_scenery"
