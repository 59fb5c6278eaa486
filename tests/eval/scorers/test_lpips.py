"""Diversity within a prompt, by the real LPIPS over a VGG16 with random weights."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from eval.scorers.arm_scores import known_mean
from eval.scorers.lpips import PARTNERS, load_lpips, within_prompt_lpips
from eval.statistics.clusters import FEWEST
from pipeline.errors import InputError
from pipeline.study.study import Metrics
from pipeline.tinybooru.image import draw, plan

CPU = torch.device("cpu")


def brightness(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """A distance that can be told by hand."""
    return (a - b).abs().mean((1, 2, 3)).double()


def gray(level: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (level, level, level))


# Enough prompts to be resampled whole; their images come last and are alone with their prompts.
OTHERS = [f"other {k}" for k in range(FEWEST)]


def test_equal_images_are_not_diverse_and_unlike_ones_are(vgg16: Path) -> None:
    a, b, c = (draw(plan(0, k), 64) for k in range(3))
    near = Image.fromarray((np.asarray(a) // 2 * 2).astype(np.uint8))
    distance, _ = load_lpips(vgg16, CPU)
    images = [a, a, a, b, c, near, a]
    found = within_prompt_lpips(images.__getitem__, [*"aabccdd", *OTHERS], distance, seed=0)
    assert found[:2].tolist() == pytest.approx([0, 0], abs=1e-7)
    assert math.isnan(found[2])
    assert found[3] == found[4] > 10 * found[5] > 0


def test_one_distance_has_no_interval() -> None:
    with pytest.raises(ValueError, match="needs 2 prompts with 2 images for its interval; of 12 one has"):
        within_prompt_lpips(gray, [*"aaab", *OTHERS], brightness, seed=0)
    with pytest.raises(ValueError, match="2 pairs of images of one prompt for its interval, found 1 among 4 images"):
        within_prompt_lpips(gray, list("aaab"), brightness, seed=0)


def test_a_prompts_mean_is_that_over_its_pairs() -> None:
    levels = [0, 51, 255, 102, 30, 60]
    found = within_prompt_lpips(lambda k: gray(levels[k]), [*"aaaabb", *OTHERS], brightness, seed=0)[:4]
    levels = levels[:4]
    pairs = [abs(a - b) / 127.5 for i, a in enumerate(levels) for b in levels[:i]]
    assert float(found.mean()) == pytest.approx(sum(pairs) / len(pairs))
    assert float(found[0]) == pytest.approx((51 + 255 + 102) / 3 / 127.5)


def test_a_prompt_of_many_images_costs_no_square() -> None:
    seen: list[int] = []

    def counting(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        seen.append(len(a))
        return brightness(a, b)

    n = 60
    of_others = 3
    found = within_prompt_lpips(lambda k: gray(4 * min(k, n)), [*"a" * n, *"bbb", *OTHERS], counting, seed=0)[:n]
    assert sum(seen) == n * PARTNERS / 2 + of_others
    everything = torch.arange(n).double()
    mean = float((everything[:, None] - everything).abs().sum()) / (n * (n - 1)) * 4 / 127.5
    assert float(found.mean()) == pytest.approx(mean, rel=0.1)


def test_distances_of_few_prompts_share_no_image_so_that_their_interval_covers(params: dict[str, Any]) -> None:
    settings = Metrics.model_validate(params["metrics"])
    n, expected, covered = 48, 2 / math.sqrt(math.pi) / 127.5, 0
    for k in range(60):
        levels = torch.randn(n, generator=torch.Generator().manual_seed(k)).tolist()

        def apart(a: torch.Tensor, b: torch.Tensor, levels: list[float] = levels) -> torch.Tensor:
            of = [torch.tensor([levels[round(float(127.5 * (one.mean() + 1)))] for one in side]) for side in (a, b)]
            return (of[0] - of[1]).abs().double() / 127.5

        found = within_prompt_lpips(gray, ["one"] * n, apart, seed=0)
        assert int(found.isnan().sum()) == n / 2
        interval = known_mean(found, settings, None)
        covered += interval.low <= expected <= interval.high
    assert covered / 60 > 0.85, "sharing images, 65 % of the intervals cover"


def test_the_weights_of_the_file_are_those_that_look(vgg16: Path, tmp_path: Path) -> None:
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.manual_seed(1)
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    other = layers.state_dict()
    save_file({f"features.{name}": tensor for name, tensor in other.items()}, tmp_path / "o.safetensors")
    (ours, digest), (theirs, another) = (load_lpips(path, CPU) for path in (vgg16, tmp_path / "o.safetensors"))
    assert torch.equal(ours(pixels[:1], pixels[1:]), ours(pixels[1:], pixels[:1]))
    assert not torch.allclose(ours(pixels[:1], pixels[1:]), theirs(pixels[:1], pixels[1:]))
    assert digest != another


def test_what_cannot_be_measured_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a prompt with 2 images; 2 prompts have 1 each"):
        within_prompt_lpips(gray, ["a", "b"], brightness, seed=0)
    with pytest.raises(InputError, match=r"x\.safetensors is missing; get it with `hf download timm/vgg16"):
        load_lpips(tmp_path / "x.safetensors", CPU)
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"is not VGG16 \('features\.0\.bias'\)"):
        load_lpips(tmp_path / "x.safetensors", CPU)
    (tmp_path / "x.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not json")
    with pytest.raises(InputError, match="is not VGG16"):
        load_lpips(tmp_path / "x.safetensors", CPU)
