"""The CLIP score against torchmetrics', both reading one small random CLIP of transformers."""

from typing import Any

import numpy as np
import pytest
import torch
from repository_copy import ROOT
from torchmetrics.functional.multimodal.clip_score import _clip_score_update
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from eval.features.clip import clip_score
from pipeline.tinybooru.image import draw, plan


class Clip(CLIPModel):  # type: ignore[misc]
    """transformers 5 wraps what torchmetrics 1.9 takes for a tensor."""

    def get_image_features(self, *given: Any, **named: Any) -> Any:
        return super().get_image_features(*given, **named).pooler_output

    def get_text_features(self, *given: Any, **named: Any) -> Any:
        return super().get_text_features(*given, **named).pooler_output


def test_torchmetrics_gives_every_image_the_same_score() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(ROOT / "models/tinybooru/clip")
    images_of = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = Clip(
        CLIPConfig(
            text_config={**small, "vocab_size": len(tokenizer), "max_position_embeddings": 77},
            vision_config={**small, "image_size": 32, "patch_size": 8},
            projection_dim=16,
        )
    ).eval()

    def processor(text: Any = None, images: Any = None, **_: Any) -> Any:
        if images is not None:
            return images_of(images, return_tensors="pt")
        return tokenizer(text, return_tensors="pt", padding=True)

    planned = [plan(0, k) for k in range(6)]
    images = [torch.from_numpy(np.array(draw(p, 64))).permute(2, 0, 1) for p in planned]
    texts = [", ".join(p.tags) for p in planned]
    with torch.inference_mode():
        theirs, n = _clip_score_update(images, texts, model, processor)
        images = model.get_image_features(**processor(images=images))
        prompts = model.get_text_features(**processor(text=texts))
    assert n == 6
    # They clamp the mean at 0, we every image.
    ours = clip_score(images, prompts)
    assert ours.tolist() == pytest.approx(theirs.clamp(min=0).tolist(), abs=1e-3)
    assert ours.max() > 0
