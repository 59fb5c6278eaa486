"""Embeddings (textual inversion) stand in a text as A1111 and diffusers have them."""

from pathlib import Path

import pytest
import torch
from checked_networks import edit
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from pipeline.compatibility.networks import check_networks
from pipeline.errors import InputError
from pipeline.generation.loaded_model import LoadedModel
from pipeline.generation.shard_plan import arm_texts, plan_arm
from pipeline.networks.checkpoints import locate
from pipeline.networks.text.text_encoder import TextEncoder, load_text_encoder
from pipeline.prompting.text_settings import TextSettings
from pipeline.study.study import parse_study

CPU = torch.device("cpu")
KINDS = {"sd": (StableDiffusionPipeline, (32,)), "sdxl": (StableDiffusionXLPipeline, (32, 48))}
PROMPT, NEGATIVE = "1person, blue hair, learned style, smile", "worst quality, EasyNegative, lowres"
# diffusers knows no weights and finds a token as it stands.
TOKENS = {"learned style": "<style>", "EasyNegative": "<easy>"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("embeddings").mkdir()


def vectors(number: int, widths: tuple[int, ...], seed: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(number, width, generator=random) for width in widths]


def reader(folder: Path, **files: str) -> TextEncoder:
    paths = {name.replace("_", " "): Path("embeddings", f"{file}.safetensors") for name, file in files.items()}
    return load_text_encoder(locate(str(folder)), CPU, TextSettings(syntax="a1111"), embeddings=paths)


@pytest.mark.parametrize("layout", ["a1111", "diffusers"])
@pytest.mark.parametrize("kind", KINDS)
def test_images_are_those_of_load_textual_inversion(kind, layout, pipelines_folder):
    pipeline, widths = KINDS[kind]
    theirs = pipeline.from_pretrained(pipelines_folder / kind, use_safetensors=True)
    theirs.set_progress_bar_config(disable=True)
    parts = [(theirs.tokenizer, theirs.text_encoder)]
    if kind == "sdxl":  # of which the test's pipeline has one tokenizer for both, and new tokens need their own
        theirs.tokenizer_2 = CLIPTokenizer.from_pretrained(pipelines_folder / kind / "tokenizer_2")
        parts.append((theirs.tokenizer_2, theirs.text_encoder_2))
    for seed, (token, number, file) in enumerate((("<style>", 1, "style"), ("<easy>", 3, "easy"))):
        own = vectors(number, widths, seed)
        for (tokenizer, encoder), tensor in zip(parts, own, strict=True):
            theirs.load_textual_inversion(tensor.squeeze(0), token=token, tokenizer=tokenizer, text_encoder=encoder)
        names = {
            ("a1111", 1): ("emb_params",),
            ("diffusers", 1): (token,),
            ("a1111", 2): ("clip_l", "clip_g"),
            ("diffusers", 2): ("text_encoders_0", "text_encoders_1"),
        }[layout, len(own)]
        save_file(dict(zip(names, own, strict=True)), f"embeddings/{file}.safetensors")

    encoded = reader(pipelines_folder / kind, learned_style="style", easynegative="easy").encode_together(
        {"prompt": [PROMPT], "negative": [NEGATIVE]}, references=("negative",)
    )
    given = {"prompt_embeds": encoded["prompt"]["tokens"], "negative_prompt_embeds": encoded["negative"]["tokens"]}
    if kind == "sdxl":
        given |= {"pooled_prompt_embeds": encoded["prompt"]["pooled"]}
        given |= {"negative_pooled_prompt_embeds": encoded["negative"]["pooled"]}
    prompt, negative = (PROMPT, NEGATIVE)
    for name, token in TOKENS.items():
        prompt, negative = prompt.replace(name, token), negative.replace(name, token)

    def images(**told):
        return theirs(
            **told, num_inference_steps=2, guidance_scale=4.0, output_type="pt", generator=torch.manual_seed(0)
        ).images

    expected = images(prompt=prompt, negative_prompt=negative)
    torch.testing.assert_close(images(**given), expected, atol=1e-4, rtol=1e-4)
    plain = images(prompt=PROMPT, negative_prompt=NEGATIVE)
    assert float((plain - expected).abs().max()) > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_an_embedding_of_a_words_own_vectors_is_that_word(kind, pipelines_folder):
    plain = load_text_encoder(locate(str(pipelines_folder / kind)), CPU, TextSettings(syntax="a1111"))
    words, tensors = "worst quality, lowres", {}
    for tower, key in zip(plain.towers, ("clip_l", "clip_g"), strict=False):
        ids = tower.tokenizer(words, add_special_tokens=False).input_ids
        tensors[key if kind == "sdxl" else "emb_params"] = tower.model.get_input_embeddings().weight[ids].clone()
    save_file(tensors, "embeddings/bad.safetensors")
    encoder = reader(pipelines_folder / kind, bad="bad")
    for named, written in (("bad", words), ("a cat, (BAD:1.3), x", f"a cat, ({words}:1.3), x")):
        ours, theirs = encoder.encode([named]), plain.encode([written])
        assert set(ours) == set(theirs)
        for name, tensor in theirs.items():
            assert torch.equal(ours[name], tensor)
    assert not torch.equal(encoder.encode(["badly"])["tokens"], plain.encode([words])["tokens"])


def test_the_pooled_text_is_that_of_its_end_mark_where_a_configuration_names_another(pipelines_folder, tmp_path):
    """SDXL's says eos_token_id 2, and transformers then takes the largest token of a text."""
    import shutil

    shutil.copytree(pipelines_folder / "sdxl", "old")
    edit(Path("old/text_encoder_2/config.json"), eos_token_id=2)
    save_file(dict(zip(("clip_l", "clip_g"), vectors(2, (32, 48), 0), strict=True)), "embeddings/bad.safetensors")
    pooled = [
        reader(folder, bad="bad").encode(["a bad cat"])["pooled"] for folder in (pipelines_folder / "sdxl", Path("old"))
    ]
    assert torch.equal(*pooled)


def test_an_embedding_is_not_cut_in_two_and_weighs_as_a_word(pipelines_folder):
    save_file({"emb_params": vectors(5, (32,), 0)[0]}, "embeddings/five.safetensors")
    (tower,) = reader(pipelines_folder / "sd", five="five").towers
    room = tower.context - 2
    words = len(tower.tokenizer("x, ", add_special_tokens=False).input_ids)
    text = "x, " * ((room - 3) // words) + "(five:1.5)"
    first, second = tower.chunks(text, TextSettings(syntax="a1111"))
    assert room - 5 < len(first) <= room
    assert [item.token for item in second] == [-5, -4, -3, -2, -1]
    assert {item.weight for item in second} == {1.5}


REFUSED = {
    "another width": ({"emb_params": torch.zeros(2, 768)}, "holds vectors of width 768 (SD 1.x), and this model's"),
    "of two text encoders": (
        {"clip_l": torch.zeros(1, 768), "clip_g": torch.zeros(1, 1280)},
        "holds vectors of width 768 and 1280 (SDXL), and this model's text encoders have 32 (one text encoder)",
    ),
    "a LoRA": (
        {"x.lora_down.weight": torch.zeros(2, 2), "x.lora_up.weight": torch.zeros(2, 2)},
        "is not an embedding: it holds x.lora_down.weight, x.lora_up.weight; name a file with one tensor of vectors",
    ),
    "too many vectors": (
        {"emb_params": torch.zeros(90, 32)},
        "holds 90 vectors; a chunk of this model's texts has room",
    ),
    "not finite": ({"emb_params": torch.full((1, 32), torch.nan)}, "holds values that are not finite numbers"),
}


@pytest.fixture
def asking(params, pipelines_folder, monkeypatch):
    """A study of SD 1.x whose negative prompt is a text that may call embeddings."""

    def study(negative, kind="sd"):
        main = str(Path("networks") / kind)
        params["model"] = {"name": "random", "main": main, "guide": main}
        params["arms"] = {
            "cfg": {"method": "cfg", "scale": 3.0},
            "negative": {"method": "negative", "scale": 3.0, "negative_prompt": negative},
        }
        params["baseline"] = "cfg"
        return parse_study(params, "test")

    Path("networks").symlink_to(pipelines_folder)
    return study


def refusal(study) -> str:
    with pytest.raises(InputError) as caught:
        check_networks(study, study.generated)
    return str(caught.value)


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_that_is_no_embedding_of_this_model_is_refused_by_name(what, asking):
    tensors, said = REFUSED[what]
    save_file(tensors, "embeddings/EasyNegative.safetensors")
    study = asking("bad, easynegative")
    assert refusal(study).startswith(f"embeddings/EasyNegative.safetensors {said}")
    check_networks(asking("bad, worse"), ["negative"])  # nobody calls it


def test_an_embedding_of_sd_is_refused_by_name_on_sdxl(asking):
    save_file({"emb_params": torch.zeros(2, 32)}, "embeddings/bad.safetensors")
    check_networks(asking("bad"), ["negative"])
    assert refusal(asking("bad", "sdxl")) == (
        "embeddings/bad.safetensors holds vectors of width 32 (one text encoder), and this model's text encoders have "
        "32 and 48 (two text encoders); use an embedding that was trained for this kind of model"
    )


def test_a_missing_an_unreadable_and_a_pickled_embedding_are_refused_by_name(asking):
    Path("embeddings/bad-hands-5.pt").write_bytes(b"pickle")
    Path("embeddings/sub").mkdir()
    Path("embeddings/sub/broken.safetensors").write_bytes(b"no tensors")
    assert refusal(asking("embedding:bad-hand-5")) == (
        "embedding:bad-hand-5 names no file; put embeddings/bad-hand-5.safetensors there; did you mean bad-hands-5?"
    )
    assert refusal(asking("(bad-hands-5:1.2), lowres")) == (
        "embeddings/bad-hands-5.pt is a pickle, which can run code when it is read; convert it to "
        "embeddings/bad-hands-5.safetensors, with its vectors as the tensor emb_params"
    )
    assert refusal(asking("broken")).startswith("embeddings/sub/broken.safetensors cannot be loaded (")
    Path("embeddings/broken.safetensors").write_bytes(b"no tensors")
    assert refusal(asking("x")) == (
        "embeddings/broken.safetensors and embeddings/sub/broken.safetensors share a name; rename one of them"
    )


def test_an_embedding_is_in_the_fingerprint_of_the_arms_that_call_it(asking):
    def planned(arm):
        study = asking("lowres, EasyNegative")
        return plan_arm(study, arm, arm_texts(study, arm), "cpu")

    without = {arm: planned(arm) for arm in ("cfg", "negative")}
    save_file({"emb_params": torch.zeros(1, 32)}, "embeddings/EasyNegative.safetensors")
    first = {arm: planned(arm) for arm in ("cfg", "negative")}
    save_file({"emb_params": torch.ones(1, 32)}, "embeddings/EasyNegative.safetensors")
    second = planned("negative")
    assert first["cfg"] == without["cfg"]
    assert set(first["negative"].inputs) - set(without["negative"].inputs) == {"embeddings.easynegative"}
    assert len({plan.shards[0].fingerprint for plan in (without["negative"], first["negative"], second)}) == 3


def test_every_arm_reads_the_embeddings_that_it_calls(asking):
    save_file({"emb_params": torch.ones(2, 32)}, "embeddings/bad.safetensors")
    model = LoadedModel(asking("bad, lowres"), CPU)
    (tower,) = model.text_encoder.towers
    assert dict(tower.learned) == {"bad": (-2, -1)}
