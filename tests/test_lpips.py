"""Diversity within a prompt, by the real LPIPS over a VGG16 with random weights."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from eval.lpips import PARTNERS, load_lpips, within_prompt_lpips
from pipeline.errors import InputError
from pipeline.tinybooru.picture import draw, plan

CPU = torch.device("cpu")


def brightness(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """A distance that can be told by hand."""
    return (a - b).abs().mean((1, 2, 3)).double()


def gray(level: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (level, level, level))


def test_equal_pictures_are_not_diverse_and_unlike_ones_are(vgg16: Path) -> None:
    a, b, c = (draw(plan(0, k), 64) for k in range(3))
    near = Image.fromarray((np.asarray(a) // 2 * 2).astype(np.uint8))
    distance, _ = load_lpips(vgg16, CPU)
    pictures = [a, a, a, b, c, near, a]
    found = within_prompt_lpips(pictures.__getitem__, torch.tensor([0, 0, 1, 2, 2, 3, 3]), distance, seed=0)
    assert found[:2].tolist() == pytest.approx([0, 0], abs=1e-7)
    assert math.isnan(found[2])
    assert found[3] == found[4] > 10 * found[5] > 0


def test_one_prompt_that_repeats_among_others_has_no_interval() -> None:
    with pytest.raises(ValueError, match="needs 2 prompts with 2 pictures for its interval; of 3 one has"):
        within_prompt_lpips(lambda k: gray(k), torch.tensor([0, 0, 1, 2]), brightness, seed=0)


def test_a_prompts_mean_is_that_over_its_pairs() -> None:
    levels = [0, 51, 255, 102]
    found = within_prompt_lpips(lambda k: gray(levels[k]), torch.tensor([7, 7, 7, 7]), brightness, seed=0)
    pairs = [abs(a - b) / 127.5 for i, a in enumerate(levels) for b in levels[:i]]
    assert float(found.mean()) == pytest.approx(sum(pairs) / len(pairs))
    assert float(found[0]) == pytest.approx((51 + 255 + 102) / 3 / 127.5)


def test_a_prompt_of_many_pictures_costs_no_square() -> None:
    seen: list[int] = []

    def counting(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        seen.append(len(a))
        return brightness(a, b)

    n = 60
    found = within_prompt_lpips(lambda k: gray(4 * k), torch.zeros(n).long(), counting, seed=0)
    assert sum(seen) == n * PARTNERS / 2
    everything = torch.arange(n).double()
    mean = float((everything[:, None] - everything).abs().sum()) / (n * (n - 1)) * 4 / 127.5
    assert float(found.mean()) == pytest.approx(mean, rel=0.1)


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
    with pytest.raises(ValueError, match="a prompt with 2 pictures; 2 prompts have 1 each"):
        within_prompt_lpips(lambda k: gray(k), torch.tensor([0, 1]), brightness, seed=0)
    with pytest.raises(InputError, match=r"x\.safetensors is missing; get it with `hf download timm/vgg16"):
        load_lpips(tmp_path / "x.safetensors", CPU)
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"is no VGG16 \('features\.0\.bias'\)"):
        load_lpips(tmp_path / "x.safetensors", CPU)
    (tmp_path / "x.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not json")
    with pytest.raises(InputError, match="is no VGG16"):
        load_lpips(tmp_path / "x.safetensors", CPU)
