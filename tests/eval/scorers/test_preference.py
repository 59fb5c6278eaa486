"""Learned preference scores: the real classes and loading code with few random weights, by the authors' formulas."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from PIL import Image
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizerFast,
    CLIPModel,
    CLIPProcessor,
)

from eval.scorers.preference import convert, load_preference, preference_scores
from pipeline.errors import InputError
from pipeline.study.scorers import PREFERENCES
from pipeline.tinybooru.image import draw, plan

CPU = torch.device("cpu")
ARCHITECTURE = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
WORDS = ["solo", "red", "hair", "blue", "person", ","]


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [draw(plan(0, k), 64) for k in range(5)]


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    return ["solo, red hair", "blue hair", "person", "red, blue, hair", "solo"]


@pytest.fixture(scope="module")
def hps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder converted from a pickle of the authors' layout, and the network that was pickled."""
    folder = tmp_path_factory.mktemp("hps")
    torch.manual_seed(1)
    network = open_clip.CLIP(**ARCHITECTURE).eval()
    torch.save({"state_dict": network.state_dict(), "epoch": 1}, folder / "HPS_v2.1_compressed.pt")
    convert("hpsv2_1", folder / "HPS_v2.1_compressed.pt", folder, ARCHITECTURE)
    return folder, network


class Parts:
    """ImageReward's parts in the layout of its checkpoint: timm's vision transformer, BERT with cross-attention."""

    def __init__(self) -> None:
        torch.manual_seed(2)
        self.vision = timm.models.VisionTransformer(
            img_size=32, patch_size=16, embed_dim=64, depth=2, num_heads=1, num_classes=0, global_pool=""
        ).eval()
        self.text = BertModel(
            BertConfig(
                vocab_size=len(WORDS) + 5,
                hidden_size=64,
                intermediate_size=96,
                num_hidden_layers=2,
                num_attention_heads=1,
                is_decoder=True,
                add_cross_attention=True,
            ),
            add_pooling_layer=False,
        ).eval()
        # BLIP's text transformer has no token types.
        torch.nn.init.zeros_(self.text.embeddings.token_type_embeddings.weight)
        widths = (64, 32, 16, 8, 4, 1)
        layers = [torch.nn.Linear(a, b) for a, b in pairwise(widths)]
        dropout = torch.nn.Dropout(0.2)
        self.head = torch.nn.Sequential(
            layers[0], dropout, layers[1], dropout, layers[2], dropout, layers[3], layers[4]
        ).eval()
        for parameter in self.head.parameters():
            torch.nn.init.normal_(parameter, std=0.5)

    def state_dict(self) -> dict[str, torch.Tensor]:
        texts = {k: v for k, v in self.text.state_dict().items() if "token_type" not in k}
        return {
            **{f"blip.visual_encoder.{k}": v for k, v in self.vision.state_dict().items()},
            **{f"blip.text_encoder.{k}": v for k, v in texts.items()},
            "blip.text_encoder.embeddings.position_ids": torch.arange(512)[None],
            "blip.text_decoder.cls.predictions.bias": torch.zeros(11),
            **{f"mlp.layers.{k}": v for k, v in self.head.state_dict().items()},
        }


@pytest.fixture(scope="module")
def image_reward(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Parts]:
    folder, parts = tmp_path_factory.mktemp("imagereward"), Parts()
    torch.save(parts.state_dict(), folder / "ImageReward.pt")
    convert("imagereward", folder / "ImageReward.pt", folder)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder, parts


def test_pickscore_is_the_scaled_cosine_of_its_authors(
    pickscore_folder: Path, images: list[Image.Image], prompts: list[str]
) -> None:
    ours = preference_scores(load_preference("pickscore", pickscore_folder, CPU), images, prompts)
    model, processor = CLIPModel.from_pretrained(pickscore_folder), CLIPProcessor.from_pretrained(pickscore_folder)
    with torch.inference_mode():
        seen = model.get_image_features(**processor(images=images, return_tensors="pt")).pooler_output
        given = processor(text=prompts, padding=True, truncation=True, max_length=77, return_tensors="pt")
        read = model.get_text_features(**given).pooler_output
    unit = [x / x.norm(dim=-1, keepdim=True) for x in (seen, read)]
    theirs = (model.logit_scale.exp() * unit[1] @ unit[0].T).diagonal()
    torch.testing.assert_close(ours, theirs.double(), atol=1e-4, rtol=1e-4)
    assert ours.std() > 1e-3


def test_hps_is_the_cosine_of_the_network_that_was_pickled(
    hps: tuple[Path, Any], images: list[Image.Image], prompts: list[str]
) -> None:
    folder, network = hps
    ours = preference_scores(load_preference("hpsv2_1", folder, CPU), images, prompts)
    prepare = open_clip.image_transform(32, is_train=False)
    with torch.inference_mode():
        seen, read, _ = network(torch.stack([prepare(p) for p in images]), open_clip.tokenize(prompts))
    torch.testing.assert_close(ours, (seen @ read.T).diagonal().double(), atol=1e-5, rtol=1e-4)
    assert ours.std() > 1e-3


def test_image_reward_is_that_of_its_parts(
    image_reward: tuple[Path, Parts], images: list[Image.Image], prompts: list[str]
) -> None:
    folder, parts = image_reward
    model = load_preference("imagereward", folder, CPU)
    ours = preference_scores(model, images, prompts)
    prepare = open_clip.image_transform(32, is_train=False)
    read = BertTokenizerFast(str(folder / "vocab.txt"))(
        prompts, padding="max_length", truncation=True, max_length=35, return_tensors="pt"
    )
    # BERT with cross-attention is causal unless it is given the whole mask.
    mask = torch.where(read.attention_mask.bool(), 0.0, torch.finfo(torch.float32).min)[:, None, None].expand(
        -1, 1, 35, -1
    )
    with torch.inference_mode():
        seen = parts.vision.forward_features(torch.stack([prepare(p) for p in images]))
        found = parts.text(read.input_ids, attention_mask=mask, encoder_hidden_states=seen).last_hidden_state
        theirs = (parts.head(found[:, 0]).squeeze(1) - 0.16717362830052426) / 1.0333394966054072
    torch.testing.assert_close(ours, theirs.double(), atol=1e-4, rtol=1e-4)
    assert ours.std() > 1e-3


def test_the_batch_changes_nothing(
    pickscore_folder: Path, images: list[Image.Image], prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_preference("pickscore", pickscore_folder, CPU)
    whole = preference_scores(model, images, prompts)
    monkeypatch.setattr("eval.scorers.preference.BATCH", 2)
    torch.testing.assert_close(preference_scores(model, images, prompts), whole, atol=1e-5, rtol=1e-5)
    for given in (images[:4], [*images, images[0]]):
        with pytest.raises(ValueError, match="need one prompt per image; 5 prompts"):
            preference_scores(model, given, prompts)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("pickscore", "hf download yuvalkirstain/PickScore_v1 config.json model.safetensors --local-dir"),
        ("hpsv2_1", "hf download xswu/HPSv2 HPS_v2.1_compressed.pt --local-dir"),
        ("imagereward", "hf download THUDM/ImageReward ImageReward.pt --local-dir"),
    ],
)
def test_weights_that_are_missing_fail_with_the_command_that_fetches_them(
    name: str, command: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"is missing; get it with `{re.escape(command)}"):
        load_preference(name, tmp_path, CPU)


@pytest.mark.parametrize("name", ["pickscore", "hpsv2_1", "imagereward"])
def test_damaged_and_incomplete_weights_are_named(
    name: str, pickscore_folder: Path, hps: tuple[Path, Any], image_reward: tuple[Path, Parts], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    source = {"pickscore": pickscore_folder, "hpsv2_1": hps[0], "imagereward": image_reward[0]}[name]
    for file in source.iterdir():
        if file.suffix != ".pt":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (weights,) = tmp_path.glob("*.safetensors")
    tensors = load_file(weights)
    tensors.pop(next(key for key in tensors if key.endswith("bias")))
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(InputError, match=r"cannot be loaded as .*; restore it with `hf download"):
        load_preference(name, tmp_path, CPU)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"cannot be loaded as .*; restore it with `hf download"):
        load_preference(name, tmp_path, CPU)


def test_an_unknown_score_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'hps' is unknown; known ones: hpsv2_1, imagereward, pickscore"):
        load_preference("hps", tmp_path, CPU)
    assert sorted(PREFERENCES) == list(PREFERENCES)


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("a pickle ran code",))


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {"a": Evil()}}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"x\.pt cannot be read as tensors"):
        convert("hpsv2_1", tmp_path / "x.pt", tmp_path / "out")
    assert "ran code" not in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"step": 3}, tmp_path / "x.pt")
    with pytest.raises(
        InputError, match=r"x\.pt does not hold a state_dict of tensors; is it the checkpoint of hpsv2_1"
    ):
        convert("hpsv2_1", tmp_path / "x.pt", tmp_path)
    torch.save({"a": torch.zeros(2)}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"x\.pt has no vision part of ImageReward"):
        convert("imagereward", tmp_path / "x.pt", tmp_path)
    with pytest.raises(InputError, match="cannot be read as tensors"):
        convert("imagereward", tmp_path / "none.pt", tmp_path)
