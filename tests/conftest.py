"""Small real parts for the tests: networks with random weights in the shipped layout, and a composed study."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from models.tinybooru.denoiser import DenoiserRecipe, build_scheduler, build_text_encoder, build_unet
from models.tinybooru.tokenizer import train_tokenizer
from pipeline.compose import compose
from pipeline.study import Study, parse_study
from pipeline.tinybooru.build import plans

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def networks_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `main` and a smaller `guide`, random weights, the classes and layout of the shipped ones."""
    folder = tmp_path_factory.mktemp("networks")
    held_out = plans("validation", 0)
    tokenizer = train_tokenizer([", ".join(next(held_out).tags) for _ in range(200)])
    for name, channels, seed in (("main", (16, 32), 0), ("guide", (16, 16), 1)):
        torch.manual_seed(seed)
        recipe = DenoiserRecipe(name, channels, steps=1, text_width=32)
        build_unet(recipe).save_pretrained(folder / name / "unet")
        build_scheduler().save_pretrained(folder / name / "scheduler")
        if name == "main":
            build_text_encoder(tokenizer, 32).save_pretrained(folder / name / "text_encoder")
            tokenizer.save_pretrained(folder / name / "tokenizer")
    return folder


@pytest.fixture
def params() -> dict[str, Any]:
    """The composed default study as plain content, small."""
    content: dict[str, Any] = json.loads(json.dumps(compose(ROOT / "conf", [])))
    content["generate"] = {"pictures": 16, "first_seed": 0, "shard": 8, "batch": 4}
    content["reference"]["pictures"] = 32
    content["sampler"]["steps"] = 3
    content["metrics"]["resamples"] = 100
    return content


@pytest.fixture
def study(params: dict[str, Any], networks_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A small study over the random networks; the working directory is their folder."""
    monkeypatch.chdir(networks_folder)
    params["model"] = {"name": "random", "main": "main", "guide": "guide"}
    return parse_study(params, "test")


@pytest.fixture
def project(tmp_path: Path, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder with a params.yaml, as working directory."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    return tmp_path
