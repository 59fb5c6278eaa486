"""Learned negatives: what is learned, that it can stop and go on, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from compositions import composed
from PIL import Image
from repository_copy import ROOT
from safetensors import safe_open

from pipeline.embeddings.flawed_images import BadImages, with_noise
from pipeline.embeddings.guide_directions import along_trajectories
from pipeline.embeddings.held_out import ceiling, on_held_out
from pipeline.embeddings.learn_negative import Recipe, Run, learn
from pipeline.embeddings.learned_vectors import LearnedVectors, starting_vectors
from pipeline.embeddings.learning import Learning
from pipeline.embeddings.noisy_images import NoisyImages
from pipeline.errors import InputError
from pipeline.generation.arm_generator import ArmGenerator
from pipeline.generation.loaded_model import LoadedModel
from pipeline.generation.shard_plan import arm_texts
from pipeline.networks.text.text_encoder import load_text_encoder
from pipeline.prompting.prompt_sets import FilePrompts
from pipeline.prompting.text_settings import TextSettings
from pipeline.storage.tensor_file import read_tensors
from pipeline.study.study import Study, parse_study

CPU = torch.device("cpu")
WORDS = "worst quality, lowres"
SMALL = Recipe(words=WORDS, tokens=3, rounds=2, images=2, batch=4, held_out=2)


@pytest.fixture
def made(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """The small study, and a separate folder to write embeddings into."""
    (tmp_path / "main").symlink_to(Path("main").resolve())
    (tmp_path / "guide").symlink_to(Path("guide").resolve())
    monkeypatch.chdir(tmp_path)
    return study.model_copy(update={"generate": study.generate.model_copy(update={"images": 10})})


def of(params: dict[str, Any], **model: Any) -> Study:
    return parse_study({**params, "model": {"name": "random", **model}}, "test")


@torch.no_grad()
def losses(run: Run, images: NoisyImages) -> float:
    rows = torch.arange(len(images))
    return float(images.losses(rows, images.predicted(run.main, rows, run.vectors.told(images.chunks))).mean())


@pytest.mark.parametrize("objective", ["guide", "flaws"])
def test_learning_lowers_the_loss_on_what_it_learns_from(made, objective, tmp_path):
    run = Run(made, replace(SMALL, objective=objective), CPU)
    images = run.round(0)
    before = losses(run, images)
    Learning(run.vectors, run.main, 8, 4, 0.05, 0, {}).run(lambda _: images, tmp_path / "run.state")
    assert losses(run, images) < before


def test_a_step_along_the_gradient_turns_the_direction_towards_the_guides(made):
    run = Run(made, SMALL, CPU)
    images = run.round(0)
    rows = torch.arange(len(images))

    def cosines() -> torch.Tensor:
        return images.measured(rows, images.predicted(run.main, rows, run.vectors.told(images.chunks))).mean()

    before = cosines()
    (gradient,) = torch.autograd.grad(before, [*run.vectors.vectors])
    assert gradient.norm() > 0
    with torch.no_grad():
        run.vectors.vectors[0].add_(gradient / gradient.norm(), alpha=1e-3)
    # As far as the gradient says, to first order.
    assert (cosines() - before).item() == pytest.approx(1e-3 * gradient.norm().item(), rel=0.1)


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd2"])
def test_predictions_with_gradients_are_the_networks_own(kind, params, pipelines_folder, monkeypatch):
    monkeypatch.chdir(pipelines_folder)
    model = LoadedModel(of(params, main=kind, guide=f"{kind}_guide").model_copy(update={"arms": {}}), CPU)
    images = along_trajectories(model, ["1person", "tree"], [1, 2])
    vectors = LearnedVectors(model.text_encoder, starting_vectors(model.text_encoder, WORDS, 4))
    told = vectors.told(images.chunks)
    rows = (images.levels == 1).nonzero().flatten()
    found = images.predicted(model.main, rows, told)
    both = told.__class__({name: own.detach().expand(2, *own.shape[1:]) for name, own in told.items()})
    theirs = model.main(images.x[rows], images.sigmas[1], both.adding(model.main.added_conditions(2, None)))
    torch.testing.assert_close(found, theirs, rtol=1e-4, atol=1e-5)
    gradients = torch.autograd.grad(found.square().sum(), [*vectors.vectors])
    assert all(gradient.norm() > 0 for gradient in gradients), "every text encoder learns"


def test_cosines_on_held_out_images_are_those_of_the_trace(made, params):
    arms = {"unguided": {"method": "unguided", "scale": 1.0, "probes": ["negative", "guide"], "negative_prompt": WORDS}}
    traced = parse_study({**params, "arms": arms, "model": made.model.model_dump(), "negative": WORDS}, "test")
    run = Run(traced, SMALL, CPU)
    images = along_trajectories(run.model, run.held_out, [0, 1])
    found = on_held_out(run.main, images, {"general": run.texts()["general"]}, batch=3)["general"]
    texts = {name: own[:2] for name, own in arm_texts(traced, "unguided").items()}
    traces = ArmGenerator(traced, "unguided", CPU).draw(texts, [0, 1]).traces
    cosines = torch.tensor([trace["cosines"] for trace in traces])[..., 0]  # [images, steps]
    assert found["levels"] == pytest.approx(cosines.mean(0).tolist(), abs=1e-4)
    assert found["mean"] == pytest.approx(cosines.mean().item(), abs=1e-4)


def test_a_resumed_run_learns_what_an_uninterrupted_one_does(made):
    whole = learn(made, "whole", SMALL, CPU)
    assert whole is not None
    assert learn(made, "parts", SMALL, CPU, until=1) is None
    assert Path("embeddings/.training/parts.state").exists()
    parts = learn(made, "parts", SMALL, CPU)
    assert parts is not None
    (ours, known), (theirs, _) = read_tensors(parts), read_tensors(whole)
    assert torch.equal(ours["emb_params"], theirs["emb_params"])
    assert len(known["losses"]) == SMALL.rounds
    assert not list(Path("embeddings/.training").iterdir()), "a finished run needs no checkpoint"


def test_the_file_says_to_the_network_what_was_learned(made, capsys):
    path = learn(made, "learned_text", SMALL, CPU)
    assert path is not None
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("embeddings/learned_text.safetensors: held-out cosine with the guide's direction ")
    run = Run(made, SMALL, CPU)
    with torch.no_grad():
        run.vectors.vectors[0].copy_(read_tensors(path)[0]["emb_params"])
    encoder = load_text_encoder(Path("main"), CPU, TextSettings(syntax="a1111"), embeddings={"learned_text": path})
    assert torch.equal(encoder.encode(["embedding:learned_text"])["tokens"], run.vectors.told()["tokens"].detach())
    with safe_open(path, "pt") as file:
        assert list(file.keys()) == ["emb_params"]
        assert tuple(file.get_tensor("emb_params").shape) == (3, 32)
    known = read_tensors(path)[1]
    measured = known["cosines"]
    assert set(measured) == {"learned", "empty", "short", "general"}
    assert all(len(own["levels"]) == len(known["sigmas"]) == 3 for own in measured.values())
    assert f"{measured['learned']['mean']:.3f}" in Path("embeddings/learned_text.md").read_text()


def test_bad_images_are_given_back_without_error_by_what_they_are(made):
    run = Run(made, replace(SMALL, objective="flaws"), CPU)
    noisy = with_noise(run.main, run.bad.kept_back(), made.sampler, seed=1)
    rows = torch.arange(len(noisy))
    assert noisy.measured(rows, noisy.right).max() == 0
    samples = run.bad.kept_back().repeat(len(noisy.sigmas), 1, 1, 1)
    assert torch.equal(noisy.right, samples), "the embedded networks predict x0"
    # x0 wrong by 1 everywhere costs SNR + 1, at most 5.
    costs = noisy.losses(rows, noisy.right + 1).view(len(noisy.sigmas), -1)[:, 0]
    assert costs.tolist() == pytest.approx([min(1 + sigma**-2, 5) for sigma in noisy.sigmas], rel=1e-4)


def test_a_fifth_of_a_folders_images_is_held_out(made):
    run = Run(made, SMALL, CPU)
    for k in range(10):
        Path("bad").mkdir(exist_ok=True)
        Image.new("RGB", (80, 64), (25 * k, 0, 0)).save(f"bad/{k}.png")
    bad = BadImages("bad", run.main, count=100, held_out=100)
    assert [len(bad.train), len(bad.held_out)] == [8, 2]
    assert not {image.getpixel((0, 0)) for image in bad.train} & {image.getpixel((0, 0)) for image in bad.held_out}
    assert bad.batch(3, 4).shape == (4, *run.main.sample_shape)


def test_a_text_for_every_sample_does_no_worse_than_one_for_all(made):
    run = Run(made, SMALL, CPU)
    images = run.round(0)
    told = run.vectors.told(images.chunks)
    one = on_held_out(run.main, images, {"learned": run.vectors.told}, batch=8)["learned"]["levels"]
    for level, best in ceiling(run.main, images, told, [0, 2], count=2, steps=5, rate=0.01).items():
        assert best > one[level]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokens": 0}, "tokens is 0; an embedding for these text encoders has 1 to 46"),
        ({"tokens": 47}, "tokens is 47; an embedding for these text encoders has 1 to 46"),
        ({"words": " "}, "words is ' ', which has no tokens to start from"),
        ({"objective": "flaws", "source": "nowhere"}, "--images-from nowhere is not a folder"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(made, change, said):
    with pytest.raises(InputError) as caught:
        learn(made, "new", replace(SMALL, **change), CPU)
    assert said in str(caught.value)
    assert not Path("embeddings").exists()


@pytest.mark.parametrize("key", ["rounds", "images", "batch", "held_out", "rate"])
def test_a_recipe_of_nothing_is_refused(key):
    with pytest.raises(InputError, match=f"{key} is 0"):
        replace(SMALL, **{key: 0})


def test_networks_that_learn_no_negative_are_refused(params, pipelines_folder, networks_folder, monkeypatch):
    monkeypatch.chdir(networks_folder.parent)
    sd, small, nothing = f"{pipelines_folder.name}/sd", f"{networks_folder.name}/guide", "nowhere"

    def refused(study: Study) -> str:
        with pytest.raises(InputError) as caught:
            learn(study, "new", SMALL, CPU)
        assert not list(Path("embeddings").rglob("new.*"))
        return str(caught.value)

    assert "is the main network itself, so no direction leads away from it" in refused(of(params, main=sd, guide=sd))
    assert f"the guide {small} does not fit: " in refused(of(params, main=sd, guide=small))
    assert "model folder nowhere is missing" in refused(of(params, main=sd, guide=nothing))
    monkeypatch.chdir(ROOT)
    flow = parse_study(composed("model=tinybooru_flow", "sampler=euler"), "test")
    assert "(pixel_flow) is not a UNet" in refused(flow)


def test_settings_that_keep_embeddings_from_being_read_or_learned_are_refused(made):
    plain = made.model_copy(update={"text": TextSettings(syntax="novelai")})
    with pytest.raises(InputError, match=r"text\.syntax is novelai, which calls no embeddings"):
        learn(plain, "new", SMALL, CPU)
    loading = made.model.loading.model_copy(update={"offload": ("main",)})
    moved = made.model_copy(update={"model": made.model.model_copy(update={"loading": loading})})
    with pytest.raises(InputError, match=r"model\.loading\.offload moves weights away"):
        learn(moved, "new", SMALL, CPU)


def test_a_checkpoint_that_is_damaged_or_of_another_run_is_refused(made):
    learn(made, "new", SMALL, CPU, until=1)
    checkpoint = Path("embeddings/.training/new.state")
    with pytest.raises(InputError, match=r"new\.state is of a run with another seed, tokens; delete it"):
        learn(made, "new", replace(SMALL, seed=1, tokens=2), CPU)
    content = bytearray(checkpoint.read_bytes())
    content[-1] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint embeddings/\.training/new\.state is damaged; delete it"):
        learn(made, "new", SMALL, CPU)
    assert not Path("embeddings/new.safetensors").exists()


def test_a_name_that_is_taken_is_refused_before_anything_is_learned(made):
    Path("embeddings").mkdir()
    Path("embeddings/New.safetensors").touch()
    with pytest.raises(InputError, match=r"embeddings/New\.safetensors is there already"):
        learn(made, "new", SMALL, CPU)


def test_prompts_of_the_study_are_not_learned_from(made):
    run = Run(made, SMALL, CPU)
    assert run.prompts
    assert not set(run.prompts) & set(run.held_out)
    Path("prompts").mkdir()
    Path("prompts/few.txt").write_text("1person\ntree\n")
    few = made.model_copy(update={"prompts": FilePrompts(source="file", path="prompts/few.txt")})
    with pytest.raises(InputError, match="prompts has 2 different prompts, which the 10 images of the study use up"):
        learn(few, "new", SMALL, CPU)
