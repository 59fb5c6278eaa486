"""An IP-Adapter of the main UNet (arXiv 2308.06721): an image encoder, its tokens, and attention that reads them.

The shipped UNet and its text encoder are frozen. The image encoder is learnt with the adapter, since adapters load
theirs as transformers' CLIPVisionModelWithProjection and the embedded CLIP is one of open_clip's.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import ImageProjection
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from models.tinybooru.corpus import Corpus
from models.tinybooru.networks.captions import CaptionTable
from models.tinybooru.networks.families import CANVAS, TEXT_WIDTH, TRAIN_TIMESTEPS, alphas_on, network_loss
from models.tinybooru.networks.run import UNET
from models.tinybooru.networks.text_encoder import encode_text, text_encoder_digest
from models.tinybooru.scorers import ScorerRecipe, ScorerTraining, shifted
from pipeline.networks.weights.adapter_file import cross_attention
from pipeline.storage.files import fingerprint

WEIGHTS, ENCODER = "ip_adapter.safetensors", "image_encoder"
# What diffusers reads an adapter of pooled embeddings as.
TOKENS = 4
# The image is left out as often as arXiv 2308.06721 leaves out image or text: what the empty image then predicts is
# what a negative prompt is evaluated with.
IMAGE_DROPOUT = 0.1
# Captions name all that an image shows, and an image beside its whole caption adds nothing. So a share of the tags is
# kept, which is uniform from here to 1 and none at all below 0.
LEAST_KEPT = -0.3
# At first, without the UNet and at a tenth of its cost, tokens learn to be what the text encoder makes of the image's
# caption, at whose end all of it is read: keys and values of texts know what to do with that.
READING_STEPS = 800


class PassedOn(nn.Module):
    """What a UNet has instead of its projections of images: tokens that are made already."""

    def forward(self, tokens: list[torch.Tensor]) -> list[torch.Tensor]:
        """`tokens`, [B, images, T, D] for each adapter, as they are."""
        return tokens


class Adapter(nn.Module):
    """Encoder and projection to tokens, which are learnt, and the attention that reads them in every block.

    Its keys and values stay those of the texts. Tokens learn to be read by them, within the steps that two cores can
    afford.
    """

    def __init__(self, unet: UNet2DConditionModel):
        """The UNet attends to image tokens from here on."""
        super().__init__()
        self.encoder = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=96,
                intermediate_size=384,
                num_hidden_layers=3,
                num_attention_heads=4,
                image_size=CANVAS,
                patch_size=8,
                projection_dim=TEXT_WIDTH,
            )
        )
        self.projection = ImageProjection(TEXT_WIDTH, TEXT_WIDTH, TOKENS)
        processors = dict(unet.attn_processors)
        for name in cross_attention(unet):
            layer = unet.get_submodule(name.removesuffix(".processor"))
            made = IPAdapterAttnProcessor2_0(layer.to_v.out_features, layer.to_v.in_features, num_tokens=[TOKENS])
            with torch.no_grad():
                made.to_k_ip[0].weight.copy_(layer.to_k.weight)
                made.to_v_ip[0].weight.copy_(layer.to_v.weight)
            processors[name] = made
        # No part of the module: its parameters are those that are learnt.
        self.attention = tuple(processors[name].requires_grad_(False) for name in cross_attention(unet))
        unet.set_attn_processor(processors)  # which empties the mapping
        unet.encoder_hid_proj = PassedOn()
        unet.config.encoder_hid_dim_type = "ip_image_proj"

    def forward(self, images: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
        """Tokens [B, TOKENS, D] of images [B, 3, H, W] in [-1, 1]; those not `shown` [B] are the empty image."""
        mean, std = (images.new_tensor(numbers).view(1, 3, 1, 1) for numbers in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
        embeddings = self.encoder((images / 2 + 0.5 - mean) / std).image_embeds
        tokens: torch.Tensor = self.projection(embeddings * shown[:, None])
        return tokens


class WithTokens(nn.Module):
    """The UNet with its image tokens [B, T, D], called as `network_loss` calls a UNet."""

    def __init__(self, unet: UNet2DConditionModel, tokens: torch.Tensor):
        super().__init__()
        self.unet, self.tokens = unet, tokens

    def forward(self, x: torch.Tensor, level: torch.Tensor, context: torch.Tensor) -> Any:
        """The UNet's output."""
        return self.unet(x, level, context, added_cond_kwargs={"image_embeds": [self.tokens[:, None]]})


class AdapterTraining(ScorerTraining):
    """A resumable run: noisy images, what is left of their captions, and the images themselves as references."""

    def __init__(self, recipe: ScorerRecipe, main: Path, corpus: Corpus, checkpoint: Path, device: torch.device):
        """`main`: the folder of the shipped main network."""
        self.corpus = corpus
        self.unet = UNet2DConditionModel.from_pretrained(main / "unet", use_safetensors=True).to(
            device, memory_format=torch.channels_last
        )
        self.unet.requires_grad_(False)
        self.texts = (
            CLIPTextModel.from_pretrained(main / "text_encoder", use_safetensors=True).float().to(device).eval()
        )
        tokenizer = CLIPTokenizer.from_pretrained(main / "tokenizer")
        self.table = CaptionTable(corpus.tags, tokenizer)
        self.alphas = alphas_on(device)
        data = fingerprint([corpus.mark, tokenizer.get_vocab(), text_encoder_digest(self.texts)])
        torch.manual_seed(recipe.seed)
        super().__init__(recipe, Adapter(self.unet), data, checkpoint, device)

    def loss(self, chosen: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        batch = len(chosen)
        # Half of the references are mirrored: an image that resembles another need not have its layout.
        references = shifted(self.corpus.pixels[chosen], generator)
        mirrored = torch.rand(batch, 1, 1, 1, generator=generator) < 0.5
        references = torch.where(mirrored, references.flip(3), references).to(self.device)
        tags = self.table.table[chosen.numpy()]
        if self.step < READING_STEPS:
            tokens = self.network(references, torch.ones(batch, device=self.device))
            _, end = self.read_texts(tags)
            return F.mse_loss(tokens, end[:, None].expand_as(tokens))
        rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
        kept = rng.random(tags.shape) < rng.uniform(LEAST_KEPT, 1, (batch, 1))
        context, pooled = self.read_texts(np.where(kept, tags, -1))
        shown = (torch.rand(batch, generator=generator) >= IMAGE_DROPOUT).float().to(self.device)
        x0 = (self.corpus.pixels[chosen].float() / 127.5 - 1).to(self.device)
        noise = torch.randn(x0.shape, generator=generator).to(self.device)
        # What an image is about is settled at high noise, so that is seen more often.
        share = torch.rand(batch, generator=generator).sqrt()
        level = (share * TRAIN_TIMESTEPS).long().clamp(max=TRAIN_TIMESTEPS - 1).to(self.device)
        network = WithTokens(self.unet, self.network(references, shown))
        return network_loss(UNET, network, x0, noise, level, context, pooled, self.alphas)

    @torch.no_grad()
    def read_texts(self, tags: npt.NDArray[np.int32]) -> tuple[torch.Tensor, torch.Tensor]:
        """What the frozen text encoder makes of tag numbers [B, T], -1 for none: context [B, L, D], pooled [B, D]."""
        return encode_text(self.texts, torch.from_numpy(self.table.spell(tags)).to(self.device))


def export_adapter(adapter: Adapter, folder: Path) -> None:
    """Write the adapter into `folder` in the layout of the published ones, in half precision.

    `ip_adapter.safetensors` has the keys of arXiv 2308.06721's own files, which number every attention of a UNet, its
    self-attention too. `image_encoder/` is a CLIPVisionModelWithProjection.
    """
    tensors = {
        f"image_proj.{name.replace('image_embeds', 'proj')}": t for name, t in adapter.projection.state_dict().items()
    }
    for k, processor in enumerate(adapter.attention):
        for name, t in processor.state_dict().items():
            tensors[f"ip_adapter.{2 * k + 1}.{name.replace('.0.', '.')}"] = t
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_file({name: t.detach().half().cpu().contiguous() for name, t in tensors.items()}, folder / WEIGHTS)
    adapter.encoder.half().save_pretrained(folder / ENCODER)
