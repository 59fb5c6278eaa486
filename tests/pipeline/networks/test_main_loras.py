"""LoRAs of the main network: several at weights of their own, on network and text encoders, from model.loras and from
prompts; refused by name where they do not fit."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from pipeline.compatibility.loras import lora_changes
from pipeline.errors import InputError
from pipeline.generation.loaded_model import LoadedModel
from pipeline.generation.shard_plan import arm_texts, plan_arm
from pipeline.preflight import check_arms
from pipeline.study.study import parse_study

CPU = torch.device("cpu")
KINDS = {"sd": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
PROMPT = "1person, blue hair, smile"
# A LoRA of network and text encoders, and one of the network alone.
WEIGHTS = {"style": {"unet": 0.8, "text_encoder": 0.5, "text_encoder_2": 0.5}, "detail": {"unet": -0.6}}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, pipelines_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("networks").symlink_to(pipelines_folder)
    for folder in ("loras", "prompts"):
        Path(folder).mkdir()


def saved(pipeline, name: str, layout: str, with_texts: bool, seed: int) -> None:
    """Adapters of PEFT with random matrices on a pipeline, saved as diffusers does or under Kohya's names."""
    random = torch.Generator().manual_seed(seed)
    layers: dict[str, dict[str, torch.Tensor]] = {}
    parts = {"unet": ["to_q", "to_out.0", "conv1"]}
    if with_texts:
        parts |= {
            part: ["q_proj", "out_proj", "fc1"]
            for part in ("text_encoder", "text_encoder_2")
            if hasattr(pipeline, part)
        }
    alphas = {}
    for part, targets in parts.items():
        network = getattr(pipeline, part)
        config = LoraConfig(r=2, lora_alpha=3, init_lora_weights=False, target_modules=targets)
        network.add_adapter(config, name)
        state = get_peft_model_state_dict(network, adapter_name=name)
        layers[part] = {key: 0.3 * torch.randn(value.shape, generator=random) for key, value in state.items()}
        alphas[part] = config
    file = Path("loras", f"{name}.safetensors")
    if layout == "kohya":
        begin = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
        if not hasattr(pipeline, "text_encoder_2"):
            begin["text_encoder"] = "lora_te_"
        tensors = {}
        for part, own in layers.items():
            for key, value in own.items():
                module, _, role = key.removesuffix(".weight").rpartition(".")
                if part != "unet" and not module.startswith("text_model."):  # as before transformers 5
                    module = f"text_model.{module}"
                stem = begin[part] + module.replace(".", "_")
                tensors[f"{stem}.{ {'lora_A': 'lora_down', 'lora_B': 'lora_up'}[role] }.weight"] = value
                tensors[f"{stem}.alpha"] = torch.tensor(3.0)
        save_file(tensors, file)
        return
    type(pipeline).save_lora_weights(
        "loras",
        weight_name=file.name,
        **{f"{part}_lora_layers": own for part, own in layers.items()},
        **{f"{part}_lora_adapter_metadata": config.to_dict() for part, config in alphas.items()},
    )


def fresh(kind: str):
    pipeline = KINDS[kind].from_pretrained(Path("networks") / kind, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def study_of(params, kind="sd", prompts=(PROMPT,), **model):
    Path("prompts/own.txt").write_text("\n".join(prompts))
    params["prompts"] = {"source": "file", "path": "prompts/own.txt"}
    main = f"networks/{kind}"
    params["model"] = {"name": "random", "main": main, "guide": main, **model}
    params["arms"] = {"auto": {"method": "autoguidance", "scale": 1.5}, "cfg": {"method": "cfg", "scale": 3.0}}
    params["baseline"] = "cfg"
    return parse_study(params, "test")


@pytest.mark.parametrize(
    ("kind", "layout", "asked"),
    [
        ("sd", "diffusers", "model.loras"),
        ("sd", "kohya", "prompts"),
        ("sdxl", "diffusers", "prompts"),
        ("sdxl", "kohya", "model.loras"),
    ],
)
def test_images_are_those_of_load_lora_weights_and_set_adapters(kind, layout, asked, params):
    for seed, name in enumerate(WEIGHTS):
        saved(fresh(kind), name, layout, with_texts=name == "style", seed=seed)
    theirs = fresh(kind)
    for name in WEIGHTS:
        theirs.load_lora_weights("loras", weight_name=f"{name}.safetensors", adapter_name=name)
    theirs.set_adapters(list(WEIGHTS), [WEIGHTS[name] for name in WEIGHTS])
    if asked == "prompts":
        study = study_of(params, kind, [f"{PROMPT} <lora:style:0.5:0.8> <lora:Detail:-0.6>"])
        assert arm_texts(study, "cfg")["prompt"][0] == PROMPT
    else:
        loras = [
            {"file": "loras/style.safetensors", "weight": 0.8, "text_weight": 0.5},
            {"file": "loras/detail.safetensors", "weight": -0.6},
        ]
        study = study_of(params, kind, loras=loras)
    check_arms(study)
    model, plain = LoadedModel(study, CPU), fresh(kind)

    def images(pipeline, **told):
        return pipeline(
            **told, num_inference_steps=2, guidance_scale=4.0, output_type="pt", generator=torch.manual_seed(0)
        ).images

    encoded = model.encode({"prompt": [PROMPT], "negative": ["lowres"]})
    given = {"prompt_embeds": encoded["prompt"]["tokens"], "negative_prompt_embeds": encoded["negative"]["tokens"]}
    if kind == "sdxl":
        given |= {"pooled_prompt_embeds": encoded["prompt"]["pooled"]}
        given |= {"negative_pooled_prompt_embeds": encoded["negative"]["pooled"]}
    without = images(plain, prompt=PROMPT, negative_prompt="lowres")
    plain.unet = model.main.unet
    expected = images(theirs, prompt=PROMPT, negative_prompt="lowres")
    torch.testing.assert_close(images(plain, **given), expected, atol=1e-4, rtol=1e-4)
    assert float((without - expected).abs().max()) > 1e-2


def weights_of(network) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in network.unet.named_parameters()}


def test_a_guide_from_the_same_place_is_the_base_or_has_the_loras_too(params):
    saved(fresh("sd"), "style", "diffusers", with_texts=False, seed=0)
    loras = [{"file": "loras/style.safetensors"}]
    base = LoadedModel(study_of(params, loras=loras), CPU)
    other = LoadedModel(study_of(params, loras=loras, loras_in_guide=True), CPU)
    plain = fresh("sd").unet.state_dict()
    main = weights_of(base.main)
    assert all(torch.equal(weight, plain[name]) for name, weight in weights_of(base.guide).items())
    assert all(torch.equal(weight, main[name]) for name, weight in weights_of(other.guide).items())
    assert any(not torch.equal(weight, plain[name]) for name, weight in main.items())
    plans = [
        plan_arm(study, arm, arm_texts(study, arm), "cpu").shards[0].fingerprint
        for study in (base.study, other.study)
        for arm in ("cfg", "auto")
    ]
    assert plans[0] == plans[2]
    assert plans[1] != plans[3]


def test_a_guide_is_weakened_after_it_has_its_loras(params):
    saved(fresh("sd"), "style", "diffusers", with_texts=False, seed=0)
    model = {"loras": [{"file": "loras/style.safetensors"}], "loras_in_guide": True}
    how = {"name": "weight_noise", "strength": 0.1}
    weakened = weights_of(LoadedModel(study_of(params, weaken=how, **model), CPU).guide)
    with_loras = weights_of(LoadedModel(study_of(params, **model), CPU).main)
    share = {
        name: float((weakened[name] - weight).std() / weight.std())
        for name, weight in with_loras.items()
        if weight.numel() > 500
    }
    assert all(0.08 < value < 0.12 for value in share.values())


def test_text_layers_and_file_are_said_and_are_in_the_fingerprint(params):
    saved(fresh("sdxl"), "style", "kohya", with_texts=True, seed=0)

    def planned(study):
        return plan_arm(study, "cfg", arm_texts(study, "cfg"), "cpu")

    study = study_of(params, "sdxl", [f"{PROMPT}, <lora:style:0.5>"])
    (said,) = lora_changes(study)
    assert said.startswith(
        "prompts: <lora:style:0.5> loras/style.safetensors changes layers of the main network's UNet: "
    )
    assert said.endswith(", of its text encoders: 12 and 12")
    texts = arm_texts(study, "cfg")
    plans = [planned(study)]
    doubled = {key: 2 * value for key, value in load_file("loras/style.safetensors").items()}
    save_file(doubled, "loras/style.safetensors")
    plans.append(planned(study))
    for prompt in (f"{PROMPT}, <lora:style:0.6>", f"{PROMPT},"):
        plans.append(planned(study_of(params, "sdxl", [prompt])))
    assert len({plan.shards[0].fingerprint for plan in plans}) == 4
    assert set(plans[0].inputs) - set(plans[3].inputs) == {"networks.main_loras", "prompts.loras"}
    assert texts == arm_texts(study, "cfg")  # of the last file, in which no LoRA is asked for


REFUSED = {
    "of another per prompt": (
        {"prompts": ["a <lora:style:1>", "b"]},
        "prompts: 'b' asks for no LoRA and 'a <lora:style:1>' for <lora:style:1>; a LoRA holds for all images of a "
        "study: write the same into every prompt, or name them in model.loras",
    ),
    "of another weight per prompt": (
        {"prompts": ["a <lora:style:1>", "b <lora:style:0.5>"]},
        "prompts: 'b <lora:style:0.5>' asks for <lora:style:0.5> and",
    ),
    "without a file": (
        {"prompts": ["a <lora:styles:1>"]},
        "prompts: <lora:styles:1> names no file; put loras/styles.safetensors there; did you mean style?",
    ),
    "pickled": (
        {"prompts": ["a <lora:old:1>"]},
        "prompts: <lora:old:1> names loras/old.pt, a pickle, which can run code when it is read; convert it to "
        "loras/old.safetensors",
    ),
    "of another width than the guide's": (
        {"loras": [{"file": "loras/style.safetensors"}], "loras_in_guide": True, "guide": "networks/sd_guide"},
        "model.loras_in_guide: model.loras.0.file loras/style.safetensors: lora_unet_",
    ),
    "twice": (
        {"prompts": ["a <lora:style:1>"], "loras": [{"file": "loras/style.safetensors"}]},
        "prompts: <lora:style:1> loras/style.safetensors is model.loras.0.file as well; name it once, with the sum",
    ),
    "missing in model.loras": (
        {"loras": [{"file": "loras/none.safetensors"}]},
        "model.loras.0.file loras/none.safetensors does not exist",
    ),
    "not a number": (
        {"prompts": ["a <lora:style:high>"]},
        "prompts/own.txt:1: '<lora:style:high>' is not a LoRA; write <lora:name:0.8>, or <lora:name:0.5:0.8> for",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_lora_that_cannot_be_added_is_refused_by_name(what, params):
    saved(fresh("sd"), "style", "kohya", with_texts=True, seed=0)
    Path("loras/old.pt").write_bytes(b"pickle")
    given, said = REFUSED[what]
    with pytest.raises(InputError) as caught:
        check_arms(study_of(params, **given))
    assert str(caught.value).startswith(said)


def test_the_old_key_says_what_it_is_now(params):
    with pytest.raises(InputError, match=r"model\.lora is now model\.loras, a list: \[\{file: \.\.\., weight: 1\}\]"):
        study_of(params, lora={"file": "loras/style.safetensors"})


def test_a_lora_of_a_text_encoder_that_the_model_has_not_is_refused(params):
    saved(fresh("sdxl"), "style", "kohya", with_texts=True, seed=0)
    tensors = load_file("loras/style.safetensors")
    save_file({key: value for key, value in tensors.items() if "te2" in key}, "loras/style.safetensors")
    with pytest.raises(InputError, match="changes layers of a text encoder that this model does not have"):
        check_arms(study_of(params, prompts=["a <lora:style:1>"]))
    study = study_of(params, "sdxl", ["a <lora:style:1>"])
    check_arms(study)
    model = LoadedModel(study, CPU)
    assert all(torch.equal(own, weights_of(model.guide)[name]) for name, own in weights_of(model.main).items())
