"""What the embedded judge says of pictures of tinybooru, in the words of the interface."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from eval.clip import clip_digest, load_clip
from eval.malformed import load_classifier
from pipeline.files import file_digest
from pipeline.rates import Verdict

_MODELS = Path("models/tinybooru")
_KINDS = {"1person, solo": "person", "object": "object", "scenery": "scenery", "pattern": "pattern"}


@dataclass(frozen=True)
class Judgement:
    """A verdict and how sure the judge is that the picture is of a malformed person, in [0, 1]."""

    verdict: Verdict
    p_malformed: float


def judge(images: Iterable[Image.Image], models: Path = _MODELS) -> list[Judgement]:
    """The judge's verdicts. Raises InputError where its weights are missing."""
    pictures = list(images)
    clip = load_clip(models / "clip", torch.device("cpu"))
    texts = torch.nn.functional.normalize(clip.embed_texts(list(_KINDS)))
    kinds = (clip.embed_images(pictures) @ texts.T).argmax(1)
    malformed = load_classifier(models / "malformed.safetensors", torch.device("cpu"))(pictures)
    names = list(_KINDS.values())
    return [Judgement(_verdict(names[k], p), p) for k, p in zip(kinds.tolist(), malformed.tolist(), strict=True)]


def judge_version(models: Path = _MODELS) -> str:
    """A name for the judge that changes with its weights."""
    return f"judge {clip_digest(models / 'clip')[:8]}{file_digest(models / 'malformed.safetensors')[:8]}"


def _verdict(kind: str, p_malformed: float) -> Verdict:
    if kind == "person":
        return "malformed_human" if p_malformed > 0.5 else "legit_human"
    return "pattern" if kind == "pattern" else "object_or_scenery"
