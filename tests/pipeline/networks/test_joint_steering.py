"""Laws of NAG, VSF and NASA on transformers in which image and text meet in one attention."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention

from pipeline.cost.evaluation_counts import prediction_flops
from pipeline.errors import InputError
from pipeline.guidance.algebra import MAIN, Prediction
from pipeline.guidance.attention_space import NAG, NASA, VSF
from pipeline.networks.checkpoints import locate
from pipeline.networks.denoisers.flow_transformer import FlowTransformer
from pipeline.networks.perturbation import transformer_blocks
from pipeline.networks.text.conditioning import Conditioning, joined, told
from pipeline.networks.text.encoded_texts import EncodedTexts
from pipeline.prompting.text_settings import TextSettings
from pipeline.study.sampler import Canvas

CPU = torch.device("cpu")
ACTING = {
    "nag": NAG(name="nag", scale=5, tau=2.5, alpha=0.25),
    "vsf": VSF(name="vsf", scale=1.5, bias=0.3),
    "nasa": NASA(name="nasa", scale=0.4),
}
methods = pytest.mark.parametrize("how", ACTING.values(), ids=ACTING)
families = pytest.mark.parametrize("name", ["sd3", "flux", "flux2_klein", "chroma", "qwen_image", "lumina2", "z_image"])
TEXTS = {
    "prompt": ["1person, blue hair", "pattern"],
    "negative": ["worst quality, lowres", "blurry"],
    "empty": ["", ""],
}


class Steered:
    """A network, its texts and noisy samples."""

    def __init__(self, folder: Path):
        checkpoint = locate(str(folder))
        self.network: FlowTransformer = checkpoint.family.load(checkpoint, CPU)
        self.encoder = EncodedTexts(checkpoint.family.load_texts(checkpoint, CPU, TextSettings(t5_length=24)))
        self.texts = self.encoder.encode_together(TEXTS)
        length = self.texts["negative"]["tokens"].shape[1]
        for text, words in TEXTS.items():
            unpadded = self.encoder.content(words, length, marks=True)
            self.texts[text] = self.texts[text].adding({"unpadded": unpadded})
        shape = self.network.shape_of(Canvas(width=24, height=16))
        self.x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))

    def plain(self, text: str = "prompt") -> torch.Tensor:
        return self.network(self.x, 1.0, self.texts[text])

    def steered(self, how: Any, away: str = "negative", rows: slice = slice(None)) -> torch.Tensor:
        own = told(self.texts, steering(how, away)).rows(rows)
        return self.network(self.x[rows], 1.0, own, attention=how)


def steering(how: Any, away: str = "negative") -> Prediction:
    return replace(MAIN, name=how.name, attention=how.model_copy(update={"text": away}))


@pytest.fixture(scope="module")
def on(flows_folder: Path) -> Callable[[str], Steered]:
    return cache(lambda name: Steered(flows_folder / name))


def processors_of(network: FlowTransformer) -> list[int]:
    return [id(module.processor) for module in network.module.modules() if hasattr(module, "processor")]


@families
@methods
def test_every_method_acts_and_leaves_nothing_behind(on: Callable[[str], Steered], name: str, how: Any) -> None:
    own = on(name)
    plain, state = own.plain(), [set(module.__dict__) for module in own.network.module.modules()]
    processors = processors_of(own.network)
    assert (own.steered(how) - plain).abs().max() > 1e-3
    assert torch.equal(own.plain(), plain)
    assert [set(module.__dict__) for module in own.network.module.modules()] == state
    assert processors_of(own.network) == processors


@families
@pytest.mark.parametrize(
    ("how", "within"),
    [
        (NAG(name="nag", scale=1), 1e-5),
        (NAG(name="nag", scale=5, alpha=0), 1e-5),
        (NASA(name="nasa", scale=0), 1e-5),
        (VSF(name="vsf", scale=1, bias=100), 1e-5),
    ],
    ids=["nag scale 1", "nag alpha 0", "nasa scale 0", "vsf bias 100"],
)
def test_neutral_settings_are_the_plain_prediction(
    on: Callable[[str], Steered], name: str, how: Any, within: float
) -> None:
    torch.testing.assert_close(on(name).steered(how), on(name).plain(), atol=within, rtol=0)


@families
def test_nag_away_from_the_prompt_itself_changes_nothing(on: Callable[[str], Steered], name: str) -> None:
    own = on(name)
    texts = {**own.texts, "negative": own.texts["prompt"]}
    found = own.network(own.x, 1.0, told(texts, steering(ACTING["nag"])), attention=ACTING["nag"])
    torch.testing.assert_close(found, own.plain(), atol=1e-5, rtol=0)


@families
@methods
def test_an_image_does_not_depend_on_its_batch_and_two_texts_stay_apart(
    on: Callable[[str], Steered], name: str, how: Any
) -> None:
    own = on(name)
    together = own.steered(how)
    alone = torch.cat([own.steered(how, rows=slice(k, k + 1)) for k in range(2)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    texts = joined([told(own.texts, steering(how, away)) for away in ("negative", "empty")])
    both = own.network(own.x, 1.0, texts, 2, attention=how)
    torch.testing.assert_close(both, torch.cat([together, own.steered(how, "empty")]), atol=1e-4, rtol=0)


@families
@methods
def test_blocks_are_chosen_by_name(on: Callable[[str], Steered], name: str, how: Any) -> None:
    own = on(name)
    block = "layers.0" if own.network.family.one_stream else "transformer_blocks.0"
    first = own.steered(how.model_copy(update={"layers": (block,)}))
    assert (first - own.plain()).abs().max() > 1e-5
    assert (first - own.steered(how)).abs().max() > 1e-5
    with pytest.raises(InputError, match="the network has no transformer block under 'attic'"):
        own.steered(how.model_copy(update={"layers": ("attic",)}))


@families
@methods
def test_it_costs_less_than_a_second_evaluation_of_both(on: Callable[[str], Steered], name: str, how: Any) -> None:
    own = on(name)
    prediction = steering(how)
    one = prediction_flops(own.network, MAIN, own.x[:1], told(own.texts, MAIN).rows(slice(1)))
    steered = prediction_flops(own.network, prediction, own.x[:1], told(own.texts, prediction).rows(slice(1)))
    assert one < steered < 2.2 * one


class _AuthorsVSF:
    """SD3's joint attention as the authors of VSF compute it: one sequence of image, prompt, and the second text twice.

    The second text reads itself and the image, and nobody reads it but itself; its copy, with values turned round, is
    read by the image alone.
    """

    def __init__(self, how: VSF, image: int, prompt: int, second: int):
        self.how, self.second = how, second
        self.mask = torch.zeros(image + prompt + second, image + prompt + 2 * second)
        self.mask[image:, -second:] = -torch.inf
        self.mask[: image + prompt, image + prompt : image + prompt + second] = -torch.inf
        self.mask[image + prompt :, image : image + prompt] = -torch.inf
        self.mask[:image, -second:] -= how.bias

    def __call__(self, attn: Attention, image: torch.Tensor, encoder_hidden_states: torch.Tensor, **_: Any) -> Any:
        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.view(len(x), -1, attn.heads, x.shape[-1] // attn.heads).transpose(1, 2)

        text = encoder_hidden_states
        query, key, value = (heads(layer(image)) for layer in (attn.to_q, attn.to_k, attn.to_v))
        added = [heads(layer(text)) for layer in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)]
        query, key = attn.norm_q(query), attn.norm_k(key)
        added[:2] = [attn.norm_added_q(added[0]), attn.norm_added_k(added[1])]
        query = torch.cat([query, added[0]], 2)
        key = torch.cat([key, added[1], added[1][:, :, -self.second :]], 2)
        value = torch.cat([value, added[2], -self.how.scale * added[2][:, :, -self.second :]], 2)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=self.mask).transpose(1, 2).flatten(2)
        of_image, of_text = attn.to_out[0](out[:, : image.shape[1]]), out[:, image.shape[1] :]
        return of_image, of_text if attn.context_pre_only else attn.to_add_out(of_text)


def test_vsf_on_sd3_is_what_its_authors_compute(on: Callable[[str], Steered]) -> None:
    own, how = on("sd3"), ACTING["vsf"]
    # The second text without padding, one length for both rows.
    unpadded = own.texts["empty"]["unpadded"][0]
    texts = {**own.texts, "negative": own.texts["empty"]}
    second = texts["negative"]["tokens"][:, unpadded]
    prompt, pooled = texts["prompt"]["tokens"], texts["prompt"]["pooled"]
    network, image = own.network.module, 4 * 6
    before = {name: block.attn.processor for name, block in transformer_blocks(network, None).items()}
    authors = _AuthorsVSF(how, image, prompt.shape[1], second.shape[1])
    for block in transformer_blocks(network, None).values():
        block.attn.set_processor(authors)
    try:
        theirs = own.network(own.x, 1.0, Conditioning({"tokens": torch.cat([prompt, second], 1), "pooled": pooled}))
    finally:
        for name, block in transformer_blocks(network, None).items():
            block.attn.set_processor(before[name])
    found = own.network(own.x, 1.0, told(texts, steering(how)), attention=how)
    torch.testing.assert_close(found, theirs, atol=1e-5, rtol=1e-5)
    assert (found - own.plain()).abs().max() > 1e-3
