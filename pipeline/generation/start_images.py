"""The images that image-to-image starts from."""

from functools import cached_property
from pathlib import Path

import torch
from PIL import Image as PillowImage

from pipeline.generation.arm_generator import ArmGenerator
from pipeline.generation.loaded_model import LoadedModel
from pipeline.generation.shard_plan import Shard, arm_texts, batch_seeds, batch_texts, plan_shards
from pipeline.guidance.algebra import Text
from pipeline.storage.remote_path import AnyPath
from pipeline.storage.shards import decode_images, read_set, read_table, shard_fingerprint
from pipeline.study.sampler import ImageToImage
from pipeline.study.study import Study


class StartImages:
    """The images that image-to-image starts from: those on disk where they are the right ones, else drawn here.

    Drawing an arm's images again gives the same bytes, so the result does not depend on which of the two it was.
    """

    def __init__(self, study: Study, start: ImageToImage, sets: AnyPath, device: torch.device, model: LoadedModel):
        self.study, self.start, self.sets, self.device, self.model = study, start, sets, device, model
        self._drawn: dict[int, list[PillowImage.Image]] = {}

    @cached_property
    def _texts(self) -> dict[Text, list[str]]:
        return arm_texts(self.study, self.start.start)

    @cached_property
    def _shards(self) -> list[Shard]:
        return plan_shards(self.study, self.start.start, self._texts, self.device.type)

    @cached_property
    def _generator(self) -> ArmGenerator:
        return ArmGenerator(self.study, self.start.start, self.device, self.model)

    def __call__(self, part: int, batch: range) -> list[PillowImage.Image]:
        """The start images of a batch of shard `part`. Raises InputError where there are too few."""
        if part not in self._drawn:
            self._drawn = {part: self._of_shard(part)}
        first = part * self.study.generate.shard
        return [self._drawn[part][k - first] for k in batch]

    def _of_shard(self, part: int) -> list[PillowImage.Image]:
        count = self.study.generate.shard
        if self.start.is_folder:
            table = read_set(Path(self.start.start), ["image"])
            return list(decode_images(table.slice(part * count, count)))
        shard = self._shards[part]
        path = self.sets / self.start.start / shard.name
        if shard_fingerprint(path) == shard.fingerprint:
            return list(decode_images(read_table(path, ["image"])))
        images: list[PillowImage.Image] = []
        for batch in shard.batches(self.study.generate.batch):
            seeds = batch_seeds(self.study, self.start.start, batch)
            images += self._generator.draw(batch_texts(self._texts, batch), seeds).images
        return images
