"""The networks of a study on one device, loaded once for all of its arms."""

import platform
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from pipeline.code_units import unit_digests
from pipeline.errors import InputError
from pipeline.generation.called_files import added_loras, called_embeddings
from pipeline.generation.reference_images import read_reference_images
from pipeline.generation.shard_plan import arm_texts, batch_texts, library_versions, replaced_parts
from pipeline.guidance.algebra import Network, Text
from pipeline.guidance.chance import Chance
from pipeline.networks.checkpoints import Checkpoint, check_fit, locate
from pipeline.networks.denoiser import SampledNetwork
from pipeline.networks.denoisers.unet import DenoisingNetwork
from pipeline.networks.families import Family
from pipeline.networks.image_prompt import ImagePrompt, ImageReader, load_attention
from pipeline.networks.text.conditioning import Conditioning, degraded
from pipeline.networks.text.embedding_cache import EmbeddingCache
from pipeline.networks.text.encoded_texts import MOST_BYTES, EncodedTexts
from pipeline.networks.text.text_encoder import TextEncoder
from pipeline.networks.weights.loaded_part import DTYPES
from pipeline.networks.weights.weight_files import digest_of, lora_digest
from pipeline.storage.files import fingerprint
from pipeline.study.main_lora import AddedLora
from pipeline.study.study import Study


class LoadedModel:
    """A study's main network, guide and text encoder on `device`, each loaded when an arm first asks for it.

    Texts are encoded once: every arm reads the same prompts. Raises InputError, on access, for what cannot be loaded.
    """

    def __init__(self, study: Study, device: torch.device):
        self.study, self.device = study, device

    @property
    def family(self) -> Family:
        """The family of its main network."""
        return self._checkpoint.family

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """What reads the study's texts; without weights where they are encoded before all else."""
        return self._load_texts(weights=not self._checkpoint.family.encodes_first)

    def _load_texts(self, weights: bool = True) -> TextEncoder:
        dtype, swapped = DTYPES[self.study.model.loading.dtype], self._replaced.get("text_encoder")
        load = self._checkpoint.family.load_texts
        offload = "text_encoders" in self.study.model.loading.offload
        text, loras, embeddings = self.study.text, self._loras, self._embeddings
        encoder: TextEncoder = load(
            self._checkpoint, self.device, text, dtype, swapped, weights, loras, embeddings, offload
        )
        return encoder

    @cached_property
    def _loras(self) -> tuple[AddedLora, ...]:
        return added_loras(self.study)

    @cached_property
    def _embeddings(self) -> dict[str, Path]:
        # The names of all arms: the longest counts, so an arm's own would read its texts alike.
        texts = (arm_texts(self.study, name) for name in self.study.generated)
        return {name: path for own in texts for name, path in called_embeddings(self.study, own).items()}

    @cached_property
    def main(self) -> SampledNetwork:
        if self._checkpoint.family.encodes_first:
            self._encode_all()  # and drop what encodes, before memory is asked for more
        vae = self._replaced.get("vae")
        load = self._checkpoint.family.load
        model = self.study.model
        main: SampledNetwork = load(self._checkpoint, self.device, model.loading, vae, how=self._loras)
        return main

    @cached_property
    def guide(self) -> SampledNetwork:
        model = self.study.model
        source = locate(model.guide, model.config_of_guide)
        load, latents = source.family.load, self.main.latents
        how = [*(self._loras if model.loras_in_guide else ()), *(() if model.weaken is None else (model.weaken,))]
        guide: SampledNetwork = load(source, self.device, model.loading, latents=latents, how=how, role="guide")
        check_fit(self.main, guide)
        return guide

    def reading_images(self, name: Network, arm_name: str) -> SampledNetwork:
        """Main network or guide as it generates an arm: reading its reference images, where it does."""
        network = self.main if name == "main" else self.guide
        how, adapter = self.study.arm(arm_name).reference_images, self.study.model.ip_adapter
        if how is None or adapter is None or (name == "guide" and not adapter.in_guide):
            return network
        assert isinstance(network, DenoisingNetwork), network  # preflight refuses others
        if name not in self._image_attention:
            self._image_attention[name] = load_attention(network.unet, Path(adapter.file), network.device)
        try:
            return network.reading(ImagePrompt.of(network.unet, self._image_attention[name], how.strength, how.layers))
        except InputError as error:
            raise InputError(f"arms.{arm_name}.reference_images.layers: {error}") from None

    @cached_property
    def _image_attention(self) -> dict[Network, dict[str, Any]]:
        return {}

    def image_tokens(self, arm_name: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Tokens [1, N, T, W] of an arm's reference images and of as many empty ones; None where it has none."""
        arm = self.study.arm(arm_name)
        return None if arm.reference_images is None else self._image_reader.tokens(read_reference_images(arm_name, arm))

    @cached_property
    def _image_reader(self) -> ImageReader:
        adapter, main = self.study.model.ip_adapter, self.main
        assert adapter is not None  # a study refuses arms with images and without it
        assert isinstance(main, DenoisingNetwork), main  # preflight refuses others
        return ImageReader(Path(adapter.file), Path(adapter.image_encoder), main.unet, main.device)

    def encode(self, texts: Mapping[Text, Sequence[str]]) -> dict[Text, Conditioning]:
        """The texts of a batch, [B] each, for one call of a network."""
        return self._texts.encode_together(texts, _references(texts))

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

    def _encode_all(self) -> None:
        """Encode every text of the study as its batches will ask for them, and drop the text encoders."""
        size = self.study.generate.batch
        for name in self.study.generated:
            texts = arm_texts(self.study, name)
            for start in range(0, self.study.generate.images, size):
                stop = min(start + size, self.study.generate.images)
                batch = batch_texts(texts, range(start, stop))
                self._texts.encode_first(batch, _references(batch))
        self._texts.drop()

    @cached_property
    def _texts(self) -> EncodedTexts:
        family = self._checkpoint.family
        if not family.encodes_first:
            return EncodedTexts(self.text_encoder)
        first = self._replaced.get("text_encoder")
        loras = self._loras if family.reads_clip else ()
        key = fingerprint(
            {
                "encoders": digest_of(self._checkpoint, family.text_parts),
                "replaced": None if first is None else digest_of(first, ("text_encoder",)),
                "loras": [[lora_digest(one.key, one.file), one.text_weight] for one in loras],
                "settings": self.study.text.model_dump(),
                "dtype": self.study.model.loading.dtype,
                "code": {unit: dict(unit_digests(unit)) for unit in ("pipeline/networks", "pipeline/prompting")},
                "libraries": library_versions(),
                "machine": [platform.machine(), self.device.type, self.study.generate.threads],
            }
        )
        return EncodedTexts(self.text_encoder, MOST_BYTES, self._load_texts, EmbeddingCache(key), self.device)

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        return locate(self.study.model.main, self.study.model.config)

    @cached_property
    def _replaced(self) -> dict[str, Checkpoint]:
        model = self.study.model
        return {part: locate(source, model.config) for part, source in replaced_parts(model).items()}


def _references(texts: Mapping[Text, Sequence[str]]) -> set[Text]:
    """The texts to move away from."""
    return set(texts) - {"prompt"}
