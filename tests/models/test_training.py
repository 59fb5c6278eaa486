"""The training recipe: resumable to the last bit, damaged checkpoints refused, captions that leave things out."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models.tinybooru.denoiser import DenoiserRecipe, DenoiserTraining, build_text_encoder
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.training import flops_of_a_step
from models.tinybooru.checkpoint import load_checkpoint, save_checkpoint
from models.tinybooru.corpus import caption, load_corpus
from models.tinybooru.networks.muon import orthogonalise
from models.tinybooru.scorers import ClipTraining, MalformedTraining, ScorerRecipe, export_clip
from models.tinybooru.tokenizer import CONTEXT_LENGTH, train_tokenizer
from pipeline.errors import InputError
from pipeline.networks.noise_path import from_x0
from pipeline.tinybooru.build import build
from pipeline.tinybooru.flaws import FLAWS, QUALITIES

CPU = torch.device("cpu")
TINY = DenoiserRecipe("tiny", (16, 16), steps=8, batch=4, warmup=2, text_width=32, text_encoder_steps=3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    build(folder, "train", 64, seed=0)
    return load_corpus(folder)


@pytest.fixture(scope="module")
def tokenizer(corpus):
    return train_tokenizer(corpus.captions())


def training(corpus, tokenizer, checkpoint, recipe=TINY, lengths=()):
    return DenoiserTraining(recipe, tokenizer, corpus, corpus, None, checkpoint, CPU, False, lengths)


def test_a_resumed_run_equals_an_uninterrupted_one(corpus, tokenizer, tmp_path):
    straight = training(corpus, tokenizer, tmp_path / "straight.safetensors")
    straight.run()
    # Stopped before and after the step at which the text encoder is frozen.
    for stop in (2, 3, 5):
        training(corpus, tokenizer, tmp_path / f"{stop}.safetensors").run(until=stop)
        resumed = training(corpus, tokenizer, tmp_path / f"{stop}.safetensors")
        resumed.run()
        for name, weight in straight.weights.items():
            assert torch.equal(weight, resumed.weights[name]), f"{name} differs after a stop at {stop}"
        for name, weight in straight.average.items():
            assert torch.equal(weight, resumed.average[name])


def test_the_text_encoder_is_frozen_on_the_way(corpus, tokenizer, tmp_path):
    run = training(corpus, tokenizer, tmp_path / "a.safetensors")
    run.run(until=4)
    frozen = {n: p.detach().clone() for n, p in run.text_encoder.named_parameters()}
    run.run()
    assert all(torch.equal(p, frozen[n]) for n, p in run.text_encoder.named_parameters())


def test_a_tag_in_focus_is_shown_more_and_never_without_its_name(corpus, tokenizer, tmp_path):
    plain = training(corpus, tokenizer, tmp_path / "a.safetensors", replace(TINY, batch=8))
    focus = {"bad anatomy": 0.25, "glasses": 0.125}
    focused = training(corpus, tokenizer, tmp_path / "b.safetensors", replace(plain.recipe, focus=focus, focus_from=2))
    np.testing.assert_array_equal(focused.batch(1)[0], plain.batch(1)[0])
    for step in range(2, 100):
        (rows, captions, _), (as_drawn, captions_as_drawn, _) = focused.batch(step), plain.batch(step)
        for row, text, tag in zip(rows, captions, ["bad anatomy", "bad anatomy", "glasses"], strict=False):
            assert tag in corpus.tags[row]
            assert tag in text.split(", ")
        # Beyond these the batch is what the corpus gives, empty captions and all.
        np.testing.assert_array_equal(rows[3:], as_drawn[3:])
        assert captions[3:] == captions_as_drawn[3:]


@pytest.mark.parametrize(
    ("focus", "words"), [({"a moustache": 0.1}, "a moustache"), ({"smile": 0.7, "frown": 0.7}, "1.4")]
)
def test_a_focus_that_cannot_be_is_refused(focus, words, corpus, tokenizer, tmp_path):
    with pytest.raises(InputError, match=words):
        training(corpus, tokenizer, tmp_path / "a.safetensors", replace(TINY, focus=focus))


def test_a_damaged_checkpoint_is_refused(corpus, tokenizer, tmp_path):
    path = tmp_path / "a.safetensors"
    training(corpus, tokenizer, path).run(until=1)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        training(corpus, tokenizer, path).resume()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    of_the_state = b'\\"warmup\\": 2,'
    assert whole.count(of_the_state) == 1
    for damaged in (bytes(flipped), whole.replace(of_the_state, of_the_state.replace(b"2", b"7"))):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="is damaged"):
            training(corpus, tokenizer, path).resume()


def test_a_checkpoint_of_another_recipe_is_refused(corpus, tokenizer, tmp_path):
    path = tmp_path / "a.safetensors"
    training(corpus, tokenizer, path).run(until=1)
    with pytest.raises(InputError, match="belongs to another recipe"):
        training(corpus, tokenizer, path, replace(TINY, learning_rate=1.0)).resume()


def test_a_checkpoint_of_another_vocabulary_is_refused(corpus, tokenizer, tmp_path):
    training(corpus, tokenizer, tmp_path / "a.safetensors").run(until=2)
    other = train_tokenizer([text.replace("style", "manner") for text in corpus.captions()])
    with pytest.raises(InputError, match="another vocabulary"):
        training(corpus, other, tmp_path / "a.safetensors").resume()


def test_a_checkpoint_without_an_average_that_is_asked_for_is_refused(corpus, tokenizer, tmp_path):
    training(corpus, tokenizer, tmp_path / "a.safetensors").run(until=1)
    with pytest.raises(InputError, match=r"keeps no average of 0\.3; delete it"):
        training(corpus, tokenizer, tmp_path / "a.safetensors", lengths=(0.3,)).resume()


def test_the_plateau_may_be_prolonged_but_not_the_fall(corpus, tokenizer, tmp_path):
    path = tmp_path / "a.safetensors"
    training(corpus, tokenizer, path).run(until=4)
    longer = training(corpus, tokenizer, path, replace(TINY, steps=40))
    longer.resume()
    assert longer.step == 4
    training(corpus, tokenizer, path).run(until=7)
    with pytest.raises(InputError, match="belongs to another recipe"):
        training(corpus, tokenizer, path, replace(TINY, steps=40)).resume()


def test_a_guide_goes_on_and_is_shipped_with_the_text_encoder_it_was_trained_with_alone(corpus, tokenizer, tmp_path):
    def guide(seed):
        torch.manual_seed(seed)
        encoder = build_text_encoder(tokenizer, TINY.text_width, TINY.text_layers)
        recipe = replace(TINY, text_encoder_steps=0)
        return DenoiserTraining(recipe, tokenizer, corpus, corpus, encoder, tmp_path / "g.safetensors", CPU, False)

    first = guide(0)
    assert not first.holds_snapshot(2)
    first.run(until=2, snapshots=(2,))
    assert guide(0).holds_snapshot(2)
    assert not guide(0).holds_snapshot(1)
    other = guide(1)
    assert not other.holds_snapshot(2)
    with pytest.raises(InputError, match="was trained with another text encoder than there is now; delete it"):
        other.resume()
    (tmp_path / "tiny-2" / "snapshot.json").unlink()  # as a folder that was being written
    assert not guide(0).holds_snapshot(2)


def test_a_checkpoint_of_other_images_is_refused(corpus, tokenizer, tmp_path):
    training(corpus, tokenizer, tmp_path / "a.safetensors").run(until=1)
    scorer = ScorerRecipe("malformed", steps=2, batch=8, learning_rate=1e-3)
    MalformedTraining(scorer, corpus, tmp_path / "m.safetensors", CPU).run(len(corpus))
    others = replace(corpus, mark="others")
    with pytest.raises(InputError, match="was trained with another set of images than there is now"):
        training(others, tokenizer, tmp_path / "a.safetensors").resume()
    with pytest.raises(InputError, match="was trained with other images or another vocabulary"):
        MalformedTraining(scorer, others, tmp_path / "m.safetensors", CPU).resume()


def test_a_clip_of_another_vocabulary_is_refused(corpus, tokenizer, tmp_path):
    recipe, path = ScorerRecipe("clip", 1, 8, 1e-3), tmp_path / "c.safetensors"
    ClipTraining(recipe, tokenizer, corpus, path, CPU).run(len(corpus))
    other = train_tokenizer([text.replace("style", "manner") for text in corpus.captions()])
    with pytest.raises(InputError, match="another vocabulary"):
        ClipTraining(recipe, other, corpus, path, CPU).resume()


def test_images_that_are_not_there_are_told_with_what_draws_them(tmp_path):
    with pytest.raises(InputError, match=r"train does not exist; `python -m models.tinybooru.train` draws it"):
        load_corpus(tmp_path / "train")


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
def test_the_loss_is_the_weighted_x0_error_whatever_is_predicted(prediction, corpus, tokenizer, tmp_path):
    run = training(corpus, tokenizer, tmp_path / "a.safetensors", replace(TINY, prediction=prediction, weighting="x0"))
    wrong_by = 0.3

    def network(noisy, t, _):
        alpha = run.alphas[t].view(-1, 1, 1, 1)
        x0 = torch.nn.functional.pixel_unshuffle(corpus.pixels[: len(t)].float() / 127.5 - 1, TINY.patch)
        output = from_x0(x0 + wrong_by, prediction, noisy, alpha.sqrt(), (1 - alpha).sqrt())
        return SimpleNamespace(sample=output)

    run.forward = network
    loss = run.loss(corpus.pixels[:4], corpus.captions()[:4], torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(wrong_by**2, rel=1e-3)


def test_recipes_are_compared_at_the_same_noise_levels_whatever_their_schedule(corpus, tokenizer, tmp_path):
    read = {}
    for schedule in ("linear", "squaredcos_cap_v2"):
        recipe = replace(TINY, beta_schedule=schedule, weighting="x0")
        run = training(corpus, tokenizer, tmp_path / f"{schedule}.safetensors", recipe)

        def network(noisy, t, _, run=run, schedule=schedule):
            read[schedule] = noisy, torch.stack([run.alphas[round(step)] for step in t.tolist()])
            return SimpleNamespace(sample=torch.zeros_like(noisy))

        run.forward = network
        read[schedule, "loss"] = run.loss(
            corpus.pixels[:8], corpus.captions()[:8], torch.Generator().manual_seed(0), common=True
        ).item()
    assert read["linear", "loss"] == read["squaredcos_cap_v2", "loss"]
    assert torch.equal(read["linear"][0], read["squaredcos_cap_v2"][0])
    # Each is told the timestep at which its own schedule has that level (here to the nearest whole one).
    torch.testing.assert_close(read["linear"][1], read["squaredcos_cap_v2"][1], atol=3e-3, rtol=0)


def test_a_step_is_counted_as_one_forward_and_two_backward_passes(corpus, tokenizer, tmp_path):
    run = training(corpus, tokenizer, tmp_path / "a.safetensors", replace(TINY, text_encoder_steps=0))
    with FlopCounterMode(display=False) as forward, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        run.step_loss()
    # Gradients to inputs and to weights; none to the noisy image and none into the frozen text encoder.
    assert 2.5 < flops_of_a_step(run) / forward.get_total_flops() < 3
    assert all(p.grad is None for p in run.unet.parameters())


def test_snapshots_are_the_averages_of_their_step(corpus, tokenizer, tmp_path):
    training(corpus, tokenizer, tmp_path / "a.safetensors").run(snapshots=(5,))
    until = training(corpus, tokenizer, tmp_path / "b.safetensors")
    until.run(until=5)
    until.export(tmp_path / "b")
    name = "unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "tiny-5" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_further_averages_change_nothing_and_are_of_their_length_after_a_stop_too(corpus, tokenizer, tmp_path):
    plain = training(corpus, tokenizer, tmp_path / "plain.safetensors")
    plain.run()
    training(corpus, tokenizer, tmp_path / "a.safetensors", lengths=(0.0, 0.3)).run(until=4)
    several = training(corpus, tokenizer, tmp_path / "a.safetensors", lengths=(0.0, 0.3))
    several.run(snapshots=(TINY.steps,))
    other = training(corpus, tokenizer, tmp_path / "b.safetensors", replace(TINY, ema=0.3))
    other.run()
    for name, weight in plain.weights.items():
        assert torch.equal(several.weights[name], weight)
        assert torch.equal(several.average[name], plain.average[name])
        assert torch.equal(several.averages[0.3][name], other.average[name])
        torch.testing.assert_close(several.averages[0.0][name], weight)
    name = "unet/diffusion_pytorch_model.safetensors"
    other.export(tmp_path / "other")
    assert (tmp_path / "tiny-8-ema-0.3" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert (tmp_path / "tiny-8" / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


def test_checkpoints_keep_every_shape_and_layout(tmp_path):
    tensors = {"a": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last), "b": torch.tensor(3.0)}
    save_checkpoint(tmp_path / "c.safetensors", tensors, {"step": 1})
    back, state = load_checkpoint(tmp_path / "c.safetensors")
    assert torch.equal(back["a"], tensors["a"])
    assert back["b"].tolist() == [3.0]
    assert state == {"step": 1}


def test_orthogonalised_matrices_have_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((8, 40), (40, 8), (16, 16)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.max() < 1.3
        assert values.median() > 0.6


def test_captions_leave_out_what_the_recipe_says():
    tags = ["1person", "solo", "worst quality", "style:dylan", "red hair", "bad anatomy"]
    rng = np.random.default_rng(0)
    captions = [caption(tags, rng, 0.1, 0.1) for _ in range(4000)]
    count = Counter(tag for c in captions for tag in c.split(", "))
    assert 0.07 < count[""] / 4000 < 0.13
    assert 0.7 < count["red hair"] / 4000 < 0.85
    only = [c for c in captions if c and all(tag in {*QUALITIES, *FLAWS} for tag in c.split(", "))]
    assert 0.02 < len(only) / 4000 < 0.06
    assert all(set(c.split(", ")) <= {*tags, ""} for c in captions)


def test_the_tokenizer_gives_words_of_tags_one_token_each(tokenizer):
    ids = tokenizer("1person, solo, style:dylan").input_ids
    assert tokenizer.convert_ids_to_tokens(ids)[1:-1] == [
        *("1</w>", "person</w>", ",</w>", "solo</w>", ",</w>", "style</w>", ":</w>", "dylan</w>")
    ]
    assert ids[-1] == max(tokenizer.get_vocab().values()), "CLIP finds the end of a text by the highest id"


def test_the_tokenizer_reads_any_text(tokenizer):
    for text in ("", "zebra é 漢字 (x:1.2) 🦓", "a" * 500):
        ids = tokenizer(text, padding="max_length", truncation=True, max_length=CONTEXT_LENGTH).input_ids
        assert len(ids) == CONTEXT_LENGTH
        assert ids[0] == tokenizer.bos_token_id


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
