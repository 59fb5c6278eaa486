"""Lumina 2 and Z-Image: how their language models read texts, and what damage does to blocks of one stream."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import InputError
from pipeline.guidance.algebra import Perturbation
from pipeline.guidance.attention_space import VSF
from pipeline.guidance.chance import Chance
from pipeline.guidance.references import ConditionNoise
from pipeline.networks.checkpoints import locate
from pipeline.networks.denoisers.flow_transformer import FlowTransformer
from pipeline.networks.families import LUMINA2
from pipeline.networks.joint_blocks import normed, projected
from pipeline.networks.perturbation import perturbed
from pipeline.networks.stream_blocks import DamagedStream, ImageOfStream, turned
from pipeline.networks.text.conditioning import Conditioning, noised
from pipeline.networks.text.text_encoder import TextEncoder
from pipeline.networks.weights.weight_files import network_digest
from pipeline.prompting.text_settings import TextSettings

CPU = torch.device("cpu")
FAMILIES = pytest.mark.parametrize("name", ["lumina2", "z_image"])
TEXTS = ["1person, blue hair, smile, hat", "pattern"]
SYSTEM = LUMINA2.texts[0].system


@pytest.fixture(scope="module")
def encoder_of(flows_folder: Path) -> Callable[..., TextEncoder]:
    """The text encoder of a family, with text settings."""

    @cache
    def load(name: str, syntax: Any = "plain") -> TextEncoder:
        checkpoint = locate(str(flows_folder / name))
        encoder: TextEncoder = checkpoint.family.load_texts(checkpoint, CPU, TextSettings(syntax=syntax))
        return encoder

    return load


@pytest.fixture(scope="module")
def network_of(flows_folder: Path) -> Callable[[str], FlowTransformer]:
    @cache
    def load(name: str) -> FlowTransformer:
        checkpoint = locate(str(flows_folder / name))
        network: FlowTransformer = checkpoint.family.load(checkpoint, CPU)
        return network

    return load


def tokens_of(encoder: TextEncoder, text: str) -> list[int]:
    return [item.token for item in encoder.cut(text)[0][0]]


def test_prompts_of_lumina_2_follow_its_system_prompt_and_negatives_do_not(
    encoder_of: Callable[..., TextEncoder],
) -> None:
    encoder = encoder_of("lumina2")
    tokenizer: Any = encoder.towers[0].tokenizer
    told = encoder.addressed({"prompt": TEXTS, "negative": ["lowres"] * 2}, {"negative"})
    assert [tokens_of(encoder, text) for text in told["prompt"]] == tokenizer(
        [SYSTEM + text for text in TEXTS]
    ).input_ids
    assert [tokens_of(encoder, text) for text in told["negative"]] == tokenizer(["lowres"] * 2).input_ids
    with_system, without = (encoder.encode_together({"prompt": TEXTS}, other)["prompt"] for other in ((), {"prompt"}))
    assert (with_system["read"].sum(1) > without["read"].sum(1)).all()


def test_a_reference_that_is_its_images_own_prompt_is_read_as_the_prompt(
    encoder_of: Callable[..., TextEncoder],
) -> None:
    told = encoder_of("lumina2").addressed({"prompt": TEXTS, "negative": [TEXTS[0], TEXTS[0]]}, {"negative"})
    assert told["negative"] == [SYSTEM + TEXTS[0], TEXTS[0]]


def test_texts_of_z_image_are_messages_of_a_chat(encoder_of: Callable[..., TextEncoder]) -> None:
    encoder = encoder_of("z_image")
    tokenizer: Any = encoder.towers[0].tokenizer
    written = "<|im_start|>user\nhat<|im_end|>\n<|im_start|>assistant\n"
    assert tokens_of(encoder, "hat") == tokenizer(written).input_ids
    assert encoder.addressed({"prompt": TEXTS}) == {"prompt": TEXTS}


def test_a_chat_template_is_part_of_what_determines_an_image(flows_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(flows_folder / "z_image", tmp_path / "z_image"))
    before = network_digest(folder, with_text_encoder=True)
    template = folder / "tokenizer/chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "model"))
    assert network_digest(folder, with_text_encoder=True) != before


@FAMILIES
def test_brackets_of_emphasis_are_no_part_of_what_a_language_model_reads(
    encoder_of: Callable[..., TextEncoder], name: str
) -> None:
    assert tokens_of(encoder_of(name, "a1111"), "a (hat)") == tokens_of(encoder_of(name), "a hat")


@FAMILIES
def test_an_embedding_does_not_depend_on_the_texts_beside_it(encoder_of: Callable[..., TextEncoder], name: str) -> None:
    encoder = encoder_of(name)
    both, alone = encoder.encode(TEXTS), encoder.encode(TEXTS[1:])
    torch.testing.assert_close(both["tokens"][1:], alone["tokens"])
    assert torch.equal(both["read"][1:], alone["read"])
    assert both["tokens"].shape[1] == encoder.towers[0].part.length
    assert not both["tokens"][~both["read"]].any()
    assert both["tokens"][both["read"]].any(1).all()


@FAMILIES
def test_noise_on_an_embedding_is_scaled_by_the_tokens_that_are_read(
    encoder_of: Callable[..., TextEncoder], name: str
) -> None:
    told = encoder_of(name).encode(TEXTS)
    noise = ConditionNoise(scale=0.5, low=0.0, high=0.5, rescale=1.0)
    after = noised(told, noise, 1.0, Chance((1, 2), 0))
    assert not torch.allclose(after["tokens"], told["tokens"].float())
    for row in range(2):
        own, changed = (told_of["tokens"][row][told["read"][row]].float() for told_of in (told, after))
        torch.testing.assert_close(changed.mean(), own.mean())
        torch.testing.assert_close(changed.std(), own.std())


def predicted(
    network: FlowTransformer, told: Conditioning, damage: Perturbation | None = None, x: torch.Tensor | None = None
) -> torch.Tensor:
    if x is None:
        x = torch.randn(2, 16, 8, 12, generator=torch.Generator().manual_seed(0))
    return network(x, 1.3, told, damage=damage, chance=Chance((1, 2), 0))


BLOCKS = ("noise_refiner.0", "layers.0", "layers.1")


@FAMILIES
def test_queries_that_are_not_blurred_are_the_undamaged_network(
    encoder_of: Callable[..., TextEncoder], network_of: Callable[[str], FlowTransformer], name: str
) -> None:
    """So attention is computed as by the networks' own processors, for texts of unequal length in one call."""
    network, told = network_of(name), encoder_of(name).encode(TEXTS)
    plain = predicted(network, told)
    torch.testing.assert_close(predicted(network, told, Perturbation("seg", BLOCKS, 1e-3)), plain)
    assert not torch.allclose(predicted(network, told, Perturbation("seg", BLOCKS, 2.0)), plain, atol=1e-3)
    assert torch.equal(predicted(network, told), plain)


@FAMILIES
@pytest.mark.parametrize("kind", ["pag", "seg", "dropout", "shuffle_tokens", "random_layers"])
def test_damage_to_an_image_does_not_depend_on_the_texts_beside_it(
    encoder_of: Callable[..., TextEncoder], network_of: Callable[[str], FlowTransformer], name: str, kind: Any
) -> None:
    network, told = network_of(name), encoder_of(name).encode(TEXTS)
    damage = Perturbation(kind, BLOCKS, None, 0.5)
    x = torch.randn(2, 16, 8, 12, generator=torch.Generator().manual_seed(0))
    both = predicted(network, told, damage, x)
    assert not torch.allclose(both, predicted(network, told, None, x), atol=1e-3)
    alone = network(x[1:], 1.3, told.rows(slice(1, 2)), damage=damage, chance=Chance((2,), 0))
    torch.testing.assert_close(both[1:], alone, atol=2e-5, rtol=1e-4)


@FAMILIES
def test_positions_of_an_image_attend_to_themselves_and_the_text_alone(
    network_of: Callable[[str], FlowTransformer], name: str
) -> None:
    """What one position of a stream says reaches no other one of the image, and the whole text."""
    block: Any = network_of(name).transformer.layers[0]
    attention = block.attn if name == "lumina2" else block.attention
    before = [3, 5] if name == "lumina2" else None
    image, length = ImageOfStream((2, 4), before), 13
    stream = torch.randn(2, length, 64, generator=torch.Generator().manual_seed(0))
    mask, turns = torch.ones(2, length, dtype=torch.bool), torch.ones(2, length, 8, dtype=torch.complex64)
    mask[0, 11:] = False
    damaged = DamagedStream("pag", image, None)
    given = {"image_rotary_emb" if name == "lumina2" else "freqs_cis": turns}
    plain = damaged(attention, stream, attention_mask=mask, **given)
    for row, begin in enumerate(image.starts(stream)):
        changed = stream.clone()
        changed[row, begin + 2] += 1
        moved = (damaged(attention, changed, attention_mask=mask, **given) - plain)[row].abs().amax(-1) > 1e-6
        of_image = [*range(begin, begin + 8)]
        of_text = [k for k in range(length) if k not in of_image and mask[row, k]]
        assert [k for k in of_image if moved[k]] == [begin + 2]
        assert all(moved[k] for k in of_text)


@FAMILIES
def test_values_turned_round_are_read_at_their_own_distance(
    network_of: Callable[[str], FlowTransformer], encoder_of: Callable[..., TextEncoder], name: str
) -> None:
    """With vsf the image reads the second text's words as its copy in their stream does, and not at other positions."""
    network, texts = network_of(name), encoder_of(name).encode([TEXTS[0], TEXTS[1]])
    own, second = (texts.rows(slice(k, k + 1)) for k in range(2))
    how = VSF(name="vsf", scale=1.5, bias=0.3)
    told = own.adding({f"negative_{key}": second[key] for key in ("tokens", "read")})
    x = torch.randn(1, 16, 8, 12, generator=torch.Generator().manual_seed(0))
    block: Any = network.transformer.layers[0]
    attention = block.attn if name == "lumina2" else block.attention
    seen: list[tuple[Any, dict[str, Any], torch.Tensor]] = []

    def keep(_: Any, given: Any, named: dict[str, Any], result: torch.Tensor) -> None:
        seen.append((given, named, result))

    handle = attention.register_forward_hook(keep, with_kwargs=True)
    network(x, 1.3, told, attention=how)
    handle.remove()
    given, named, found = seen[0]
    stream = given[0] if given else named["hidden_states"]
    turns = named["image_rotary_emb"] if name == "lumina2" else named["freqs_cis"]
    depth = turns.shape[-1] * 2
    split = (layer(stream).unflatten(-1, (-1, depth)) for layer in (attention.to_q, attention.to_k, attention.to_v))
    query, key, value = normed(attention.norm_q, attention.norm_k, *split)
    query, key = turned(query, turns), turned(key, turns)
    each = query.shape[2] // key.shape[2]
    key, value = (y.repeat_interleave(each, 2) for y in (key, value))
    lengths = [int(n) for n in texts["read"].sum(1)]
    begins, size = (lengths, 24) if name == "lumina2" else ([0, 0], 24)
    words = slice(0, lengths[1]) if name == "lumina2" else slice(32, 32 + lengths[1])
    mask = named["attention_mask"]
    near = torch.ones(stream.shape[1], dtype=torch.bool) if mask is None else mask[0].bool()
    images = [query[k, begins[k] : begins[k] + size] for k in range(2)]
    scores = torch.cat(
        [
            torch.einsum("ihd,jhd->hij", images[0], key[0][near]),
            torch.einsum("ihd,jhd->hij", images[1], key[1, words]) - how.bias * depth**0.5,
        ],
        -1,
    )
    values = torch.cat([value[0][near], -how.scale * value[1, words]])
    expected = projected(attention, torch.einsum("hij,jhd->ihd", (scores / depth**0.5).softmax(-1), values).flatten(1))
    for k in range(2):
        torch.testing.assert_close(found[k, begins[k] : begins[k] + size], expected, atol=2e-5, rtol=1e-4)


@FAMILIES
def test_skipped_blocks_are_a_network_without_them(
    encoder_of: Callable[..., TextEncoder], network_of: Callable[[str], FlowTransformer], name: str
) -> None:
    network, told = network_of(name), encoder_of(name).encode(TEXTS)
    skipped = predicted(network, told, Perturbation("skip_layers", ("layers.0",)))
    own, layers = network.transformer, network.transformer.layers
    try:
        own.layers = torch.nn.ModuleList([layers[1]])
        torch.testing.assert_close(predicted(network, told), skipped)
    finally:
        own.layers = layers
    with perturbed(own, Perturbation("skip_layers", ("layers.0",)), (4, 6)):
        assert "forward" in layers[0].__dict__
    assert "forward" not in layers[0].__dict__


def test_a_text_that_is_too_long_is_named_without_the_system_prompt(encoder_of: Callable[..., TextEncoder]) -> None:
    with pytest.raises(InputError) as raised:
        encoder_of("lumina2").encode(["hat, " * 300])
    said = str(raised.value)
    assert said.startswith("'hat, hat, ")
    assert said.endswith("tokens of Gemma 2, system prompt included, and 256 are read; shorten it")
