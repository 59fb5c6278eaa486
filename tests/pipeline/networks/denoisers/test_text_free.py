"""The layers above the first cross-attention: evaluated once for all texts, with the same result."""

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from pipeline.networks.denoisers.text_free import text_free_layers
from pipeline.networks.denoisers.unet import DenoisingNetwork
from pipeline.networks.families import SD, SDXL
from pipeline.networks.text.conditioning import Conditioning

BLOCKS = {
    "attention first": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "attention later": ("DownBlock2D", "CrossAttnDownBlock2D"),
}


def network(**settings):
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (32, 64),
            "layers_per_block": 2,
            "cross_attention_dim": 16,
            "attention_head_dim": 4,
            "down_block_types": BLOCKS["attention first"],
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            **settings,
        }
    )
    unet = unet.eval().to(memory_format=torch.channels_last)
    family = SDXL if "addition_embed_type" in settings else SD
    return DenoisingNetwork(unet, DDPMScheduler(), patch=1, family=family)


def conditioning(rows, time_ids=None):
    torch.manual_seed(1)
    added = {} if time_ids is None else {"pooled": torch.randn(rows, 20), "time_ids": time_ids}
    return Conditioning({"tokens": torch.randn(rows, 5, 16), **added})


def rows_seen(layers):
    """How many rows each layer is really evaluated for, after its hooks have cut its input."""
    seen = []
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    return seen


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("linear", [False, True], ids=["SD 1", "SD 2"])
def test_several_texts_are_drawn_as_each_by_itself(kind, linear):
    up = ("CrossAttnUpBlock2D", "UpBlock2D") if kind == "attention later" else ("UpBlock2D", "CrossAttnUpBlock2D")
    net = network(down_block_types=BLOCKS[kind], up_block_types=up, use_linear_projection=linear)
    x, texts, timestep = torch.randn(2, 4, 8, 8), conditioning(6), torch.tensor(300)
    together = net.at_timestep(x, timestep, texts, 3)
    each = [net.at_timestep(x, timestep, texts.rows(slice(2 * k, 2 * k + 2))) for k in range(3)]
    torch.testing.assert_close(together, torch.cat(each), rtol=1e-4, atol=1e-5)
    assert (each[0] - each[1]).abs().max() > 1e-3, "the texts matter"
    torch.testing.assert_close(net.at_timestep(x, timestep, texts.rows(slice(2))), each[0], rtol=0, atol=0)


def test_layers_without_text_see_every_sample_once():
    net = network(down_block_types=BLOCKS["attention later"], up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"))
    layers = text_free_layers(net.unet)
    # Time, first convolution, two residual blocks and a downsampler, then a block as far as its self-attention.
    assert len(layers) == 2 + 3 + 5
    assert layers[-1] is net.unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1
    free, bound = rows_seen(layers), rows_seen([net.unet.mid_block])
    net.at_timestep(torch.randn(2, 4, 8, 8), torch.tensor(300), conditioning(6), 3)
    assert free == [2] * len(layers)
    assert bound == [6]


def test_nothing_is_shared_where_pooled_text_enters_every_residual_block():
    sdxl = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 2,
        "projection_class_embeddings_input_dim": 32,
    }
    net = network(**sdxl)
    assert text_free_layers(net.unet) == []
    texts = conditioning(4, torch.ones(4, 6))
    x, timestep = torch.randn(2, 4, 8, 8), torch.tensor(300)
    second = texts.rows(slice(2, None))
    torch.testing.assert_close(
        net.at_timestep(x, timestep, texts, 2)[2:], net.at_timestep(x, timestep, second), rtol=1e-4, atol=1e-5
    )


def test_a_failure_inside_a_call_leaves_the_next_one_whole():
    net = network()
    x, texts = torch.randn(2, 4, 8, 8), conditioning(4)
    expected = net.at_timestep(x, torch.tensor(300), texts.rows(slice(2)))
    with pytest.raises(RuntimeError):
        net.at_timestep(x, torch.tensor(300), Conditioning({"tokens": texts["tokens"][:, :, :7]}), 2)
    assert torch.equal(net.at_timestep(x, torch.tensor(300), texts.rows(slice(2))), expected)
