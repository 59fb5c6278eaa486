"""One shard of an arm, drawn: the bytes of its files, and what they cost."""

from collections.abc import Callable

import torch
from PIL import Image as PillowImage

from pipeline.arm_generator import ArmGenerator
from pipeline.cost import ShardCost, total_cost
from pipeline.errors import InputError
from pipeline.places import Places
from pipeline.shard_files import SET_FEATURES, TRACE_FEATURES, DrawnShard
from pipeline.shard_plan import ShardTask, batch_seeds
from pipeline.shards import encode_png, encode_table
from pipeline.start_pictures import StartPictures
from pipeline.study import Study
from pipeline.trajectory import TRAJECTORY_FEATURES, trajectory_fingerprint, watched_of


class ShardDrawer:
    """Draws shards of one arm. Its networks are loaded once."""

    def __init__(self, study: Study, arm_name: str, places: Places, device: torch.device):
        self.study, self.arm_name = study, arm_name
        torch.set_num_threads(study.generate.threads)
        self._generator = ArmGenerator(study, arm_name, device)
        setting = study.arm(arm_name).image_to_image
        self._starts = None if setting is None else StartPictures(study, setting, places.sets, device)

    def draw(self, task: ShardTask, progress: Callable[[int], object]) -> DrawnShard:
        """Draw a shard; `progress` is told the number of pictures after each batch.

        Raises InputError where a batch does not fit into memory.
        """
        study, arm_name, shard = self.study, self.arm_name, task.shard
        columns: dict[str, list[object]] = {name: [] for name in SET_FEATURES}
        trace: dict[str, list[object]] = {name: [] for name in TRACE_FEATURES}
        frames: dict[str, list[object]] = {name: [] for name in TRAJECTORY_FEATURES}
        # A negative prompt that is only probed has not made the picture.
        used = any(term.reference.text == "negative" for term in self._generator.guidance.terms)
        costs: list[ShardCost] = []
        for batch in shard.batches(study.generate.batch):
            seeds, start = batch_seeds(study, batch), None if self._starts is None else self._starts(shard.part, batch)
            texts, watched = task.texts_of(batch), watched_of(batch, study.generate.watched)
            negatives = texts["negative"] if used and "negative" in texts else [""] * len(batch)
            try:
                drawn = self._generator.draw(texts, seeds, start, watched)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                raise self._too_large(len(batch)) from None
            costs.append(drawn.cost)
            ids = [f"{arm_name}-{k:06d}" for k in batch]
            rows = zip(ids, drawn.pictures, batch, texts["prompt"], negatives, seeds, strict=True)
            for image_id, picture, k, prompt, negative, seed in rows:
                _add(columns, image_id, _png(picture), arm_name, k, prompt, negative, seed)
            for image_id, steps in zip(ids, drawn.traces, strict=True):
                trace["image_id"] += [image_id] * len(steps["step"])
                for name, values in steps.items():
                    trace[name] += values
            for image_id, way in zip(ids, drawn.trajectories, strict=False):
                for frame in way:
                    _add(frames, image_id, frame.step, frame.sigma, _png(frame.picture))
            progress(len(batch))
        kept = trajectory_fingerprint(shard, study.generate.watched)
        return DrawnShard(
            shard,
            encode_table(columns, SET_FEATURES, shard.fingerprint),
            encode_table(trace, TRACE_FEATURES, shard.fingerprint),
            encode_table(frames, TRAJECTORY_FEATURES, kept) if frames["image_id"] else None,
            total_cost(costs, shard.fingerprint),
        )

    def measure_again(self, task: ShardTask) -> ShardCost:
        """The cost of a shard's first batch, drawn again for its cost alone."""
        batch = next(task.shard.batches(self.study.generate.batch))
        again = None if self._starts is None else self._starts(task.shard.part, batch)
        drawn = self._generator.draw(task.texts_of(batch), batch_seeds(self.study, batch), again)
        return total_cost([drawn.cost], task.shard.fingerprint)

    def _too_large(self, pictures: int) -> InputError:
        smaller = (
            "A smaller batch is not taken by itself, since it rounds otherwise and the pictures would differ in their "
            f"last bits: compose with generate.batch={pictures // 2}, which draws the study anew, or use"
        )
        return InputError(
            f"{pictures} pictures of arm '{self.arm_name}' at once do not fit into memory. "
            f"{smaller if pictures > 1 else 'It helps to use'} model.loading's slicing, tiling and offload"
        )


def _is_out_of_memory(error: Exception) -> bool:
    # torch has a type for a GPU's, and for the CPU's nothing but a text.
    return isinstance(
        error, torch.OutOfMemoryError | MemoryError
    ) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def _add(columns: dict[str, list[object]], *row: object) -> None:
    for name, value in zip(columns, row, strict=True):
        columns[name].append(value)


def _png(picture: PillowImage.Image) -> dict[str, bytes | None]:
    return {"bytes": encode_png(picture), "path": None}
