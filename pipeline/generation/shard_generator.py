"""One shard of an arm, drawn: the bytes of its files, and what they cost."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from PIL import Image as PillowImage

from pipeline.cost.shard_cost import ShardCost, total_cost
from pipeline.errors import InputError, is_out_of_memory
from pipeline.generation.arm_generator import ArmGenerator, GeneratedBatch
from pipeline.generation.loaded_model import LoadedModel
from pipeline.generation.shard_files import SET_FEATURES, TRACE_FEATURES, GeneratedShard
from pipeline.generation.shard_plan import ShardTask, batch_seeds, masks_of
from pipeline.generation.start_images import StartImages
from pipeline.generation.trajectory import TRAJECTORY_FEATURES, trajectory_fingerprint, watched_of
from pipeline.storage.places import Places
from pipeline.storage.shards import encode_png, encode_table
from pipeline.study.study import Study


class ShardGenerator:
    """Generates shards of one arm, with networks that it shares with the study's other arms.

    Raises InputError where they do not fit into memory.
    """

    def __init__(
        self, study: Study, arm_name: str, places: Places, device: torch.device, model: LoadedModel | None = None
    ):
        self.study, self.arm_name, self.device = study, arm_name, device
        torch.set_num_threads(study.generate.threads)
        model = model or LoadedModel(study, device)
        with _fitting(self._too_large("its networks")):
            self._generator = ArmGenerator(study, arm_name, device, model)
        setting = study.arm(arm_name).image_to_image
        self._masks = masks_of(study, arm_name)
        self._starts = None if setting is None else StartImages(study, setting, places.sets, device, model)

    def draw(self, task: ShardTask, progress: Callable[[int], object]) -> GeneratedShard:
        """Draw a shard; `progress` is told the number of images after each batch.

        Raises InputError where a batch does not fit into memory.
        """
        study, arm_name, shard = self.study, self.arm_name, task.shard
        columns: dict[str, list[object]] = {name: [] for name in SET_FEATURES}
        trace: dict[str, list[object]] = {name: [] for name in TRACE_FEATURES}
        frames: dict[str, list[object]] = {name: [] for name in TRAJECTORY_FEATURES}
        # A negative prompt that is only probed has not made the image.
        guidance = self._generator.guidance
        predictions = (guidance.main, *(term.reference for term in guidance.terms))
        told = dict.fromkeys(text for prediction in predictions for text in prediction.texts)
        own = {text for text, named in study.arm(arm_name).texts.items() if named.degraded is None}
        # Neither has one of a term whose scale is 1, which no network reads.
        used = [text for text in told if text in task.texts and (text == "negative" or text in own)]
        costs: list[ShardCost] = []
        pairs = study.pairs_of(arm_name)
        for batch in shard.batches(study.generate.batch):
            texts, seeds = task.texts_of(batch), batch_seeds(study, arm_name, batch)
            negatives = [", ".join(filter(None, row)) for row in zip(*(texts[text] for text in used), strict=True)]
            negatives = negatives or [""] * len(batch)
            drawn = self._draw_batch(task, batch, watched_of(batch, study.generate.watched))
            costs.append(drawn.cost)
            ids = [f"{arm_name}-{k:06d}" for k in batch]
            numbers = pairs[batch.start : batch.stop]
            rows = zip(ids, drawn.images, numbers, texts["prompt"], negatives, seeds, strict=True)
            for image_id, image, number, prompt, negative, seed in rows:
                _add(columns, image_id, _png(image), arm_name, number, prompt, negative, seed)
            for image_id, steps in zip(ids, drawn.traces, strict=True):
                trace["image_id"] += [image_id] * len(steps["step"])
                for name, values in steps.items():
                    trace[name] += values
            for image_id, way in zip(ids, drawn.trajectories, strict=False):
                for frame in way:
                    _add(frames, image_id, frame.step, frame.sigma, _png(frame.image))
            progress(len(batch))
        kept = trajectory_fingerprint(shard, study.generate.watched)
        return GeneratedShard(
            shard,
            encode_table(columns, SET_FEATURES, shard.fingerprint),
            encode_table(trace, TRACE_FEATURES, shard.fingerprint),
            encode_table(frames, TRAJECTORY_FEATURES, kept) if frames["image_id"] else None,
            total_cost(costs, shard.fingerprint),
        )

    def measure_again(self, task: ShardTask) -> ShardCost:
        """The cost of a shard's first batch, generated again for its cost alone."""
        drawn = self._draw_batch(task, next(task.shard.batches(self.study.generate.batch)), 0)
        return total_cost([drawn.cost], task.shard.fingerprint)

    def _draw_batch(self, task: ShardTask, batch: range, watched: int) -> GeneratedBatch:
        starts = None
        if self._starts is not None:
            start = self._starts.start
            drawn_first = "" if start.is_folder else f"draw arm {start.start} first, whose images are then read, or "
            with _fitting(self._too_large(f"the images of '{start.start}' that it starts from", drawn_first)):
                starts = self._starts(task.shard.part, batch)
        with _fitting(self._batch_too_large(len(batch))):
            seeds = batch_seeds(self.study, self.arm_name, batch)
            masks = None if self._masks is None else self._masks(batch)
            return self._generator.draw(task.texts_of(batch), seeds, starts, watched, masks)

    def _too_large(self, what: str, way_out: str = "") -> str:
        return (
            f"arm '{self.arm_name}': {what} do not fit into memory ({self.device}, model {self.study.model.name}); "
            f"{way_out}take less with model.loading (dtype=float16, offload, attention_slicing, vae_slicing), or a "
            "smaller model"
        )

    def _batch_too_large(self, images: int) -> str:
        smaller = (
            "A smaller batch is not taken by itself, since it rounds otherwise and the images would differ in their "
            f"last bits: compose with generate.batch={images // 2}, which regenerates the study, or use"
        )
        return (
            f"{images} images of arm '{self.arm_name}' at once do not fit into memory. "
            f"{smaller if images > 1 else 'It helps to use'} model.loading's slicing, tiling and offload"
        )


@contextmanager
def _fitting(refusal: str) -> Iterator[None]:
    """Raises InputError with `refusal` where memory is too small."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(refusal) from None


def _add(columns: dict[str, list[object]], *row: object) -> None:
    for name, value in zip(columns, row, strict=True):
        columns[name].append(value)


def _png(image: PillowImage.Image) -> dict[str, bytes | None]:
    return {"bytes": encode_png(image), "path": None}
