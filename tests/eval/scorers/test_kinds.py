"""Kinds by zero-shot prompts: probabilities, mixtures of captions, and the embedded CLIP on real images."""

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from repository_copy import ROOT

from eval.features.clip import load_clip
from eval.features.extractor import embed_images
from eval.scorers.kinds import KINDS, kind_probabilities, load_kind_prompts
from models.tinybooru.kinds import KIND_PROMPTS, kind_of, kind_prompts
from pipeline.errors import InputError
from pipeline.tinybooru.build import plans
from pipeline.tinybooru.flaws import STRUCTURE_FLAWS
from pipeline.tinybooru.image import draw


def test_probabilities_sum_to_one_and_follow_the_nearest_prompt() -> None:
    axes = torch.eye(4)
    prompts = {kind: axes[column : column + 1] for column, kind in enumerate(KINDS)}
    found = kind_probabilities(3 * axes + 0.1, prompts, logit_scale=100.0)
    assert found.argmax(1).tolist() == [0, 1, 2, 3]
    assert found.sum(1).tolist() == pytest.approx([1.0] * 4)
    assert found.diagonal().min() > 0.99


def test_saying_a_prompt_twice_changes_nothing() -> None:
    torch.manual_seed(0)
    images, prompts = torch.randn(9, 6), {kind: torch.randn(3, 6) for kind in KINDS}
    twice = {**prompts, "pattern": prompts["pattern"].repeat(2, 1)}
    torch.testing.assert_close(kind_probabilities(images, twice, 20.0), kind_probabilities(images, prompts, 20.0))


def test_a_scale_of_zero_knows_nothing() -> None:
    torch.manual_seed(0)
    prompts = {kind: torch.randn(1 + column, 6) for column, kind in enumerate(KINDS)}
    assert torch.equal(kind_probabilities(torch.randn(5, 6), prompts, 0.0), torch.full((5, 4), 0.25).double())


def test_the_committed_prompts_are_those_of_the_recipe() -> None:
    committed = load_kind_prompts(ROOT / KIND_PROMPTS)
    few = kind_prompts(3)
    assert list(committed) == list(KINDS)
    assert committed["legit_human"][:3] == few["legit_human"]
    assert all(set(STRUCTURE_FLAWS) & set(prompt.split(", ")) for prompt in committed["malformed_human"])
    assert not any("1person" in prompt for prompt in committed["pattern"] + committed["object_or_scenery"])


def test_the_embedded_clip_tells_the_kinds_of_held_out_images() -> None:
    clip = load_clip(ROOT / "models/tinybooru/clip", torch.device("cpu"))
    held_out = list(islice(plans("validation", 1), 96))
    images = embed_images(clip, (draw(planned, 64) for planned in held_out))
    prompts = {kind: clip.embed_texts(texts) for kind, texts in load_kind_prompts(ROOT / KIND_PROMPTS).items()}
    named = [KINDS[k] for k in kind_probabilities(images, prompts, clip.logit_scale).argmax(1).tolist()]
    right = sum(name == kind_of(planned) for name, planned in zip(named, held_out, strict=True))
    assert right / len(held_out) > 0.5  # 0.71 of 3,072; four kinds


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "is not JSON"),
        ('{"pattern": ["x"]}', "holds pattern; it must map exactly legit_human, malformed_human"),
        ("[]", "holds list; it must map exactly"),
        (json.dumps({kind: [] for kind in KINDS}), "prompts of 'legit_human' must be a list of at least one text"),
    ],
)
def test_wrong_prompt_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "kinds.json").write_text(content)
    with pytest.raises(InputError, match=message):
        load_kind_prompts(tmp_path / "kinds.json")
    with pytest.raises(InputError, match=r"none\.json are missing; metrics\.kind_prompts names the file"):
        load_kind_prompts(tmp_path / "none.json")
