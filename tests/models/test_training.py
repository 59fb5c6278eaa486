"""The training recipes: resumable to the last bit, damaged checkpoints refused, what is exported was trained."""

import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from repository_copy import ROOT
from torch.nn.functional import pixel_shuffle, pixel_unshuffle
from transformers import CLIPTextModel, CLIPTokenizer

from eval.scorers.malformed import ANSWERS
from models.tinybooru.checkpoint import load_checkpoint, save_checkpoint
from models.tinybooru.corpus import corpus_of, load_corpus
from models.tinybooru.networks.adapter import READING_STEPS, AdapterTraining, export_adapter
from models.tinybooru.networks.export import export_pair, export_reader
from models.tinybooru.networks.families import Side, alphas_on, network_loss, noise_levels
from models.tinybooru.networks.muon import orthogonalise
from models.tinybooru.networks.run import FLOW, FLOW_SMALL, FOCUS, LATE_FOCUS, TINY, UNET, UNET_SMALL, Run, SeedInputs
from models.tinybooru.networks.snapshots import load_network, load_texts
from models.tinybooru.networks.text_encoder import encode_text
from models.tinybooru.redrawn import Redrawing
from models.tinybooru.scorers import ClipTraining, ScorerRecipe, export_clip
from models.tinybooru.structure import NOT_ASKED, MalformedTraining
from models.tinybooru.tokenizer import CONTEXT_LENGTH, train_tokenizer
from models.tinybooru.world import draw_world, load_world
from pipeline.errors import InputError
from pipeline.generation.loaded_model import LoadedModel
from pipeline.networks.image_prompt import ImageReader
from pipeline.study.study import parse_study
from pipeline.tinybooru.build import build

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    build(folder, "train", 64, seed=0)
    return load_corpus(folder)


@pytest.fixture(scope="module")
def tokenizer(corpus):
    return train_tokenizer(corpus.captions())


@pytest.fixture(scope="module")
def world():
    return draw_world(80, 8)


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """A finished run of one tiny training seed."""
    run = a_run(world, tmp_path_factory.mktemp("runs") / "trained")
    run.train()
    return run


def a_run(world, state, **changes):
    return Run(replace(TINY, seeds=1, batch=4, **changes), world, CPU, state, float("inf"))


def weights_after(run):
    folder = run.state / "snapshots"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*-4.safetensors"))}


def test_a_resumed_run_equals_an_uninterrupted_one(world, trained, tmp_path):
    # Equally frequent merges are ordered by chance: two trained tokenizers may number the same words differently.
    shutil.copytree(trained.state / "tokenizer", tmp_path / "tokenizer")
    for _ in range(2):  # the second time there is nothing left to do
        a_run(world, tmp_path).train(until=3)
    resumed = a_run(world, tmp_path)
    resumed.train()
    assert set(weights_after(trained)) == {f"{r.family}-main-0-4.safetensors" for r in (UNET, FLOW)}
    assert weights_after(trained) == weights_after(resumed)


def test_networks_trained_alone_are_those_trained_together(world, trained, tmp_path):
    shutil.copytree(trained.state / "tokenizer", tmp_path / "tokenizer")
    for only in ("flow-main", "unet"):
        a_run(world, tmp_path).train(only=only)
    assert weights_after(trained) == weights_after(a_run(world, tmp_path))


def test_the_text_encoder_is_frozen_when_the_networks_learn(world, trained, tmp_path):
    before = (trained.state / "snapshots" / "text-0.safetensors").read_bytes()
    shutil.copytree(trained.state, tmp_path / "again")
    a_run(world, tmp_path / "again", steps=5).train()
    assert (tmp_path / "again" / "snapshots" / "text-0.safetensors").read_bytes() == before


def test_a_damaged_checkpoint_or_one_of_something_else_is_refused(world, trained, tmp_path):
    shutil.copytree(trained.state, tmp_path / "run")
    fewer = replace(world, train=world.train[:79], train_plans=world.train_plans[:79])
    with pytest.raises(InputError, match="was made with another world"):
        a_run(fewer, tmp_path / "run", steps=5).train()
    path = tmp_path / "run" / "unet-main-0.safetensors"
    whole = path.read_bytes()
    shutil.copy(tmp_path / "run" / "unet-small-0.safetensors", path)
    with pytest.raises(InputError, match="was made with another recipe"):
        a_run(world, tmp_path / "run", steps=5).train()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    for content, said in ((flipped, "is damaged"), (whole[: len(whole) // 2], "cannot be read")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=said):
            a_run(world, tmp_path / "run", steps=5).train()


@pytest.mark.parametrize("late", [False, True])
def test_what_the_world_shows_seldom_is_shown_more_and_never_without_its_name(world, tmp_path, late):
    run = a_run(world, tmp_path, late_focus_from=100 if late else None)
    run.sizes = replace(run.sizes, batch=20)
    focus = LATE_FOCUS if late else FOCUS
    first = SeedInputs(0, run)
    named = [tag for tag, share in focus.items() for _ in range(round(20 * share))]
    for step in range(100, 120):
        first.fill(step)
        captions = run.tokenizer.batch_decode(first.ids, skip_special_tokens=True)
        for row, text, tag in zip(first.rows.tolist(), captions, named, strict=False):
            assert tag in world.train_plans[row].tags
            assert text.strip()
    assert named.count("waving") == (7 if late else 2)


@pytest.mark.parametrize("recipe", [UNET_SMALL, FLOW_SMALL], ids=["unet", "flow"])
def test_the_loss_is_the_error_of_what_the_family_predicts(recipe):
    """A network that is wrong by 0.3 everywhere: 0.09, which UNets weigh with SNR + 1, at most 5."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(4, 3, 64, 64, generator=generator).clamp(-1, 1) for _ in range(2))
    level = noise_levels(recipe.family, torch.tensor([0.1, 0.4, 0.7, 0.95]))
    alphas = alphas_on(CPU)

    class Wrong(torch.nn.Module):
        def forward(self, sample, *_, **__):
            target = x0 if recipe.family == "unet" else noise - x0
            if recipe.family == "unet":
                target = torch.nn.functional.pixel_unshuffle(target, recipe.patch)
            return type("Output", (), {"sample": target + 0.3})

    loss = network_loss(recipe, Wrong(), x0, noise, level, torch.zeros(4, 1, 1), torch.zeros(4, 1), alphas)
    weight = (1 / (1 - alphas[level])).clamp(max=5).mean() if recipe.family == "unet" else 1
    assert loss.item() == pytest.approx(0.09 * float(weight), rel=1e-4)


@pytest.mark.parametrize(("main", "guide"), [(UNET, UNET_SMALL), (FLOW, FLOW_SMALL)], ids=["unet", "flow"])
def test_studies_see_the_networks_that_were_trained(main, guide, trained, tmp_path, params, monkeypatch):
    export_pair(trained.state, main, guide, 0, trained.sizes, tmp_path)
    monkeypatch.chdir(tmp_path)
    params["model"] = {"name": "trained", "main": "main", "guide": "guide"}
    if main is FLOW:
        params["sampler"] |= {"scheduler": "euler"}
    model = LoadedModel(parse_study(params, "test"), CPU)
    texts = ["1person, solo, waving, bad hands", "scenery"]
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    level = torch.tensor(500) if main is UNET else torch.tensor(0.5)
    alpha = alphas_on(CPU)[500]
    sigma = ((1 - alpha) / alpha).sqrt().item() if main is UNET else 1.0
    told = model.encode({"prompt": texts})["prompt"]
    encoder = CLIPTextModel.from_pretrained("main/text_encoder", torch_dtype=torch.float32)
    ids = trained.tokenizer(texts, padding="max_length", max_length=CONTEXT_LENGTH, return_tensors="pt").input_ids
    with torch.no_grad():
        context, pooled = encode_text(encoder, ids)
        for network, recipe, step in ((model.main, main, 4), (model.guide, guide, 2)):
            ours = load_network(trained.state, recipe, 0, step).half().float().eval()
            expected = Side(recipe, ours, context, pooled)(x, level.expand(2))
            # The sample of a UNet on pixels is its patches; a transformer cuts them itself.
            side = recipe.patch if recipe.family == "unet" else 1
            found = network(pixel_unshuffle(x, side), sigma, told)
            torch.testing.assert_close(pixel_shuffle(found, side), expected, atol=1e-4, rtol=1e-4)


def test_a_network_is_written_as_it_was_at_a_step_with_the_texts_it_reads(trained, tmp_path):
    export_reader(trained.state, UNET, 0, 2, tmp_path)
    written = UNet2DConditionModel.from_pretrained(tmp_path / "unet", torch_dtype=torch.float32).state_dict()
    for step, same in ((2, True), (4, False)):
        kept = load_network(trained.state, UNET, 0, step).state_dict()
        assert all(torch.equal(kept[name].half().float(), written[name]) for name in kept) is same
    encoder = CLIPTextModel.from_pretrained(tmp_path / "text_encoder", torch_dtype=torch.float32).state_dict()
    _, read = load_texts(trained.state, 0)
    assert all(torch.equal(value, encoder[name]) for name, value in read.state_dict().items())
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert tokenizer.get_vocab() == trained.tokenizer.get_vocab()


def test_a_network_that_is_not_trained_yet_is_named(trained, tmp_path):
    with pytest.raises(InputError, match=r"has no snapshot unet-main-3-4; `make train` makes it"):
        load_network(trained.state, UNET, 3, 4)


def test_snapshots_are_the_averages_of_their_step(world, trained, tmp_path):
    shutil.copytree(trained.state / "tokenizer", tmp_path / "tokenizer")
    a_run(world, tmp_path).train(until=2)
    for name in ("unet-main-0-2.safetensors", "flow-main-0-2.safetensors"):
        assert (tmp_path / "snapshots" / name).read_bytes() == (trained.state / "snapshots" / name).read_bytes()


def test_the_world_is_drawn_once_and_kept(world, tmp_path):
    kept = load_world(tmp_path, 20, 4)
    again = load_world(tmp_path, 20, 4)
    assert torch.equal(kept.train, world.train[:20])
    assert torch.equal(again.held_out, kept.held_out)
    assert again.train_plans == kept.train_plans == world.train_plans[:20]


def test_the_corpus_of_a_world_says_what_its_shards_say(corpus, world):
    other = corpus_of(world.train[:64], world.train_plans[:64])
    for name in ("tags", "kind", "digits", "arms", "legs", "countable", "hair"):
        assert getattr(other, name) == getattr(corpus, name)
    assert torch.equal(other.pixels, corpus.pixels)
    assert torch.equal(other.malformed, corpus.malformed)


def test_checkpoints_keep_every_shape_and_layout(tmp_path):
    tensors = {"a": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last), "b": torch.tensor(3.0)}
    save_checkpoint(tmp_path / "c.safetensors", tensors, {"step": 1})
    back, state = load_checkpoint(tmp_path / "c.safetensors")
    assert torch.equal(back["a"], tensors["a"])
    assert back["b"].tolist() == [3.0]
    assert state == {"step": 1}


def test_orthogonalised_matrices_have_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((2, 8, 40), (2, 40, 8), (1, 16, 16)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.max() < 1.3
        assert values.median() > 0.6


def test_a_scorer_of_other_images_or_words_is_refused(corpus, tokenizer, tmp_path):
    scorer = ScorerRecipe("malformed", steps=2, batch=8, learning_rate=1e-3)
    MalformedTraining(scorer, corpus, tmp_path / "m.safetensors", CPU).run(len(corpus))
    with pytest.raises(InputError, match="was trained with other images or another vocabulary"):
        MalformedTraining(scorer, replace(corpus, mark="others"), tmp_path / "m.safetensors", CPU).resume()
    recipe, path = ScorerRecipe("clip", 1, 8, 1e-3), tmp_path / "c.safetensors"
    ClipTraining(recipe, tokenizer, corpus, path, CPU).run(len(corpus))
    other = train_tokenizer([text.replace("style", "manner") for text in corpus.captions()])
    with pytest.raises(InputError, match="another vocabulary"):
        ClipTraining(recipe, other, corpus, path, CPU).resume()


def test_redrawn_images_depend_on_the_generator_alone_and_keep_what_little_noise_leaves(trained, world):
    redrawing = Redrawing(trained.state, trained.sizes)
    x, captions = world.held_out[:4].float() / 127.5 - 1, ["1person, waving"] * 4
    first, second = (redrawing(x, captions, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, redrawing(x, captions, torch.Generator().manual_seed(6)))
    assert [pair.recipe.family for pair in redrawing.finished()] == ["unet", "flow"]
    flow = redrawing.finished()[1]
    # One Euler step of the velocity over a share of the schedule moves an image by no more than that share of it.
    near, far = (
        redrawing.redraw(x, captions, flow, None, 1.0, 1, share, torch.Generator().manual_seed(0)) - x
        for share in (1e-4, 0.25)
    )
    assert float(near.abs().max()) < 0.01 < float(far.abs().mean())


def test_a_scorer_that_saw_redrawn_images_has_their_answers_and_is_not_resumed_without_them(trained, corpus, tmp_path):
    recipe = ScorerRecipe("malformed", steps=2, batch=8, learning_rate=1e-3)
    redrawing = Redrawing(trained.state, trained.sizes)
    training = MalformedTraining(recipe, corpus, tmp_path / "m.safetensors", CPU, redrawing, redrawn_images=64)
    pixels, answers = training.redrawn
    assert pixels.shape == (64, 3, 64, 64)
    assert answers.shape == (64, len(ANSWERS))
    assert set(answers[:, 0].tolist()) <= {NOT_ASKED, 0, 1}
    training.run(len(corpus))
    with pytest.raises(InputError, match="was trained with other images"):
        MalformedTraining(recipe, corpus, tmp_path / "m.safetensors", CPU).resume()


def test_redrawing_needs_trained_networks(tmp_path):
    with pytest.raises(InputError, match="make train"):
        Redrawing(tmp_path, TINY)


def test_images_that_are_not_there_are_told_with_what_draws_them(tmp_path):
    with pytest.raises(InputError, match=r"train does not exist; `python -m pipeline.tinybooru.build` draws it"):
        load_corpus(tmp_path / "train")


@pytest.mark.parametrize("kind", ["clip", "malformed"])
def test_scorers_resume_to_the_same_weights(kind, corpus, tokenizer, tmp_path):
    recipe = ScorerRecipe(kind, steps=4, batch=8, learning_rate=1e-3, warmup=1)

    def make(name):
        path = tmp_path / f"{name}.safetensors"
        if kind == "clip":
            return ClipTraining(recipe, tokenizer, corpus, path, CPU)
        return MalformedTraining(recipe, corpus, path, CPU)

    straight = make("straight")
    straight.run(len(corpus))
    stopped = make("stopped")
    stopped.run(len(corpus), until=2)
    resumed = make("stopped")
    resumed.run(len(corpus))
    for name, weight in straight.network.state_dict().items():
        assert torch.equal(weight, resumed.network.state_dict()[name])


def test_the_exported_clip_loads_in_open_clip_and_embeds_alike(corpus, tokenizer, tmp_path):
    from eval.features.clip import load_clip

    clip = ClipTraining(ScorerRecipe("clip", 1, 8, 1e-3), tokenizer, corpus, tmp_path / "c.safetensors", CPU)
    export_clip(clip.network, tokenizer, tmp_path / "clip")
    loaded = load_clip(tmp_path / "clip", CPU)
    ours = clip.network.eval().encode_text(clip.tokens[:3])
    torch.testing.assert_close(loaded.embed_texts(corpus.captions()[:3]), ours.detach(), atol=2e-2, rtol=2e-2)


def test_an_adapter_resumes_to_the_last_bit_and_is_exported_as_it_was_trained(corpus, tmp_path, monkeypatch):
    def training(name, until=None):
        monkeypatch.setattr("models.tinybooru.networks.adapter.READING_STEPS", 2)
        recipe = ScorerRecipe("adapter", steps=4, batch=2, learning_rate=1e-3, warmup=2)
        made = AdapterTraining(recipe, ROOT / "models/tinybooru/main", corpus, tmp_path / name, CPU)
        made.run(len(corpus), until)
        return made.network

    assert READING_STEPS > 2
    whole = training("whole.safetensors").state_dict()
    training("parts.safetensors", until=3)
    resumed = training("parts.safetensors")
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, whole[name]), name
    unet = UNet2DConditionModel.from_pretrained(ROOT / "models/tinybooru/main/unet")
    images = list(corpus.images())[:2]
    expected = resumed(corpus.pixels[:2].float() / 127.5 - 1, torch.ones(2))
    empty = resumed(corpus.pixels[:2].float() / 127.5 - 1, torch.zeros(2))
    export_adapter(resumed, tmp_path / "ip_adapter")
    reader = ImageReader(
        tmp_path / "ip_adapter/ip_adapter.safetensors", tmp_path / "ip_adapter/image_encoder", unet, CPU
    )
    for read, learnt in zip(reader.tokens(images), (expected, empty), strict=True):
        assert float((read[0] - learnt.detach()).abs().max()) < 0.05, "but for half precision"
