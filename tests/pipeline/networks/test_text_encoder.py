"""The text side: what is plain stays plain, and weights, chunks and clip skip do what A1111 and diffusers do."""

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from models.tinybooru.tokenizer import train_tokenizer
from pipeline.errors import InputError
from pipeline.networks.text.clip_tower import ClipTower
from pipeline.networks.text.text_encoder import TextEncoder, load_text_encoder, weighted
from pipeline.prompting.chunks import WeightedToken, cut
from pipeline.prompting.emphasis import parse
from pipeline.prompting.text_settings import TextSettings
from pipeline.prompting.underscores import spaced

CONTEXT, LAYERS = 77, 4
TEXTS = ["blue hair, solo, glasses", "", "a photo of a cat", "😀 ünknown wörds ^_^"]
LONG = ", ".join(f"tag {k}" for k in range(60))


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = train_tokenizer([LONG, *TEXTS])
    tokenizer.model_max_length = CONTEXT
    return tokenizer


@pytest.fixture(scope="module")
def towers(tokenizer):
    """CLIP text models with random weights: SD's, and SDXL's second with a projection."""

    def config(width):
        return CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=24,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            max_position_embeddings=CONTEXT,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )

    torch.manual_seed(0)
    first, second = CLIPTextModel(config(16)).eval(), CLIPTextModelWithProjection(config(20)).eval()
    for model in (first, second):
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return ClipTower(first, tokenizer), ClipTower(second, tokenizer)


def reading(towers, number=1, zero_empty=False, **changes):
    return TextEncoder(
        towers[:number], TextSettings(**{"syntax": "a1111", **changes}), zero_empty, penultimate=number == 2
    )


def plain_ids(tokenizer, texts):
    options = {"padding": "max_length", "truncation": True, "max_length": CONTEXT, "return_tensors": "pt"}
    return tokenizer(list(texts), **options).input_ids


def pipeline_of(towers, number):
    first, second = (tower.model for tower in towers)
    if not hasattr(first, "text_model"):
        # diffusers' clip skip reaches for the module that transformers 5 folded into the model.
        object.__setattr__(first, "text_model", first)
    if number == 1:
        return StableDiffusionPipeline(
            vae=None,
            text_encoder=first,
            tokenizer=towers[0].tokenizer,
            unet=None,
            scheduler=None,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    return StableDiffusionXLPipeline(
        vae=None,
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=towers[0].tokenizer,
        tokenizer_2=towers[1].tokenizer,
        unet=None,
        scheduler=None,
    )


@pytest.mark.parametrize("syntax", ["plain", "a1111", "novelai"])
def test_without_emphasis_the_embedding_is_the_plain_encoders_bit_for_bit(towers, tokenizer, syntax):
    with torch.inference_mode():
        plain = towers[0].model(plain_ids(tokenizer, TEXTS)).last_hidden_state
    assert torch.equal(reading(towers, syntax=syntax).encode(TEXTS)["tokens"], plain)


@given(text=st.text(max_size=60))
@settings(max_examples=60)
def test_plain_syntax_gives_the_tokenizers_own_tokens(towers, tokenizer, text):
    ((chunk), *others) = towers[0].chunks(text, TextSettings())
    ids, _ = towers[0].padded(chunk)
    if not others:
        assert [ids] == plain_ids(tokenizer, [text]).tolist()


@pytest.mark.parametrize(
    "text", ["(blue hair:1), solo", "(blue hair:1.0), (solo:1)", r"blue hair\, solo", "blue_hair, solo"]
)
def test_weights_of_one_change_nothing(towers, text):
    encoder = reading(towers, underscores="spaces")
    assert torch.equal(encoder.encode([text])["tokens"], encoder.encode(["blue hair, solo"])["tokens"])


@pytest.mark.parametrize("clip_skip", [0, 1, 2])
@pytest.mark.parametrize("number", [1, 2])
def test_clip_skip_equals_diffusers(towers, number, clip_skip):
    pipeline = pipeline_of(towers, number)
    with torch.inference_mode():
        theirs = pipeline.encode_prompt(
            TEXTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False, clip_skip=clip_skip
        )
    ours = reading(towers, number, clip_skip=clip_skip).encode(TEXTS)
    torch.testing.assert_close(ours["tokens"], theirs[0], atol=1e-5, rtol=1e-5)
    if number == 2:
        torch.testing.assert_close(ours["pooled"], theirs[2], atol=1e-5, rtol=1e-5)
    else:
        assert "pooled" not in ours


def test_more_skipped_layers_than_the_encoder_has_are_refused(towers):
    with pytest.raises(InputError, match=r"text.clip_skip is 4; the text encoder has 4 layers, so at most 3"):
        reading(towers, clip_skip=4)
    with pytest.raises(InputError, match="at most 2 can be skipped"):
        reading(towers, 2, clip_skip=3)


def a1111_embedding(tower, text, restore_mean):
    """The web UI's way for one short text, written down again from its description."""
    pieces = [(span.text, span.weight) for section in parse(text, "a1111") for span in section]
    ids, weights = [tower.tokenizer.bos_token_id], [1.0]
    for piece, weight in pieces:
        new = tower.tokenizer(piece, add_special_tokens=False).input_ids
        ids, weights = ids + new, weights + [weight] * len(new)
    ids += [tower.tokenizer.eos_token_id] * (CONTEXT - len(ids))
    weights += [1.0] * (CONTEXT - len(weights))
    with torch.inference_mode():
        z = tower.model(torch.tensor([ids])).last_hidden_state
    mean = z.mean()
    z = z * torch.tensor(weights)[None, :, None]
    return z * (mean / z.mean()) if restore_mean else z


@pytest.mark.parametrize("restore_mean", [True, False])
@pytest.mark.parametrize(
    "text", ["a (cat:1.5), [dog]", "(bad:0.0001), (comic:0.0001)", "((tag)) (x:-2) y", "(unclosed"]
)
def test_weights_act_as_in_a1111(towers, text, restore_mean):
    ours = reading(towers, restore_mean=restore_mean).encode([text])["tokens"]
    torch.testing.assert_close(ours, a1111_embedding(towers[0], text, restore_mean), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(ours, reading(towers, syntax="plain").encode([text])["tokens"])


def test_restoring_keeps_each_texts_own_mean(towers):
    texts = ["(cat:1.9), dog", "dog, cat"]
    with_weights = reading(towers).encode(texts)["tokens"]
    without = reading(towers).encode(["cat, dog", "dog, cat"])["tokens"]
    torch.testing.assert_close(with_weights.mean(dim=(1, 2)), without.mean(dim=(1, 2)), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(with_weights[0], without[0], atol=1e-2)
    assert torch.equal(with_weights[1], without[1]), "a neighbour's weights must not reach a text"


def test_a_mean_of_zero_is_left_alone():
    embedding = torch.tensor([[[1.0, -1.0], [2.0, -2.0]]])
    assert weighted(embedding, torch.tensor([[1.0, 3.0]]), restore_mean=True).isfinite().all()


def items(tokens):
    return [WeightedToken(token, 1.0) for token in tokens]


def test_seventy_five_tokens_are_one_chunk_and_seventy_six_are_two():
    assert [len(chunk) for chunk in cut([items(range(100, 175))], 75, comma=1)] == [75]
    assert [len(chunk) for chunk in cut([items(range(100, 176))], 75, comma=1)] == [75, 1]
    assert [len(chunk) for chunk in cut([[]], 75, comma=1)] == [0]


@pytest.mark.parametrize(("comma_at", "first"), [(60, 61), (55, 56), (54, 75), (74, 75)])
def test_a_tag_at_the_end_of_a_chunk_moves_to_the_next_one(comma_at, first):
    """The comma may lie at most 20 tokens back."""
    tokens = list(range(100, 190))
    tokens[comma_at] = 1
    chunks = cut([items(tokens)], 75, comma=1)
    assert len(chunks[0]) == first
    assert [item.token for chunk in chunks for item in chunk] == tokens


def test_a_comma_after_a_full_chunk_moves_nothing():
    tokens = [*range(100, 160), 1, *range(161, 175), 1, 200]
    assert [len(chunk) for chunk in cut([items(tokens)], 75, comma=1)] == [75, 2]


def test_break_starts_a_chunk(towers):
    encoder = reading(towers)
    both = encoder.encode(["a cat BREAK a dog"])["tokens"]
    assert both.shape[1] == 2 * CONTEXT
    apart = encoder.encode(["a cat", "a dog"])["tokens"]
    torch.testing.assert_close(both[0], apart.reshape(2 * CONTEXT, -1), atol=1e-5, rtol=1e-5)
    assert reading(towers, syntax="novelai").encode(["a cat BREAK a dog"])["tokens"].shape[1] == CONTEXT


@given(st.lists(st.lists(st.integers(0, 3), max_size=40), min_size=1, max_size=4), st.integers(1, 9))
def test_cutting_loses_no_token_and_fills_no_chunk_too_far(sections, capacity):
    chunks = cut([items(section) for section in sections], capacity, comma=1)
    assert [item.token for chunk in chunks for item in chunk] == [token for section in sections for token in section]
    assert all(len(chunk) <= capacity for chunk in chunks)


def test_texts_used_together_get_one_number_of_chunks(towers):
    encoder = reading(towers)
    together = encoder.encode_together({"prompt": [LONG, "a cat"], "empty": ["", ""]})
    lengths = {key: value["tokens"].shape[1] for key, value in together.items()}
    assert len(set(lengths.values())) == 1
    assert lengths["prompt"] >= 2 * CONTEXT
    short = together["prompt"]["tokens"][1]
    torch.testing.assert_close(short[:CONTEXT], encoder.encode(["a cat"])["tokens"][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(short[CONTEXT : 2 * CONTEXT], encoder.encode([""])["tokens"][0], atol=1e-5, rtol=1e-5)
    assert reading(towers, chunks=2).encode(["a cat"])["tokens"].shape[1] == 2 * CONTEXT


def test_the_pooled_embedding_is_of_the_second_encoders_first_chunk(towers, tokenizer):
    encoder = reading(towers, 2)
    with torch.inference_mode():
        pooled = towers[1].model(plain_ids(tokenizer, ["a cat"])).text_embeds
    torch.testing.assert_close(encoder.encode(["a cat BREAK a dog"])["pooled"], pooled, atol=1e-5, rtol=1e-5)
    assert encoder.encode(["a cat"])["tokens"].shape == (1, CONTEXT, 16 + 20)
    assert torch.equal(encoder.encode(["(a cat:1.5)"])["pooled"], encoder.encode(["(a cat:0.5)"])["pooled"])


def test_sdxl_reads_an_empty_reference_as_zeros_and_an_empty_prompt_as_text(towers):
    together = reading(towers, 2, zero_empty=True).encode_together(
        {"prompt": ["", "a cat"], "negative": ["", "bad"]}, references=["negative"]
    )
    assert not together["negative"]["tokens"][0].any()
    assert not together["negative"]["pooled"][0].any()
    assert together["negative"]["tokens"][1].any()
    assert together["prompt"]["tokens"][0].any()


@pytest.mark.parametrize(
    "text", ["((" * 5000, "(x:0) " * 1700, "{" * 10_000, "𓀀" * 10_000, "<|endoftext|>" * 700, "\0\n\t"]
)
def test_any_text_has_finite_embeddings(towers, text):
    for syntax in ("plain", "a1111", "novelai"):
        assert reading(towers, syntax=syntax).encode([text, ""])["tokens"].isfinite().all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("blue_hair, ^_^", "blue hair, ^_^"),
        ("@_@ big_eyes,>_<", "@_@ big eyes,>_<"),
        ("x^_^", "x^ ^"),
        ("T_T, o_o, (o)_(o)", "T_T, o_o, (o)_(o)"),
        ("__", "  "),
    ],
)
def test_underscores_are_spaces_but_emoticons_stay(text, expected):
    assert spaced(text) == expected


def test_the_embedded_model_reads_chunks_of_its_own_length(networks_folder):
    encoder = load_text_encoder(networks_folder / "main", torch.device("cpu"), TextSettings(syntax="a1111"))
    assert encoder.towers[0].context == 48
    assert encoder.encode([LONG, "a"])["tokens"].shape[1] % 48 == 0
    assert encoder.encode(["a"])["tokens"].shape == (1, 48, 32)
