"""The embedded networks' second family: transformers that predict a velocity on pixels."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from safetensors.torch import load, save
from transformers import CLIPTextModel, CLIPTokenizer

from pipeline.compatibility.networks import check_networks
from pipeline.errors import InputError
from pipeline.generation.arm_generator import ArmGenerator
from pipeline.guidance.algebra import Perturbation
from pipeline.networks.checkpoints import check_fit, locate
from pipeline.networks.denoisers.joint_transformer import load_network
from pipeline.networks.families import PIXEL, PIXEL_FLOW
from pipeline.networks.noise_path import RECTIFIED_FLOW
from pipeline.networks.text.conditioning import Conditioning
from pipeline.networks.text.text_encoder import load_text_encoder
from pipeline.networks.weights.weight_files import network_digest
from pipeline.preflight import check_arms
from pipeline.sampling.starts import initial_noise
from pipeline.study.loading import Loading
from pipeline.study.sampler import Canvas
from pipeline.study.study import Study, parse_study

CPU = torch.device("cpu")
WIDTH, SIDE, STEPS = 32, 16, 4


def transformer(layers: int, seed: int) -> SD3Transformer2DModel:
    torch.manual_seed(seed)
    return SD3Transformer2DModel(
        sample_size=SIDE,
        patch_size=4,
        in_channels=3,
        out_channels=3,
        num_layers=layers,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=WIDTH,
        pos_embed_max_size=SIDE // 4,
        qk_norm="rms_norm",
    )


@pytest.fixture
def flow(networks_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with `main` and a smaller `guide` of random weights."""
    monkeypatch.chdir(tmp_path)
    for name, layers in (("main", 2), ("guide", 1)):
        transformer(layers, layers).save_pretrained(Path(name) / "transformer")
        FlowMatchEulerDiscreteScheduler(shift=1.0).save_pretrained(Path(name) / "scheduler")
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(networks_folder / "main" / part, Path("main") / part)
    return tmp_path


def study_of(params: dict[str, Any], **arm: Any) -> Study:
    params["model"] = {"name": "small", "main": "main", "guide": "guide"}
    params["arms"] = {"arm": {"method": "unguided", "scale": 1.0} | arm}
    params["baseline"], params["sampler"] = "arm", {"scheduler": "euler", "steps": STEPS}
    return parse_study(params, "test")


def test_a_folder_with_a_transformer_of_pixels_is_of_the_family(flow: Path, networks_folder: Path) -> None:
    found = locate("main")
    assert found.family is PIXEL_FLOW
    assert locate(str(networks_folder / "main")).family is PIXEL
    assert (found.factor, found.canvas) == (1, (SIDE, SIDE))
    network = load_network(Path("main"), CPU)
    assert network.path is RECTIFIED_FLOW
    assert network.prediction_type == "flow_prediction"
    assert network.sample_shape == network.shape_of(None) == (3, SIDE, SIDE)
    assert not [p for p in network.module.parameters() if p.requires_grad]
    check_fit(network, load_network(Path("guide"), CPU))
    assert network_digest(found, with_text_encoder=True) != network_digest(locate("guide"), with_text_encoder=False)


def test_texts_are_read_at_their_end_without_a_projection(flow: Path) -> None:
    encoder = load_text_encoder(Path("main"), CPU)
    texts = ["1person, blue hair", ""]
    told = encoder.encode(texts)
    tokenizer = CLIPTokenizer.from_pretrained("main/tokenizer")
    model = CLIPTextModel.from_pretrained("main/text_encoder").eval()
    ids = tokenizer(texts, padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt").input_ids
    with torch.inference_mode():
        hidden = model(ids).last_hidden_state
    end = (ids == tokenizer.eos_token_id).int().argmax(1)
    torch.testing.assert_close(told["tokens"], hidden)
    torch.testing.assert_close(told["pooled"], hidden[torch.arange(2), end])


@pytest.mark.parametrize(
    ("arm", "references"),
    [
        ({}, {}),
        ({"method": "cfg", "scale": 3.0}, {"empty": 2.0}),
        ({"method": "negative", "scale": 1.5, "negative_prompt": "blurry"}, {"negative": 0.5}),
        ({"method": "autoguidance", "scale": 2.0}, {"guide": 1.0}),
    ],
)
def test_images_are_those_of_eulers_steps_by_hand(
    flow: Path, params: dict[str, Any], arm: dict[str, Any], references: dict[str, float]
) -> None:
    generator = ArmGenerator(study_of(params, **arm), "arm", CPU)
    prompts, seeds = ["1person, blue hair", "pattern"], [5, 6]
    texts = {"prompt": prompts, "empty": ["", ""], "negative": ["blurry", "blurry"]}
    drawn = generator.draw({name: texts[name] for name in ("prompt", *(n for n in references if n in texts))}, seeds)

    encoder = load_text_encoder(Path("main"), CPU)
    networks = {name: SD3Transformer2DModel.from_pretrained(f"{name}/transformer").eval() for name in ("main", "guide")}
    x, _ = initial_noise(seeds, (3, SIDE, SIDE))

    @torch.inference_mode()
    def predict(name: str, text: str, t: float) -> torch.Tensor:
        told = encoder.encode(texts[text])
        return networks[name](x, told["tokens"], told["pooled"], torch.full((2,), 1000 * t)).sample

    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(STEPS)
    levels = scheduler.sigmas.tolist()
    for t, then in pairwise(levels):
        velocity = predict("main", "prompt", t)
        guided = velocity.clone()
        for reference, share in references.items():
            other = predict("guide", "prompt", t) if reference == "guide" else predict("main", reference, t)
            guided += share * (velocity - other)
        x = x + (then - t) * guided
    expected = ((x.clamp(-1, 1) + 1) * 127.5).round()
    found = torch.stack([_pixels(image) for image in drawn.images])
    assert (found - expected).abs().max() <= 1
    assert (found != expected).float().mean() < 0.01
    assert found.std() > 5


def _pixels(image: Any) -> torch.Tensor:
    import numpy as np

    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def test_images_become_samples_and_back(flow: Path) -> None:
    network = load_network(Path("main"), CPU)
    images = torch.randint(256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    assert torch.equal(network.to_images(network.to_samples(images)), images)


def test_only_canvases_of_whole_patches_on_the_grid_are_taken(flow: Path) -> None:
    network = load_network(Path("main"), CPU)
    assert network.shape_of(Canvas(width=8, height=16)) == (3, 16, 8)
    for width in (24, 10):
        with pytest.raises(InputError, match=f"canvas {width}x8 does not fit .*main; take multiples of 4 up to 16"):
            network.shape_of(Canvas.model_construct(width=width, height=8))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"method": "pag", "scale": 2.0},
            "no transformer block under 'mid_block'; its blocks are transformer_blocks.0, tran",
        ),
        ({"method": "skip_layers", "scale": 2.0}, "arms.arm.perturb.layers: the network has no transformer block"),
        (
            {"attention": {"name": "nag", "layers": ["mid_block"]}, "negative_prompt": "lowres"},
            "arms.arm.attention.layers: the network has no transformer block",
        ),
    ],
)
def test_layers_of_unets_are_refused_before_anything_is_loaded(
    flow: Path, params: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        check_arms(study_of(params, **change))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"vae": "vae"}, "model.vae is for UNets"),
        ({"loading": {"attention_slicing": True}}, "model.loading.attention_slicing is for UNets"),
    ],
)
def test_settings_that_know_unets_alone_are_refused(
    flow: Path, params: dict[str, Any], model: dict[str, Any], said: str
) -> None:
    study_of(params)
    params["model"] |= model
    with pytest.raises(InputError, match=said):
        check_arms(parse_study(params, "test"))


def test_the_loader_refuses_what_preflight_would_have(flow: Path) -> None:
    for more in ({"vae": locate("main")},
                 {"loading": Loading(attention_slicing=True)}):  # fmt: skip
        with pytest.raises(InputError, match=r"transformer|autoencoder"):
            load_network(Path("main"), CPU, **more)
    network = load_network(Path("main"), CPU)
    nothing = Conditioning({"tokens": torch.zeros(1, 4, WIDTH), "pooled": torch.zeros(1, WIDTH)})
    with pytest.raises(InputError, match="the network has no transformer block under 'blocks'"):
        network(torch.zeros(1, 3, SIDE, SIDE), 1.0, nothing, damage=Perturbation("pag", ("blocks",)))


def test_solvers_of_the_other_path_and_foreign_levels_are_refused(flow: Path, params: dict[str, Any]) -> None:
    study = study_of(params)
    for change, said in (({"scheduler": "ddim"}, "does not step along rectified_flow"),
                         ({"levels": "karras"}, "levels are native")):  # fmt: skip
        sampler = study.sampler.model_copy(update=change)
        with pytest.raises(InputError, match=said):
            check_arms(study.model_copy(update={"sampler": sampler}))


@pytest.mark.parametrize("change", [{"_class_name": "DDPMScheduler"}, {"_class_name": None}])
def test_a_schedule_of_another_path_is_refused(flow: Path, params: dict[str, Any], change: dict[str, Any]) -> None:
    file = Path("main/scheduler/scheduler_config.json")
    content = {key: value for key, value in (json.loads(file.read_text()) | change).items() if value is not None}
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"take a checkpoint with one of FlowMatchEulerDiscreteScheduler$"):
        check_networks(study_of(params), ["arm"])


def test_damaged_and_incomplete_weights_are_named(flow: Path) -> None:
    weights = Path("main/transformer/diffusion_pytorch_model.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"diffusion_pytorch_model\.safetensors cannot be loaded"):
        load_network(Path("main"), CPU)
    weights.unlink()
    with pytest.raises(InputError, match=r"main/transformer/diffusion_pytorch_model\.safetensors are missing"):
        load_network(Path("main"), CPU)
    tensors = load(whole)
    weights.write_bytes(save({name: tensor for name, tensor in tensors.items() if name != "proj_out.bias"}))
    with pytest.raises(InputError, match=r"lacks .* of the .* weights of SD3Transformer2DModel"):
        load_network(Path("main"), CPU)
