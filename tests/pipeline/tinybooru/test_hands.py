"""World 3: what is counted is what was drawn, no flaw of structure is hidden, training goes on where it stopped."""

import shutil
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from models.tinybooru.counter import DIGITS, UNCOUNTABLE_NAME, counts
from models.tinybooru.denoiser import build_text_encoder

from models.tinybooru.corpus import caption
from models.tinybooru.networks.captions import CaptionTable
from models.tinybooru.networks.families import TEXT_WIDTH, encode_text
from models.tinybooru.networks.graphed import orthogonalise_all
from models.tinybooru.networks.muon import orthogonalise
from models.tinybooru.networks.run import FLOW, TINY, UNET, Run, World
from models.tinybooru.tokenizer import CONTEXT_LENGTH, train_tokenizer
from pipeline.errors import InputError
from pipeline.prompting.presets import NEGATIVE_PRESETS
from pipeline.tinybooru import figures, flaws
from pipeline.tinybooru.build import plans
from pipeline.tinybooru.image import draw, plan

CPU = torch.device("cpu")
PLANS = [plan(0, index) for index in range(4000)]
GREETINGS = [p for p in PLANS if p.style == figures.GREETING]
DOLLS = [p for p in PLANS if p.style == figures.PAPERDOLL]
GENERAL = NEGATIVE_PRESETS["field-note-novelai"].text


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([*(", ".join(p.tags) for p in PLANS), *[GENERAL] * 50])


@pytest.fixture(scope="module")
def world():
    train, held_out = (list(islice(plans(split, 0), n)) for split, n in (("train", 80), ("validation", 8)))

    def pixels(wanted):
        return torch.from_numpy(np.stack([np.asarray(draw(p, 64)) for p in wanted])).permute(0, 3, 1, 2).contiguous()

    return World(pixels(train), train, pixels(held_out), held_out)


def test_the_tags_say_how_many_digits_are_drawn():
    for planned in GREETINGS:
        digits = planned.structure.digits
        wrong = {flaws.EXTRA_DIGIT, flaws.FEWER_DIGITS, flaws.MISSING_FINGERS} & set(planned.flaws)
        assert (flaws.BAD_HANDS in planned.flaws) == bool(wrong) == (digits != 5)
        assert (flaws.EXTRA_DIGIT in wrong) == (digits > 5)
    assert {p.structure.digits for p in GREETINGS} == {3, 4, 5, 6, 7}


def test_as_many_digits_are_drawn_as_planned():
    for planned in GREETINGS[:60]:
        svg = figures.svg(planned.style, planned.options, (), np.random.default_rng(0))
        hand = svg[svg.rindex("scale(") :]
        # Fingers and thumb are the rotated bars of the hand; its palm is one more bar, not rotated.
        assert hand.count("rotate(") == planned.structure.digits


def test_the_tags_say_how_many_limbs_are_drawn():
    for planned in DOLLS:
        limbs = planned.structure.arms + planned.structure.legs
        assert (flaws.EXTRA_LIMBS in planned.flaws) == (limbs > 4)
        assert (flaws.MISSING_LIMB in planned.flaws) == (limbs < 4)
        assert len(planned.options["arm_slots"]) == planned.structure.arms
        assert len(set(planned.options["arm_slots"])) == planned.structure.arms  # none hides another
    assert {(p.structure.arms, p.structure.legs) for p in DOLLS} == {(2, 2), (3, 2), (2, 3), (1, 2), (2, 1)}


def test_one_digit_more_can_be_seen():
    for planned in [p for p in GREETINGS if not p.flaws][:20]:
        more = replace(planned, options={**planned.options, "digits": 6})
        difference = np.abs(np.asarray(draw(planned, 64), float) - np.asarray(draw(more, 64), float)).max(axis=2)
        assert (difference > 30).sum() > 25


def test_flaws_that_hide_hands_make_them_uncountable():
    for planned, (digits, *_) in zip(GREETINGS, counts(GREETINGS).tolist(), strict=True):
        hidden = bool(set(planned.flaws) & set(flaws.UNCOUNTABLE))
        assert (DIGITS[digits] == UNCOUNTABLE_NAME) == hidden
        assert hidden or DIGITS[digits] == str(planned.structure.digits)


def test_a_caption_names_a_flaw_of_structure_or_nothing_at_all():
    rng = np.random.default_rng(0)
    for planned in [p for p in PLANS if p.malformed][:100]:
        for _ in range(10):
            text = caption(planned.tags, rng, 0.1, 0.1)
            assert not text or set(text.split(", ")) & set(flaws.STRUCTURE_FLAWS)


def test_captions_as_numbers_are_what_the_tokenizer_gives(tokenizer):
    tags = [p.tags for p in PLANS]
    table = CaptionTable(tags, tokenizer)
    texts = [", ".join(row) for row in tags]
    expected = tokenizer(texts, padding="max_length", max_length=CONTEXT_LENGTH, truncation=True, return_tensors="np")
    np.testing.assert_array_equal(table.spell(table.table), expected.input_ids)


def test_captions_as_numbers_leave_out_what_captions_leave_out(tokenizer):
    malformed = [p.tags for p in PLANS if p.malformed]
    table = CaptionTable(malformed, tokenizer)
    rng = np.random.default_rng(0)
    ids = table.captions(rng.integers(len(malformed), size=2000), rng, never_empty=100)
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    empty = [not text.strip() for text in texts]
    assert not any(empty[:100])
    assert np.mean(empty) == pytest.approx(0.1, abs=0.03)
    words = [flaw.split()[-1] for flaw in flaws.STRUCTURE_FLAWS]
    assert all(none or any(word in text for word in words) for text, none in zip(texts, empty, strict=True))


def test_the_general_negative_prompt_is_made_of_this_worlds_words(tokenizer):
    known = {tag for p in PLANS for tag in p.tags}
    assert set(GENERAL.split(", ")) <= known
    # One token a word, so that all of it fits.
    assert len(tokenizer(GENERAL).input_ids) == len(GENERAL.replace(", ", " , ").split()) + 2 <= CONTEXT_LENGTH


def test_the_text_encoder_gives_what_transformers_gives(tokenizer):
    encoder = build_text_encoder(tokenizer, TEXT_WIDTH).eval()
    ids = tokenizer(["1person, waving", GENERAL], padding="max_length", max_length=CONTEXT_LENGTH, return_tensors="pt")
    expected = encoder(ids.input_ids)
    context, pooled = encode_text(encoder, ids.input_ids)
    torch.testing.assert_close(context, expected.last_hidden_state)
    torch.testing.assert_close(pooled, expected.pooler_output)


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8)])
def test_matrices_are_orthogonalised_together_as_one_by_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(orthogonalise_all(matrices), torch.stack([orthogonalise(m) for m in matrices]))


def a_run(world, state, **changes):
    out = state.with_name(f"{state.name}-out")
    state.mkdir(exist_ok=True)
    return Run(replace(TINY, seeds=1, batch=4, **changes), world, CPU, state, out, float("inf"))


def weights_after(run):
    folder = run.state / "snapshots"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*-4.safetensors"))}


def test_a_resumed_run_equals_an_uninterrupted_one(world, tmp_path):
    straight = a_run(world, tmp_path / "straight")
    straight.train()
    # Equally frequent merges are ordered by chance: two trained tokenizers may number the same words differently.
    shutil.copytree(tmp_path / "straight" / "tokenizer", tmp_path / "stopped" / "tokenizer")
    a_run(world, tmp_path / "stopped").train(until=3)
    resumed = a_run(world, tmp_path / "stopped")
    resumed.train()
    assert set(weights_after(straight)) == {f"{r.family}-main-0-4.safetensors" for r in (UNET, FLOW)}
    assert weights_after(straight) == weights_after(resumed)


def test_a_damaged_checkpoint_or_one_of_other_images_is_refused(world, tmp_path):
    a_run(world, tmp_path / "run").train(until=2)
    others = replace(world, train=world.train[:79], train_plans=world.train_plans[:79])
    with pytest.raises(InputError, match="was made with another world"):
        a_run(others, tmp_path / "run").train()
    path = tmp_path / "run" / "unet-main-0.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        a_run(world, tmp_path / "run").train()
