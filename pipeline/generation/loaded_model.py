"""The networks of a study on one device, loaded once for all of its arms."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch

from pipeline.generation.shard_plan import replaced_parts
from pipeline.guidance.algebra import Text
from pipeline.guidance.chance import Chance
from pipeline.networks.checkpoints import Checkpoint, check_fit, locate
from pipeline.networks.denoiser import SampledNetwork
from pipeline.networks.denoisers.unet import DTYPES
from pipeline.networks.text.conditioning import Conditioning, degraded
from pipeline.networks.text.encoded_texts import EncodedTexts
from pipeline.networks.text.text_encoder import TextEncoder
from pipeline.study.study import Study


class LoadedModel:
    """A study's main network, guide and text encoder on `device`, each loaded when an arm first asks for it.

    Texts are encoded once: every arm reads the same prompts. Raises InputError, on access, for what cannot be loaded.
    """

    def __init__(self, study: Study, device: torch.device):
        self.study, self.device = study, device

    @cached_property
    def text_encoder(self) -> TextEncoder:
        model = self.study.model
        dtype, swapped = DTYPES[model.loading.dtype], self._replaced.get("text_encoder")
        load = self._checkpoint.family.load_texts
        encoder: TextEncoder = load(self._checkpoint, self.device, self.study.text, dtype, swapped)
        return encoder

    @cached_property
    def main(self) -> SampledNetwork:
        vae = self._replaced.get("vae")
        load = self._checkpoint.family.load
        model = self.study.model
        main: SampledNetwork = load(self._checkpoint, self.device, model.loading, vae, how=model.lora)
        return main

    @cached_property
    def guide(self) -> SampledNetwork:
        model = self.study.model
        source = locate(model.guide, model.config_of_guide)
        load, latents = source.family.load, self.main.latents
        guide: SampledNetwork = load(source, self.device, model.loading, latents=latents, how=model.weaken)
        check_fit(self.main, guide)
        return guide

    def encode(self, texts: Mapping[Text, Sequence[str]]) -> dict[Text, Conditioning]:
        """The texts of a batch, [B] each, for one call of a network."""
        return self._texts.encode_together(texts, references=set(texts) - {"prompt"})

    def degrade(
        self,
        conditioning: Mapping[Text, Conditioning],
        texts: Mapping[Text, Sequence[str]],
        text: Text,
        share: float,
        seeds: Sequence[int],
    ) -> Conditioning:
        """The embeddings of `text` with a `share` of its words as the empty text has them, drawn from `seeds` [B]."""
        told = conditioning[text]
        content = self._texts.content(texts[text], told["tokens"].shape[1])
        return degraded(told, conditioning["empty"], content.to(self.device), share, Chance(tuple(seeds), 0))

    def telling_padding(
        self, conditioning: Mapping[Text, Conditioning], texts: Mapping[Text, Sequence[str]], text: Text
    ) -> Conditioning:
        """What the network is told of `text`, with `unpadded` [B, L], false where a token is padding."""
        told = conditioning[text]
        unpadded = self._texts.content(texts[text], told["tokens"].shape[1], marks=True)
        return told.adding({"unpadded": unpadded.to(self.device)})

    @cached_property
    def _texts(self) -> EncodedTexts:
        return EncodedTexts(self.text_encoder)

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        return locate(self.study.model.main, self.study.model.config)

    @cached_property
    def _replaced(self) -> dict[str, Checkpoint]:
        model = self.study.model
        return {part: locate(source, model.config) for part, source in replaced_parts(model).items()}
