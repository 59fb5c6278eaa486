"""Studies of one arm over the small random pipelines along rectified flow, and their images."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.compatibility.networks import check_networks
from pipeline.errors import InputError
from pipeline.generation.arm_generator import ArmGenerator, GeneratedBatch
from pipeline.networks.families import FAMILIES
from pipeline.preflight import check_arms
from pipeline.study.study import Study, parse_study

CPU = torch.device("cpu")
FLOWS = ("sd3", "flux", "flux2_klein", "chroma", "qwen_image", "lumina2", "z_image")
# FLUX.2 has klein's networks and tells them embedded guidance; its text encoder is another.
WITH_FLUX2 = (*FLOWS, "flux2")
# Tokens of T5 that the study's longest prompt has room in.
LENGTH = 96
TEXTS = {"prompt": ["1person, blue hair", "pattern"], "empty": ["", ""], "negative": ["lowres, blurry"] * 2}
ONE = {key: texts[:1] for key, texts in TEXTS.items()}
SEEDS = [3, 4]
CANVAS = {"width": 32, "height": 32}
BLOCKS = {
    "sd3": ["transformer_blocks.0"],
    "flux": ["transformer_blocks.0", "single_transformer_blocks.1"],
    "flux2_klein": ["transformer_blocks.0", "single_transformer_blocks.1"],
    "chroma": ["transformer_blocks.0", "single_transformer_blocks.1"],
    "qwen_image": ["transformer_blocks.0"],
    "lumina2": ["noise_refiner.0", "layers.1"],
    "z_image": ["noise_refiner.0", "layers.1"],
}


def checked(study: Study) -> Study:
    """A study after what is looked at before anything is generated. Raises InputError."""
    check_networks(study, study.arms)
    check_arms(study)
    return study


class Flows:
    """Copies of the random pipelines in the current folder, and studies of them."""

    def __init__(self, params: dict[str, Any], source: Path):
        self.params, self.source = params, source
        params["generate"] |= {"images": 16, "shard": 8, "batch": 4}
        params["sampler"], params["baseline"] = {"scheduler": "euler", "steps": 3}, "arm"

    def copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.source / name, name, dirs_exist_ok=True))

    def study(self, name: str, guide: str | None = None, model: Any = None, text: Any = None, **arm: Any) -> Study:
        """A study of one arm."""
        for folder in {name, guide or name}:
            if not Path(folder).exists():
                self.copy(folder)
        content = {"method": "unguided", "scale": 1.0, "canvas": CANVAS, **arm}
        content["canvas"] = content["canvas"] or CANVAS
        self.params["arms"] = {"arm": content}
        self.params["model"] = {"name": "small", "main": name, "guide": guide or name, **(model or {})}
        family = max((family for family in WITH_FLUX2 if name.startswith(family)), key=len)
        own = {"syntax": "plain"} | ({"t5_length": LENGTH} if FAMILIES[family].whole_text.kind == "t5" else {})
        self.params["text"] = own | (text or {})
        return parse_study(self.params, "test")

    def draw(self, *names: Any, texts: Any = None, seeds: list[int] | None = None, **arm: Any) -> GeneratedBatch:
        return ArmGenerator(checked(self.study(*names, **arm)), "arm", CPU).draw(texts or TEXTS, seeds or SEEDS)

    def refused(self, *names: Any, **more: Any) -> str:
        """What is said where a study is refused before anything is loaded, in one line."""
        study = self.study(*names, **more)
        with pytest.raises(InputError) as raised:
            checked(study)
        assert "\n" not in str(raised.value)
        return str(raised.value)


def pixels(batch: GeneratedBatch) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(image)).int() for image in batch.images])


def far(a: GeneratedBatch, b: GeneratedBatch) -> int:
    """The largest difference of two batches, in levels of 255."""
    return int((pixels(a) - pixels(b)).abs().max())
