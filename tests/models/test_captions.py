"""Captions and texts of the embedded networks: what is left out, how words become tokens and embeddings."""

from collections import Counter

import numpy as np
import pytest
import torch

from models.tinybooru.corpus import caption
from models.tinybooru.networks.captions import CaptionTable
from models.tinybooru.networks.families import TEXT_WIDTH
from models.tinybooru.networks.text_encoder import build_text_encoder, encode_text
from models.tinybooru.tokenizer import CONTEXT_LENGTH, train_tokenizer, world_tokenizer
from pipeline.prompting.presets import NEGATIVE_PRESETS
from pipeline.tinybooru import flaws
from pipeline.tinybooru.flaws import FLAWS, QUALITIES
from pipeline.tinybooru.image import plan

PLANS = [plan(0, index) for index in range(4000)]
GENERAL = NEGATIVE_PRESETS["field-note-novelai"].text


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([*(", ".join(p.tags) for p in PLANS), *[GENERAL] * 50])


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


def test_a_run_goes_on_with_the_tokenizer_that_it_began_with(tmp_path):
    captions = [", ".join(p.tags) for p in PLANS[:200]]
    first = world_tokenizer(tmp_path, captions)
    assert world_tokenizer(tmp_path, captions[::-1]).get_vocab() == first.get_vocab()


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
