"""What the shipped scorers are worth, measured on held-out real images."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from eval.features.clip import load_clip
from eval.features.extractor import embed_images
from eval.scorers.aesthetic import load_aesthetic_head
from eval.scorers.malformed import MalformedClassifier, load_classifier
from eval.statistics.bootstrap import statistic_interval, wilson_interval
from models.tinybooru.corpus import Corpus
from models.tinybooru.fan import digits_by_fan
from models.tinybooru.judge import NO_ANSWER, QUESTIONS, Judgements, load_judge, truths
from models.tinybooru.redrawn import NOISED, Redrawing, as_bytes
from pipeline.results.interval import Interval
from pipeline.storage.files import write_atomically

MEASURED = "measured.json"
CANDIDATES = 100
HANDS = 400
# Redrawn hands: guidance scales, and the noise in units of the least that the classifier learns from.
REDRAWN_SCALES, REDRAWN_NOISE = (1.0, 2.0, 3.0), 3
LEVEL, RESAMPLES = 0.95, 200


def first_of_candidates(images: torch.Tensor, texts: torch.Tensor, candidates: int = CANDIDATES) -> torch.Tensor:
    """Whether each image's own caption scores highest among `candidates` captions, bool [N].

    Images are taken in groups of `candidates`; a rest that fills no group is left out.
    """
    images, texts = torch.nn.functional.normalize(images, dim=1), torch.nn.functional.normalize(texts, dim=1)
    right = []
    for start in range(0, len(images) - candidates + 1, candidates):
        group = slice(start, start + candidates)
        similarity = images[group] @ texts[group].T
        right.append(similarity.argmax(1) == torch.arange(candidates))
    return torch.cat(right)


def ranking_quality(positive: torch.Tensor, scores: torch.Tensor) -> Interval:
    """ROC AUC of scores [N] for the images that are `positive`, bool [N], with its interval over images."""
    found = statistic_interval(
        lambda index: float(roc_auc_score(positive[index], scores[index])), len(positive), RESAMPLES, LEVEL, 0
    )
    # Near 1 a symmetric interval would reach beyond it.
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def _listed(interval: Interval) -> list[float]:
    return [*(round(x, 4) for x in (interval.value, interval.low, interval.high)), interval.n]


def judge_accuracy(judged: Judgements, corpus: Corpus) -> dict[str, list[float]]:
    """Share of right answers to every question on real images that have one: value, low, high, images."""
    given = {
        "kind": judged.kind,
        "style": judged.style,
        "hair": judged.hair,
        "background": judged.background,
        "quality": judged.quality,
        "glasses": ["yes" if worn else "no" for worn in judged.glasses],
        "malformed": ["yes" if bad else "no" for bad in judged.malformed],
    }
    found = {}
    for question, right in truths(corpus).items():
        asked = right != NO_ANSWER
        answers = torch.tensor([QUESTIONS[question].index(answer) for answer in given[question]])
        found[question] = _listed(wilson_interval(int((answers == right)[asked].sum()), int(asked.sum()), LEVEL))
    return found


def counting_accuracy(classifier: MalformedClassifier, corpus: Corpus) -> dict[str, list[float]]:
    """Shares of right counts on real images whose finish hides nothing: of digits, arms and legs.

    `digits_by_fan` and `digits_alike`, the share on which both agree, are of the first HANDS hands.
    """
    found = {}
    for question in ("digits", "arms", "legs"):
        truth: list[int | None] = getattr(corpus, question)
        rows = [k for k in range(len(corpus)) if truth[k] is not None and corpus.countable[k]]
        if not rows:
            continue
        images = [image for k, image in enumerate(corpus.images()) if k in set(rows)]
        said = classifier.counts(images)[question]
        right = sum(answer == str(truth[k]) for k, answer in zip(rows, said, strict=True))
        found[f"{question}_counted"] = _listed(wilson_interval(right, len(rows), LEVEL))
        if question == "digits":
            rows, images, said = rows[:HANDS], images[:HANDS], said[:HANDS]
            by_fan = [str(digits_by_fan(np.asarray(image))) for image in images]
            right = sum(answer == str(truth[k]) for k, answer in zip(rows, by_fan, strict=True))
            found["digits_by_fan"] = _listed(wilson_interval(right, len(rows), LEVEL))
            alike = sum(a == b for a, b in zip(said, by_fan, strict=True))
            found["digits_alike"] = _listed(wilson_interval(alike, len(rows), LEVEL))
    return found


def redrawn_accuracy(classifier: MalformedClassifier, corpus: Corpus, redrawing: Redrawing) -> dict[str, list[float]]:
    """Shares of right counts of digits on the first HANDS real hands, redrawn by fully trained networks.

    A redrawing from so little noise keeps every finger in its place, so what is lost is lost to the networks' finish.
    """
    rows = [k for k in range(len(corpus)) if corpus.digits[k] is not None and corpus.countable[k]][:HANDS]
    captions = [corpus.captions()[k] for k in rows]
    real = corpus.pixels[rows].float() / 127.5 - 1
    found = {}
    for pair in redrawing.finished():
        for scale in REDRAWN_SCALES:
            share = NOISED[pair.recipe.family][0] * REDRAWN_NOISE
            x = redrawing.redraw(real, captions, pair, None, scale, 1, share, torch.Generator().manual_seed(0))
            images = [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in as_bytes(x)]
            said = classifier.counts(images)["digits"]
            right = sum(answer == str(corpus.digits[k]) for k, answer in zip(rows, said, strict=True))
            name = f"digits_redrawn_{pair.recipe.family}_{scale:g}"
            found[name] = _listed(wilson_interval(right, len(rows), LEVEL))
    return found


def measure_scorers(
    models: Path, corpus: Corpus, device: torch.device, redrawing: Redrawing | None = None
) -> dict[str, object]:
    """Measure CLIP, aesthetic head, malformed classifier and judge on a held-out corpus; writes `measured.json`.

    With `redrawing`, also how the classifier counts on real hands that networks redrew.
    Each figure is a list: value, low and high end of its interval of 95 %, and number of images.
    """
    found: dict[str, object] = {"images": len(corpus)}
    if (models / "aesthetic.safetensors").exists():
        clip = load_clip(models / "clip", device)
        images = embed_images(clip, corpus.images())
        right = first_of_candidates(images, clip.embed_texts(corpus.captions()))
        found["clip_first_of_100"] = _listed(wilson_interval(int(right.sum()), len(right), LEVEL))
        scores = load_aesthetic_head(models / "aesthetic.safetensors")(images)
        best = torch.tensor([q == "masterpiece" for q in corpus.quality])
        worst = torch.tensor([q == "worst quality" for q in corpus.quality])
        ends = best | worst
        found["aesthetic_auc_masterpiece_worst"] = _listed(ranking_quality(best[ends], scores[ends]))
    if (models / "malformed.safetensors").exists():
        classifier = load_classifier(models / "malformed.safetensors", device)
        chance = classifier(corpus.images())
        found["malformed_auc"] = _listed(ranking_quality(corpus.malformed, chance))
        person = torch.tensor([kind == "person" for kind in corpus.kind])
        found["malformed_auc_people"] = _listed(ranking_quality(corpus.malformed[person], chance[person]))
        found |= counting_accuracy(classifier, corpus)
        found |= redrawn_accuracy(classifier, corpus, redrawing) if redrawing else {}
    if (models / "judge.safetensors").exists():
        judge = load_judge(models / "judge.safetensors", device)
        found["judge"] = judge_accuracy(judge(corpus.images()), corpus)
    write_atomically(models / MEASURED, (json.dumps(found, indent=2) + "\n").encode())
    return found
