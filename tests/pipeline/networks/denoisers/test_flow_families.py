"""Families along rectified flow: the laws of guidance hold on each, and what does not fit is refused beforehand."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checked_networks import edit
from flow_pipelines import qwen_vl_tokenizer
from safetensors.torch import load_file, save_file
from single_file import original_flux2_transformer, save_sd3_single_file
from transformers import CLIPTextModel

from pipeline.compatibility.loras import lora_changes
from pipeline.compatibility.networks import check_networks
from pipeline.cost.size import H100, parameters_of
from pipeline.errors import InputError
from pipeline.generation.arm_generator import ArmGenerator, GeneratedBatch
from pipeline.generation.shard_plan import arm_texts, common_inputs
from pipeline.generation.study_estimate import estimated, study_estimate
from pipeline.networks.checkpoints import locate
from pipeline.networks.families import FAMILIES
from pipeline.networks.weights.weight_files import weight_paths
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


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where texts that one test has encoded are found by the next."""
    return tmp_path_factory.mktemp("embeddings")


@pytest.fixture
def flows(
    params: dict[str, Any], flows_folder: Path, embeddings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Flows:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(embeddings))
    return Flows(params, flows_folder)


@pytest.fixture
def cache(flows: Flows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pixels(batch: GeneratedBatch) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(image)).int() for image in batch.images])


def far(a: GeneratedBatch, b: GeneratedBatch) -> int:
    """The largest difference of two batches, in levels of 255."""
    return int((pixels(a) - pixels(b)).abs().max())


@pytest.mark.parametrize("name", WITH_FLUX2)
def test_a_folder_is_of_the_family_with_and_without_its_index(flows: Flows, name: str) -> None:
    folder = flows.copy(name)
    found = locate(name)
    factor = 4 if name.startswith("flux2") else 2  # its latents are patches of them
    assert (found.family, found.factor, found.unit) == (FAMILIES[name], factor, 4)
    (folder / "model_index.json").unlink()
    assert locate(name).family is FAMILIES[name]


@pytest.mark.parametrize("name", FLOWS)
def test_scale_one_costs_no_more_than_the_plain_conditional_and_is_it(flows: Flows, name: str) -> None:
    plain = flows.draw(name)
    for method in ({"method": "cfg"}, {"method": "negative", "negative_prompt": "lowres"}, {"method": "autoguidance"}):
        one = flows.draw(name, f"{name}_guide", scale=1.0, **method)
        assert far(plain, one) == 0
        assert one.cost.nfe == plain.cost.nfe == 2 * 3
        assert one.cost.flops == plain.cost.flops > 0


@pytest.mark.parametrize("name", WITH_FLUX2)
def test_a_negative_that_is_the_prompt_and_a_guide_that_is_main_change_nothing(flows: Flows, name: str) -> None:
    plain = flows.draw(name)
    same = flows.draw(
        name, method="negative", scale=4.0, negative_from_prompt=True, texts=TEXTS | {"negative": TEXTS["prompt"]}
    )
    itself = flows.draw(name, name, method="autoguidance", scale=4.0)
    assert max(far(plain, same), far(plain, itself)) <= 1  # of rounding: prompt and negative share a batch


@pytest.mark.parametrize("name", FLOWS)
def test_a_guide_of_another_width_guides(flows: Flows, name: str) -> None:
    guided = flows.draw(name, f"{name}_guide", method="autoguidance", scale=2.0)
    assert far(flows.draw(name), guided) > 3
    assert guided.cost.nfe == 2 * 2 * 3


@pytest.mark.parametrize("name", FLOWS)
def test_an_image_does_not_depend_on_its_batch(flows: Flows, name: str) -> None:
    both = flows.draw(name, method="cfg", scale=4.0)
    alone = flows.draw(
        name, method="cfg", scale=4.0, texts={key: [texts[1]] for key, texts in TEXTS.items()}, seeds=[SEEDS[1]]
    )
    assert int((pixels(both)[1] - pixels(alone)[0]).abs().max()) <= 1


@pytest.mark.parametrize("name", FLOWS)
def test_a_negative_of_any_length_stands_beside_a_prompt_of_any_length(flows: Flows, name: str) -> None:
    texts = {
        "prompt": ["hat", "1person, blue hair, smile"],
        "negative": ["lowres", "lowres, blurry, worst quality, sketch"],
    }
    arm = {"method": "negative", "scale": 4.0, "negative_prompt": "lowres"}
    found = flows.draw(name, texts=texts, **arm)
    other = flows.draw(name, texts=texts | {"negative": ["lowres", "lowres"]}, **arm)
    assert int((pixels(found)[0] - pixels(other)[0]).abs().max()) <= 1
    assert int((pixels(found)[1] - pixels(other)[1]).abs().max()) > 1


BLOCKS = {
    "sd3": ["transformer_blocks.0"],
    "flux": ["transformer_blocks.0", "single_transformer_blocks.1"],
    "flux2_klein": ["transformer_blocks.0", "single_transformer_blocks.1"],
    "chroma": ["transformer_blocks.0", "single_transformer_blocks.1"],
    "qwen_image": ["transformer_blocks.0"],
    "lumina2": ["noise_refiner.0", "layers.1"],
    "z_image": ["noise_refiner.0", "layers.1"],
}
DAMAGES: list[dict[str, Any]] = [
    {"kind": "pag"},
    {"kind": "seg"},
    {"kind": "seg", "blur": 1.0},
    {"kind": "skip_layers"},
    {"kind": "random_layers", "share": 0.9},
    {"kind": "dropout", "share": 0.3},
    {"kind": "shuffle_tokens", "share": 0.9},
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: "_".join(map(str, damage.values())))
@pytest.mark.parametrize("name", FLOWS)
def test_damage_to_named_blocks_guides_and_leaves_no_trace(flows: Flows, name: str, damage: dict[str, Any]) -> None:
    arm = {
        "method": "mix",
        "terms": [{"reference": "damaged"}],
        "references": {"damaged": {"perturb": {**damage, "layers": BLOCKS[name]}}},
    }
    generator = ArmGenerator(checked(flows.study(name, scale=3.0, **arm)), "arm", CPU)
    plain = flows.draw(name)
    first = generator.draw(TEXTS, SEEDS)
    assert far(plain, first) > 1
    assert first.images[0].tobytes() == generator.draw(TEXTS, SEEDS).images[0].tobytes()
    assert first.cost.flops > plain.cost.flops


@pytest.mark.parametrize("name", FLOWS)
def test_a_drawn_share_of_nothing_is_the_undamaged_network(flows: Flows, name: str) -> None:
    tiny = {"kind": "dropout", "share": 1e-9, "layers": BLOCKS[name]}
    references = {"damaged": {"perturb": tiny}}
    guided = flows.draw(name, method="mix", scale=3.0, terms=[{"reference": "damaged"}], references=references)
    assert far(flows.draw(name), guided) <= 1


@pytest.mark.parametrize("how", [
    {"name": "weight_noise", "strength": 0.2},
    {"name": "dropout", "rate": 0.2},
    {"name": "low_bits", "bits": 2},
    {"name": "drop_layers"},
], ids=lambda how: str(how["name"]))  # fmt: skip
@pytest.mark.parametrize("name", FLOWS)
def test_a_weakened_copy_guides(flows: Flows, name: str, how: dict[str, Any]) -> None:
    how = how | ({"layers": BLOCKS[name][:1]} if how["name"] == "drop_layers" else {})
    guided = flows.draw(name, method="autoguidance", scale=2.0, model={"weaken": how})
    assert far(flows.draw(name), guided) > 1


@pytest.mark.parametrize("name", FLOWS)
def test_a_network_that_stays_on_the_cpu_until_it_is_needed_generates_the_same(flows: Flows, name: str) -> None:
    plain = flows.draw(name, method="cfg", scale=3.0)
    offloaded = flows.draw(name, method="cfg", scale=3.0, model={"loading": {"offload": True}})
    assert far(plain, offloaded) == 0
    assert offloaded.cost.flops == plain.cost.flops


@pytest.mark.parametrize("name", FLOWS)
def test_an_arm_is_steered_in_attention(flows: Flows, name: str) -> None:
    steered = flows.draw(name, attention={"name": "nag"}, negative_prompt="lowres, blurry")
    assert far(flows.draw(name), steered) > 1
    assert steered.cost.nfe == 2 * 3


def test_a_negative_whose_scale_follows_its_probability_guides(flows: Flows) -> None:
    flows.params["sampler"] = {"scheduler": "euler_ancestral", "steps": 4}
    negative = {"method": "negative", "negative_prompt": "lowres"}
    plain = flows.draw("sd3")
    # Half is the static negative prompt; from a small prior the scale has to grow first.
    static = flows.draw("sd3", scale=6.0, **negative)
    dynamic = {"name": "dynamic", "temperature": 0.0, "offset": 0.0}
    half = flows.draw("sd3", scale=6.0, schedule={**dynamic, "prior": 0.5}, **negative)
    assert far(static, half) <= 1 < far(static, plain)
    followed = flows.draw("sd3", scale=6.0, schedule={"name": "dynamic", "prior": 0.1}, **negative)
    assert min(far(followed, plain), far(followed, static)) > 1
    alone = flows.draw(
        "sd3", scale=6.0, schedule={"name": "dynamic", "prior": 0.1}, texts=ONE, seeds=SEEDS[:1], **negative
    )
    assert int((pixels(followed)[0] - pixels(alone)[0]).abs().max()) <= 1


@pytest.mark.parametrize(("name", "usual"), [("flux", 3.5), ("flux2", 4.0)])
def test_embedded_guidance_is_part_of_what_determines_an_image(flows: Flows, name: str, usual: float) -> None:
    plain, told = (common_inputs(flows.study(name, embedded_guidance=g), "arm", "cpu") for g in (None, 2.0))
    assert plain["arm"] != told["arm"]
    assert far(flows.draw(name), flows.draw(name, embedded_guidance=usual)) == 0
    assert far(flows.draw(name), flows.draw(name, embedded_guidance=9.0)) > 1


@pytest.mark.parametrize("name", ["flux", "qwen_image"])
def test_a_lora_changes_the_main_network_or_makes_a_guide_of_it(flows: Flows, name: str) -> None:
    layer = "transformer_blocks.0.attn.to_v"
    width = load_file(flows.copy(name) / "transformer/diffusion_pytorch_model.safetensors")[f"{layer}.weight"].shape[0]
    matrices = {"A": torch.randn(2, width), "B": torch.randn(width, 2)}
    save_file(
        {f"transformer.{layer}.lora_{role}.weight": value for role, value in matrices.items()}, "lora.safetensors"
    )
    plain = flows.draw(name)
    assert far(plain, flows.draw(name, model={"loras": [{"file": "lora.safetensors"}]})) > 1
    weaken = {"name": "lora", "file": "lora.safetensors"}
    study = flows.study(name, method="autoguidance", scale=2.0, model={"weaken": weaken})
    assert lora_changes(study) == ["model.weaken.file lora.safetensors changes layers of the guide's transformer: 1"]
    assert far(plain, flows.draw(name, method="autoguidance", scale=2.0, model={"weaken": weaken})) > 1


@pytest.mark.parametrize("name", WITH_FLUX2)
def test_texts_are_encoded_once_and_their_encoders_dropped(
    flows: Flows, cache: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = flows.study(name, method="cfg", scale=3.0)
    generator = ArmGenerator(study, "arm", CPU)
    assert all(tower.model.device.type == "meta" for tower in generator.text_encoder.towers)
    kept = list((cache / "guidedrift/embeddings").rglob("*.safetensors"))
    assert len(kept) == len({text for texts in arm_texts(study, "arm").values() for text in texts})
    # A worker that starts later finds them, and never loads what encodes.
    again = ArmGenerator(study, "arm", CPU)
    monkeypatch.setattr(again.model, "_load_texts", None)
    prompt = arm_texts(study, "arm")["prompt"][:2]
    found = again.model.encode({"prompt": prompt})["prompt"]
    checkpoint = locate(name)
    fresh = checkpoint.family.load_texts(checkpoint, CPU, study.text).encode(prompt)
    # Together, and not each alone: torch rounds otherwise.
    torch.testing.assert_close(dict(found), dict(fresh))


@pytest.mark.parametrize("name", FLOWS)
def test_a_damaged_embedding_is_made_again(flows: Flows, cache: Path, name: str) -> None:
    study = flows.study(name)
    first = ArmGenerator(study, "arm", CPU).model.encode({"prompt": ["pattern"]})["prompt"]["tokens"]
    for path in cache.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-3] + b"\0\1\2")
    second = ArmGenerator(study, "arm", CPU).model.encode({"prompt": ["pattern"]})["prompt"]["tokens"]
    assert torch.equal(first, second)


def lacking(part: str) -> Callable[[Path], object]:
    return lambda folder: shutil.rmtree(folder / part)


def edited(file: str, **values: Any) -> Callable[[Path], object]:
    return lambda folder: edit(folder / file, **values)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("sd3", lacking("text_encoder_3"), "text_encoder_3/config.json is missing"),
        ("sd3", lacking("vae"), "vae/config.json is missing"),
        ("flux", lacking("text_encoder_2"), "text_encoder_2/config.json is missing"),
        ("flux", lacking("tokenizer_2"), "tokenizer_2"),
        ("chroma", lacking("text_encoder"), "text_encoder/config.json is missing"),
        ("qwen_image", lacking("text_encoder"), "text_encoder/config.json is missing"),
        ("qwen_image", lacking("tokenizer"), "tokenizer"),
        ("qwen_image", lacking("vae"), "vae/config.json is missing"),
        ("qwen_image", edited("vae/config.json", _class_name="AutoencoderKL"), "AutoencoderKLQwenImage is supported"),
        ("qwen_image", edited("vae/config.json", z_dim=4), "not 4 numbers, one for each of its z_dim"),
        ("qwen_image", edited("vae/config.json", z_dim=4, latents_mean=[0] * 4, latents_std=[1] * 4), "z_dim to 4"),
        ("qwen_image", edited("vae/config.json", input_channels=4), "images have 3 channels"),
        ("qwen_image", edited("transformer/config.json", out_channels=8), "in_channels to 64 and out_channels to 32"),
        ("qwen_image", edited("transformer/config.json", zero_cond_t=True), "zero_cond_t to true: it reads an image"),
        ("qwen_image", edited("transformer/config.json", joint_attention_dim=96), "joint_attention_dim to 96"),
        ("qwen_image", edited("transformer/config.json", num_layers=3), "lacks .* of the .* weights of QwenImageT"),
        ("flux", edited("vae/config.json", _class_name="AutoencoderKLQwenImage"), "only AutoencoderKL is supported"),
        ("flux2", lacking("text_encoder"), "text_encoder/config.json is missing"),
        ("flux2", lambda folder: (folder / "tokenizer/chat_template.jinja").unlink(), "tokenizer has no chat templ"),
        ("flux2", edited("vae/config.json", _class_name="AutoencoderKL"), "only AutoencoderKLFlux2 is supported"),
        ("flux2", edited("vae/config.json", latent_channels=4), "sets latent_channels to 4"),
        ("flux2", edited("text_encoder/config.json", text_config={"model_type": "qwen3"}), "reads a mistral3 there"),
        ("flux2_klein", edited("tokenizer/tokenizer_config.json", pad_token=None), "no token for padding, which the n"),
        ("flux2_klein", edited("text_encoder/config.json", num_hidden_layers=9), "reads layer 27 of Qwen3; take the"),
        ("flux2_klein", edited("transformer/config.json", joint_attention_dim=64), "text embeddings .* have width 96;"),
        ("flux2_klein", edited("transformer/config.json", num_layers=2), "lacks .* of the .* weights of Flux2Transfo"),
        ("sd3", edited("transformer/config.json", in_channels=32, out_channels=16), "also reads an image or a mask"),
        ("flux", edited("vae/config.json", latent_channels=4), "sets latent_channels to 4"),
        ("sd3", edited("transformer/config.json", joint_attention_dim=96), "joint_attention_dim to 96"),
        ("flux", edited("transformer/config.json", pooled_projection_dim=96), "pooled_projection_dim to 96"),
        ("chroma", edited("transformer/config.json", joint_attention_dim=96), "joint_attention_dim to 96"),
        ("chroma", edited("text_encoder/config.json", model_type="clip_text_model"), "reads a t5 there"),
        ("sd3", edited("text_encoder_3/config.json", model_type="gemma2"), "describes a gemma2 model"),
        ("sd3", edited("transformer/config.json", num_layers=4), "lacks .* of the .* weights of SD3Transformer2DModel"),
        ("flux", edited("transformer/config.json", num_single_layers=1), "that the configuration has no place for"),
        ("flux", edited("scheduler/scheduler_config.json", _class_name="DDIMScheduler"), "FlowMatchEulerDiscreteSche"),
        ("sd3", edited("scheduler/scheduler_config.json", stochastic_sampling=True), "stochastic_sampling to true"),
        ("lumina2", lacking("text_encoder"), "text_encoder/config.json is missing"),
        ("lumina2", lacking("vae"), "vae/config.json is missing"),
        ("lumina2", edited("transformer/config.json", cap_feat_dim=96), "sets cap_feat_dim to 96"),
        ("lumina2", edited("text_encoder/config.json", model_type="qwen3"), "describes a qwen3 model"),
        ("lumina2", edited("tokenizer/tokenizer_config.json", tokenizer_class="T5Tokenizer"), "only GemmaTokenizer is"),
        ("lumina2", edited("transformer/config.json", num_layers=1), "that the configuration has no place for"),
        ("z_image", lacking("tokenizer"), "tokenizer"),
        ("z_image", lambda folder: (folder / "tokenizer/chat_template.jinja").unlink(), "tokenizer has no chat templ"),
        ("z_image", edited("vae/config.json", latent_channels=4), "sets latent_channels to 4"),
        ("z_image", edited("transformer/config.json", cap_feat_dim=96), "sets cap_feat_dim to 96"),
        ("z_image", edited("text_encoder/config.json", model_type="t5"), "describes a t5 model"),
        ("z_image", edited("scheduler/scheduler_config.json", invert_sigmas=True), "invert_sigmas to true"),
    ],
)  # fmt: skip
def test_a_checkpoint_whose_parts_do_not_fit_is_refused(
    flows: Flows, name: str, change: Callable[[Path], object], said: str
) -> None:
    change(flows.copy(name))
    assert re.search(said, flows.refused(name))


@pytest.mark.parametrize(
    ("names", "more", "said"),
    [
        (("sd3", "flux"), {"method": "autoguidance", "scale": 2.0}, "the guide flux does not fit: "),
        (("chroma", "flux"), {"method": "autoguidance", "scale": 2.0}, "guide flux does not fit: width of the pooled"),
        (("qwen_image", "flux"), {"method": "autoguidance", "scale": 2.0}, "the guide flux does not fit: "),
        (("qwen_image",), {"canvas": {"width": 30, "height": 32}}, "must be multiples of 4"),
        (("qwen_image",), {"method": "pag", "scale": 2.0}, "the network has no transformer block under 'mid_block'"),
        (("qwen_image",), {"embedded_guidance": 2.0}, "and qwen_image (qwen_image) reads no guidance scale"),
        (("qwen_image",), {"text": {"t5_length": 32}}, "text.t5_length is for families that read T5, and qwen_image"),
        (("qwen_image",), {"text": {"chunks": 2}}, "reads the tokens of Qwen2.5-VL alone, which has no chunks"),
        (
            ("qwen_image",),
            {"method": "negative", "scale": 2.0, "negative_prompt": "hat " * 600},
            "tokens of Qwen2.5-VL, the end of its message included, and 512 are read; shorten it",
        ),
        (
            ("qwen_image",),
            {"text": {"syntax": "a1111"}, "method": "negative", "scale": 2.0, "negative_prompt": "a (hat:1.3)"},
            "qwen_image (qwen_image) reads the tokens of Qwen2.5-VL, which knows no weights; take them out, or set",
        ),
        (
            ("qwen_image",),
            {"method": "mix", "scale": 2.0, "terms": [{"reference": "cut"}], "texts": {"cut": {"degraded": 0.5}}},
            "arms.arm.texts.cut degrades tokens to the empty text's at their places, and qwen_image (qwen_image) reads",
        ),
        (("flux2", "flux"), {"method": "autoguidance", "scale": 2.0}, "the guide flux does not fit: width of the text"),
        (("flux2", "flux2_klein"), {"method": "autoguidance", "scale": 2.0}, "text encoders is Mistral Small 3 in the"),
        (("flux2",), {"canvas": {"width": 30, "height": 32}}, "must be multiples of 4"),
        (("flux2_klein",), {"embedded_guidance": 2.0}, "flux2_klein (flux2_klein) reads no guidance scale; leave it"),
        (
            ("flux2_klein",),
            {"method": "negative", "scale": 2.0, "negative_prompt": "hat " * 600},
            "tokens of Qwen3, chat template included, and 512 are read; shorten it",
        ),
        (("chroma",), {"built_in_post": False}, "the pipeline of chroma (chroma) has no post-process built in; leave"),
        (("chroma",), {"canvas": {"width": 30, "height": 32}}, "must be multiples of 4"),
        (("chroma",), {"method": "seg", "scale": 2.0}, "the network has no transformer block under 'mid_block'"),
        (("chroma",), {"embedded_guidance": 2.0}, "embedded_guidance is 2, and chroma (chroma) reads no guidance"),
        (("chroma",), {"text": {"t5_length": 8}}, "tokens of T5, end mark included, and text.t5_length is 8"),
        (("chroma",), {"text": {"clip_skip": 1}}, "text.clip_skip is 1; chroma (chroma) reads the tokens of T5 alone"),
        (
            ("chroma",),
            {"text": {"syntax": "a1111"}, "method": "negative", "scale": 2.0, "negative_prompt": "a (hat:1.3)"},
            "text negative gives 'hat' the weight 1.3",
        ),
        (("sd3",), {"canvas": {"width": 34, "height": 32}}, "must be multiples of 4"),
        (("sd3",), {"canvas": {"width": 80, "height": 32}}, "positions for sides of up to 64 pixels"),
        (("flux",), {"canvas": {"width": 30, "height": 32}}, "must be multiples of 4"),
        (("sd3",), {"method": "pag", "scale": 2.0}, "the network has no transformer block under 'mid_block'"),
        (
            ("flux",),
            {"attention": {"name": "nag", "layers": ["mid_block"]}, "negative_prompt": "lowres"},
            "arms.arm.attention.layers: the network has no transformer block under 'mid_block'",
        ),
        (("sd3",), {"embedded_guidance": 2.0}, "arms.arm.embedded_guidance is 2, and sd3 (sd3) reads no guidance"),
        (("flux_schnell",), {"embedded_guidance": 2.0}, "reads no guidance scale"),
        (("sd3",), {"text": {"t5_length": 8}}, "tokens of T5, end mark included, and text.t5_length is 8"),
        (("flux",), {"text": {"chunks": 2}}, "text.chunks is 2; flux (flux) reads the tokens of T5 alone"),
        (("flux",), {"text": {"clip_skip": 1}}, "text.clip_skip is 1; flux (flux) reads the tokens of T5 alone"),
        (
            ("flux",),
            {"text": {"syntax": "a1111"}, "method": "negative", "scale": 2.0, "negative_prompt": "a (hat:1.3)"},
            "text negative gives 'hat' the weight 1.3",
        ),
        (("sd3",), {"model": {"loading": {"attention_slicing": True}}}, "attention_slicing is for UNets"),
        (("lumina2", "z_image"), {"method": "autoguidance", "scale": 2.0}, "the guide z_image does not fit: "),
        (("lumina2", "sd3"), {"method": "autoguidance", "scale": 2.0}, "the guide sd3 does not fit: "),
        (("lumina2",), {"canvas": {"width": 34, "height": 32}}, "must be multiples of 4"),
        (("z_image",), {"canvas": {"width": 80, "height": 32}}, "positions for sides of up to 64 pixels"),
        (("lumina2",), {"method": "seg", "scale": 2.0}, "the network has no transformer block under 'mid_block'"),
        (
            ("z_image",),
            {"method": "skip_layers", "scale": 2.0, "perturb": {"layers": ["context_refiner.0"]}},
            "no transformer block under 'context_refiner.0'; its blocks are noise_refiner.0, layers.0, layers.1",
        ),
        (
            ("lumina2",),
            {"attention": {"name": "nag", "layers": ["noise_refiner"]}, "negative_prompt": "lowres"},
            "blocks under noise_refiner read no text; take some of layers.0, layers.1",
        ),
        (
            ("z_image",),
            {"method": "mix", "scale": 2.0, "terms": [{"reference": "less"}], "texts": {"less": {"degraded": 0.5}}},
            "arms.arm.texts.less degrades tokens to the empty text's at their places",
        ),
        (("z_image",), {"embedded_guidance": 2.0}, "z_image (z_image) reads no guidance"),
        (("z_image",), {"built_in_post": False}, "has no post-process built in; leave it out"),
        (("lumina2",), {"text": {"t5_length": 64}}, "text.t5_length is for families that read T5"),
        (("lumina2",), {"text": {"chunks": 2}}, "text.chunks is 2; lumina2 (lumina2) reads the tokens of Gemma 2"),
        (("z_image",), {"text": {"clip_skip": 1}}, "text.clip_skip is 1; z_image (z_image) reads the tokens of Qwen3"),
        (
            ("z_image",),
            {"text": {"syntax": "a1111"}, "method": "negative", "scale": 2.0, "negative_prompt": "a (hat:1.3)"},
            "text negative gives 'hat' the weight 1.3; z_image (z_image) reads the tokens of Qwen3, which kn",
        ),
        (
            ("lumina2",),
            {"method": "negative", "scale": 2.0, "negative_prompt": "worst quality, " * 200},
            "text negative 'worst quality, worst quality, worst quality, worst quality, ...' has ",
        ),
    ],
)  # fmt: skip
def test_what_a_family_does_not_take_is_refused_by_name(
    flows: Flows, names: tuple[str, ...], more: dict[str, Any], said: str
) -> None:
    assert said in flows.refused(*names, **more)


def test_weights_of_words_act_on_the_clips_of_sd3_alone(flows: Flows) -> None:
    encoder = locate(str(flows.copy("sd3"))).family.load_texts(
        locate("sd3"), CPU, flows.study("sd3", text={"syntax": "a1111"}).text
    )
    plain, weighted = (encoder.encode([text])["tokens"][0] for text in ("a hat", "a (hat:1.4)"))
    clip = len(plain) - LENGTH
    assert not torch.equal(plain[:clip], weighted[:clip])
    assert torch.equal(plain[clip:], weighted[clip:])


def test_long_texts_take_more_chunks_of_sd3s_clips(flows: Flows) -> None:
    folder = flows.copy("sd3")
    edit(folder / "tokenizer/tokenizer_config.json", model_max_length=10)
    edit(folder / "tokenizer_2/tokenizer_config.json", model_max_length=10)
    encoder = locate("sd3").family.load_texts(locate("sd3"), CPU, flows.study("sd3").text)
    short, long = (encoder.encode([text])["tokens"] for text in ("hat", "1person, blue hair, smile, hat"))
    assert short.shape[1] == 10 + LENGTH
    assert long.shape[1] > short.shape[1]
    assert (long.shape[1] - LENGTH) % 10 == 0


@pytest.mark.parametrize("name", ["chroma", "qwen_image"])
def test_an_offloaded_network_predicts_the_same(flows: Flows, name: str) -> None:
    plain = flows.draw(name)
    assert far(plain, flows.draw(name, model={"loading": {"offload": True}})) <= 1


def test_a_tokenizer_that_cuts_the_template_in_another_way_is_refused(flows: Flows) -> None:
    qwen_vl_tokenizer(300).save_pretrained(flows.copy("qwen_image") / "tokenizer")
    said = flows.refused("qwen_image")
    assert re.fullmatch(r"qwen_image/tokenizer makes \d+ tokens of what Qwen2.5-VL is told before .*first 34; .*", said)


def test_an_arm_that_leaves_out_the_norm_of_qwen_image_is_another_arm(flows: Flows) -> None:
    as_the_pipeline = flows.draw("qwen_image", method="cfg", scale=4.0)
    without = flows.draw("qwen_image", method="cfg", scale=4.0, built_in_post=False)
    assert far(as_the_pipeline, without) > 1
    plans = [
        common_inputs(flows.study("qwen_image", method="cfg", scale=4.0, **own), "arm", "cpu")
        for own in ({}, {"built_in_post": False})
    ]
    assert plans[0]["arm"] != plans[1]["arm"]


@pytest.mark.parametrize("name", FLOWS)
def test_weights_in_pieces_are_read(flows: Flows, name: str) -> None:
    folder = flows.copy(name)
    whole = flows.draw(name)
    transformer = FAMILIES[name].model_class.from_pretrained(folder / "transformer")
    (folder / "transformer/diffusion_pytorch_model.safetensors").unlink()
    transformer.save_pretrained(folder / "transformer", max_shard_size="100KB")
    assert len(weight_paths(folder, "transformer")) > 1
    assert far(whole, flows.draw(name)) <= 1


def test_an_index_of_a_family_that_is_not_supported_is_named(flows: Flows) -> None:
    folder = flows.copy("flux")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "SanaPipeline"}))
    assert "flux is SANA (SanaPipeline), which is not supported" in flows.refused("flux")


def test_sd3_in_one_file_is_the_same_checkpoint(flows: Flows) -> None:
    folder = flows.copy("sd3")
    # What such files leave out of the first CLIP: a projection that is none.
    first = load_file(folder / "text_encoder/model.safetensors")
    first["text_projection.weight"] = torch.eye(len(first["text_projection.weight"]))
    save_file(first, folder / "text_encoder/model.safetensors", {"format": "pt"})
    whole = flows.draw("sd3", method="cfg", scale=3.0)
    save_sd3_single_file(folder, Path("one.safetensors"))
    config = Path(shutil.copytree(folder, "config", ignore=shutil.ignore_patterns("*.safetensors")))
    model = {"main": "one.safetensors", "guide": "one.safetensors", "config": str(config)}
    assert far(whole, flows.draw("sd3", model=model, method="cfg", scale=3.0)) <= 1
    Path("part.safetensors").write_bytes(Path("sd3/transformer/diffusion_pytorch_model.safetensors").read_bytes())
    said = flows.refused("sd3", model=model | {"main": "part.safetensors"})
    assert said.startswith("model.main part.safetensors holds a transformer alone; name a whole checkpoint")


ALL_PARTS = ["text_encoders", "main", "guide", "vae"]


@pytest.mark.parametrize("name", ["sd3", "flux2", "qwen_image"])
def test_parts_that_stay_on_the_cpu_until_they_are_needed_generate_the_same(
    flows: Flows, cache: Path, name: str
) -> None:
    """A study of another loading encodes the texts again: its cache is its own."""
    arm = {"method": "autoguidance", "scale": 2.0}
    plain = flows.draw(name, f"{name}_guide", **arm)
    shutil.rmtree(cache)
    offloaded = flows.draw(name, f"{name}_guide", model={"loading": {"offload": ALL_PARTS}}, **arm)
    assert far(plain, offloaded) == 0
    assert offloaded.cost.flops == plain.cost.flops


def test_each_part_that_is_offloaded_takes_less_of_the_estimated_memory(flows: Flows) -> None:
    def memory(*offload: str) -> int:
        arm = {"method": "autoguidance", "scale": 2.0, "prompt": "empty", "model": {"loading": {"offload": offload}}}
        return estimated(flows.study("flux", "flux_guide", **arm)).memory

    whole, networks = memory(), {"flux": "main", "flux_guide": "guide"}
    for folder, part in networks.items():
        every, largest = parameters_of(FAMILIES["flux"].model_class.from_pretrained(f"{folder}/transformer"))
        assert whole - memory(part) == 4 * (every - largest)
    assert memory(*ALL_PARTS) <= memory("main", "guide") < whole


def test_text_encoders_that_are_kept_count_beside_the_network(
    params: dict[str, Any], pipelines_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pipelines_folder)
    params |= {"arms": {"arm": {"method": "cfg", "scale": 3.0}}, "baseline": "arm"}
    params["sampler"] = {"scheduler": "ddim", "steps": 3}

    def memory(*offload: str) -> int:
        params["model"] = {"name": "small", "main": "sd", "guide": "sd", "loading": {"offload": offload}}
        return estimated(parse_study(params, "test")).memory

    every, largest = parameters_of(CLIPTextModel.from_pretrained("sd/text_encoder"))
    assert memory() - memory("text_encoders") == 4 * (every - largest) > 0


def transformer_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "transformer/diffusion_pytorch_model.safetensors")


def beside(folder: Path) -> dict[str, str]:
    """A study's keys for one.safetensors with everything but the transformer's weights of a folder."""
    (folder / "transformer/diffusion_pytorch_model.safetensors").unlink()
    return {"main": "one.safetensors", "guide": "one.safetensors", "config": str(folder)}


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("flux2_klein", original_flux2_transformer),
        *((name, transformer_of) for name in ("flux", "chroma", "qwen_image", "lumina2", "z_image")),
    ],
)
def test_a_transformer_in_one_file_is_read_with_the_other_parts_of_its_folder(
    flows: Flows, name: str, written: Callable[[Path], dict[str, torch.Tensor]]
) -> None:
    whole = flows.draw(name)
    folder = Path(name)
    save_file({key: weight.contiguous() for key, weight in written(folder).items()}, "one.safetensors")
    assert far(whole, flows.draw(name, model=beside(folder))) <= 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda tensors: tensors.pop("double_blocks.0.img_mlp.2.weight"),
            "model.main one.safetensors lacks 1 weight (transformer_blocks.0.ff.linear_out.weight) of the 33 of the "
            "transformer that flux2_klein describes; set model.config to a folder with its own configuration, or down",
        ),
        (
            lambda tensors: tensors.update({"guidance_in.in_layer.weight": torch.ones(32, 32)}),
            "one.safetensors contradicts flux2_klein: it holds 1 weight (time_guidance_embed.guidance_embedder.line",
        ),
        (
            lambda tensors: tensors.update({"img_in.weight": torch.ones(32, 32)}),
            "contradicts flux2_klein: x_embedder.weight is 32x32, the configuration describes 32x64",
        ),
        (lambda tensors: tensors.clear() or tensors.update(x=torch.ones(1)), "holds no transformer of family flux2_kl"),
    ],
)
def test_a_transformer_in_one_file_that_does_not_fit_its_configuration_is_refused(
    flows: Flows, change: Callable[[dict[str, torch.Tensor]], object], said: str
) -> None:
    folder = flows.copy("flux2_klein")
    tensors = original_flux2_transformer(folder)
    change(tensors)
    save_file({key: weight.contiguous() for key, weight in tensors.items()}, "one.safetensors")
    assert said in flows.refused("flux2_klein", model=beside(folder))


def test_a_transformer_in_one_file_needs_a_folder_of_its_family_with_the_other_parts(flows: Flows) -> None:
    folder = flows.copy("flux2_klein")
    tensors = original_flux2_transformer(folder)
    save_file({key: weight.contiguous() for key, weight in tensors.items()}, "one.safetensors")
    model = {"main": "one.safetensors", "guide": "one.safetensors"}
    said = "one.safetensors is FLUX.2 in one file, which holds a transformer alone{}; set model.config to a folder or"
    assert said.format("") in flows.refused("flux2_klein", model=model)
    flows.copy("sd3")
    other = flows.refused("flux2_klein", model=model | {"config": "sd3"})
    assert said.format(", and model.config is of family sd3") in other
    shutil.rmtree(folder / "text_encoder")
    assert "flux2_klein/text_encoder/config.json is missing" in flows.refused("flux2_klein", model=beside(folder))


@pytest.mark.parametrize("name", WITH_FLUX2)
def test_preflight_estimates_what_a_study_takes(flows: Flows, name: str) -> None:
    # Language models read a text as it is: one that all images share.
    arm = {"method": "autoguidance", "scale": 2.0, "prompt": "empty"}
    study = flows.study(name, f"{name}_guide", **arm)
    many = study.generate.model_copy(update={"images": 10**11})
    study = study.model_copy(update={"generate": many})
    said = study_estimate(study)
    assert re.fullmatch(
        r"this study: 1 arm x 100,000,000,000 images, about [\d.]+ (h|min) on one H100 at 40 % of its peak, 0 GB "
        r"\(arithmetic, not a measurement\)",
        said,
    )
    # What one image costs is counted when it is generated; that times images is what was said.
    cost = flows.draw(name, f"{name}_guide", seeds=[3], texts={"prompt": [""]}, **arm).cost
    hours, unit = re.search(r"about ([\d.]+) (h|min)", said).groups()
    foreseen = float(hours) * (3600 if unit == "h" else 60) * H100
    assert foreseen == pytest.approx(cost.flops * 10**11, rel=0.05)


@pytest.mark.parametrize("name", ["lumina2", "z_image"])
def test_the_post_process_of_a_pipeline_is_built_in_and_can_be_left_out(flows: Flows, name: str) -> None:
    guided = flows.draw(name, method="cfg", scale=4.0)
    explicit = flows.draw(name, method="cfg", scale=4.0, post={"name": "renorm", "per": "row"})
    assert (far(guided, explicit) == 0) == bool(FAMILIES[name].post)
    if FAMILIES[name].post:
        assert far(guided, flows.draw(name, method="cfg", scale=4.0, built_in_post=False)) > 1
        assert far(flows.draw(name), flows.draw(name, built_in_post=False)) == 0
