"""Small real parts for the tests: networks with random weights in the shipped layout, and a composed study."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import yaml
from compositions import composed
from flow_pipelines import save_flow_pipelines
from hypothesis import settings
from made_once import copied_once, made_once
from playwright.sync_api import Browser
from repository_copy import ROOT
from safetensors.torch import save_file
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from docs.browser import opened_chromium
from models.tinybooru.networks.families import FamilyRecipe, build_network, build_scheduler
from models.tinybooru.networks.text_encoder import build_text_encoder
from models.tinybooru.tokenizer import train_tokenizer
from pipeline.study.study import Study, parse_study
from pipeline.tinybooru.build import plans

# The same examples every time: a find of chance would stop somebody else's change. `HYPOTHESIS_PROFILE=search` looks
# for new ones.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
# `make fuzz`: ten rounds of this many. What a round has tried is kept in memory, so that nothing is tried twice.
settings.register_profile("fuzz", deadline=None, max_examples=10_000, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


# Files whose tests share what is too dear to be made by two workers, or cannot be there twice.
TOGETHER = {
    "tests/integration/test_first_study.py": "followed",
    "tests/integration/test_repro.py": "followed",
    "tests/integration/test_ray.py": "ray",
    "tests/integration/test_ray_lost_result.py": "ray",
    "tests/eval/report/": "report",
}
# What takes longest begins first, so that both workers of `make test` end together.
LONGEST = (
    "followed",
    "tests/integration/test_label_studio.py",
    "ray",
    "tests/pipeline/execution/test_executor.py",
    "tests/pipeline/generation/test_generate.py",
)


def group_of(nodeid: str) -> str:
    """The group of a test, which goes to one worker of pytest-xdist: its file, or files that share something."""
    file = nodeid.partition("::")[0]
    return next((group for beginning, group in TOGETHER.items() if file.startswith(beginning)), file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the groups: the longest first."""
    items.sort(key=lambda item: LONGEST.index(group) if (group := group_of(item.nodeid)) in LONGEST else len(LONGEST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Hand out whole groups. (xdist's own groups need a mark that its version 3.8 loses under pytest 9.)"""

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return ByGroup(config, log)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium. Playwright's event loop runs in the tests' thread, so two at once exclude each other."""
    with opened_chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def networks_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `main` and a smaller `guide`, random weights, the classes and layout of the shipped ones."""
    return copied_once(tmp_path_factory, "networks", _save_networks)


def _save_networks(folder: Path) -> None:
    held_out = plans("validation", 0)
    tokenizer = train_tokenizer([", ".join(next(held_out).tags) for _ in range(200)])
    for name, channels, seed in (("main", (16, 32), 0), ("guide", (16, 16), 1)):
        torch.manual_seed(seed)
        recipe = FamilyRecipe("unet", name, channels, patch=4, learning_rate=1e-3)
        build_network(recipe, text_width=32).save_pretrained(folder / name / "unet")
        build_scheduler().save_pretrained(folder / name / "scheduler")
        if name == "main":
            build_text_encoder(tokenizer, 32).save_pretrained(folder / name / "text_encoder")
            tokenizer.save_pretrained(folder / name / "tokenizer")


@pytest.fixture
def params() -> dict[str, Any]:
    """The default study as plain content, small."""
    content = composed()
    content["generate"] = {"images": 16, "first_seed": 0, "shard": 8, "batch": 4}
    content["reference"]["images"] = 32
    content["sampler"]["steps"] = 3
    content["metrics"]["resamples"] = 100
    # Tests that want probes ask for them.
    for key in ("probes", "negative_preset"):
        content["arms"]["unguided"].pop(key)
    # As those do that want the baseline from other seeds, which has to follow any change of it.
    del content["arms"]["reseeded"]
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


def _save_pipeline(folder: Path, kind: str, seed: int, channels: tuple[int, ...] = (16, 32)) -> None:
    """A Stable Diffusion pipeline ("sd", "sd2" or "sdxl") with small random weights, in the layout of the real ones."""
    from diffusers import (
        AutoencoderKL,
        PNDMScheduler,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    held_out = plans("validation", 0)
    tokenizer = train_tokenizer([", ".join(next(held_out).tags) for _ in range(50)])
    torch.manual_seed(seed)
    width = {"sd": 32, "sd2": 32, "sdxl": 32 + 48}[kind]
    more: dict[str, Any] = {} if kind == "sd" else {"use_linear_projection": True}
    if kind == "sdxl":
        more |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            # The pooled text and six numbers of eight channels each.
            "projection_class_embeddings_input_dim": 48 + 6 * 8,
        }
    unet = UNet2DConditionModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=channels,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=4,
        **more,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        scaling_factor=0.13025 if kind == "sdxl" else 0.18215,
    )
    texts = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    schedule = PNDMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        steps_offset=1,
        skip_prk_steps=True,
        prediction_type="v_prediction" if kind == "sd2" else "epsilon",
    )
    parts: dict[str, Any] = {"vae": vae, "unet": unet, "tokenizer": tokenizer, "scheduler": schedule}
    parts["text_encoder"] = CLIPTextModel(texts).eval()
    if kind != "sdxl":
        pipeline: Any = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    else:
        # Of another width than the first, which is what tells the two apart in a single file.
        wider = CLIPTextConfig(**{**texts.to_dict(), "hidden_size": 48, "projection_dim": 48})
        second = CLIPTextModelWithProjection(wider).eval()
        pipeline = StableDiffusionXLPipeline(**parts, text_encoder_2=second, tokenizer_2=tokenizer)
    pipeline.save_pretrained(folder, safe_serialization=True)


@pytest.fixture(scope="session")
def pipelines_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `sd`, `sd2`, `sdxl` and for each its `_guide`: pipelines of diffusers with small random weights.

    A canvas of 32x32 is what their 16x16 latents decode to.
    """
    return copied_once(tmp_path_factory, "pipelines", _save_pipelines)


def _save_pipelines(folder: Path) -> None:
    for seed, (name, kind, channels) in enumerate(
        (
            ("sd", "sd", (16, 32)),
            ("sd_guide", "sd", (8, 16)),
            ("sdxl", "sdxl", (16, 32)),
            ("sdxl_guide", "sdxl", (8, 16)),
            ("sd2", "sd2", (16, 32)),
            ("sd2_guide", "sd2", (8, 16)),
        )
    ):
        _save_pipeline(folder / name, kind, seed, channels)


@pytest.fixture(scope="session")
def flows_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pipelines along rectified flow by name (flow_pipelines.py), with small random weights and a canvas of 32x32."""
    return copied_once(tmp_path_factory, "flows", save_flow_pipelines)


@pytest.fixture(scope="session")
def pickscore_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small PickScore with random weights, in the layout of the Hub's."""
    return made_once(tmp_path_factory, "pickscore", _save_pickscore)


def _save_pickscore(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(ROOT / "models/tinybooru/clip")
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    CLIPModel(
        CLIPConfig(
            text_config={**small, "vocab_size": len(tokenizer), "max_position_embeddings": 77},
            vision_config={**small, "image_size": 32, "patch_size": 8},
            projection_dim=16,
        )
    ).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    # What transformers writes together lies in two files on the Hub.
    images.save_pretrained(folder)


@pytest.fixture(scope="session")
def vgg16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VGG16 with random weights, as timm publishes one: the convolutions LPIPS looks with."""
    return made_once(tmp_path_factory, "vgg16", _save_vgg16) / "model.safetensors"


def _save_vgg16(folder: Path) -> None:
    torch.manual_seed(0)
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"]).state_dict()
    save_file({f"features.{name}": tensor for name, tensor in layers.items()}, folder / "model.safetensors")


@pytest.fixture
def networks_project(project: Path, params: dict[str, Any], networks_folder: Path) -> Path:
    """A project folder whose model is the random networks."""
    for name in ("main", "guide"):
        shutil.copytree(networks_folder / name, project / "networks" / name)
    params["model"] = {"name": "random", "main": "networks/main", "guide": "networks/guide"}
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return project
