"""Sampled images as a labeller may see them: the bare pixels, under the name of the task."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from labeling.records import SampledPair, SampledTask
from pipeline.errors import InputError
from pipeline.storage.shards import decode_images, encode_png, read_table, shard_paths

Sampled = SampledTask | SampledPair


def wanted_images(tasks: Iterable[Sampled]) -> dict[str, tuple[str, str]]:
    """The arm and image id of every image that the tasks show, by the name it is shown under."""
    wanted = {}
    for task in tasks:
        if isinstance(task, SampledTask):
            wanted[f"{task.task_id}.png"] = task.arm, task.image_id
        else:
            wanted[f"{task.task_id}-left.png"] = task.left_arm, task.left_image_id
            wanted[f"{task.task_id}-right.png"] = task.right_arm, task.right_image_id
    return wanted


def load_images(wanted: Mapping[str, tuple[str, str]], sets: Path) -> Iterator[tuple[str, Image.Image]]:
    """Name and image of all that is wanted, in one pass over the shards of each arm.

    Raises InputError where an image is missing or unreadable.
    """
    names: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, (arm, image_id) in wanted.items():
        names[arm][image_id].append(name)
    for arm, of_image in names.items():
        for shard in shard_paths(sets / arm):
            table = read_table(shard, ["image_id", "image"])
            table = table.filter(pc.is_in(table.column("image_id"), pa.array(list(of_image), pa.string())))
            try:
                for image_id, image in zip(table.column("image_id").to_pylist(), decode_images(table), strict=True):
                    for name in of_image.pop(image_id):
                        yield name, image
            except OSError as error:
                raise InputError(f"{shard}: an image cannot be read ({error}); delete it and run `dvc repro`") from None
        if of_image:
            raise InputError(
                f"{sets / arm} has no image '{next(iter(of_image))}' of the sample; `dvc repro sample` regenerates it"
            )


def write_images(wanted: Mapping[str, tuple[str, str]], sets: Path, folder: Path) -> None:
    """Write the wanted images to `folder`, as `load_images` finds them.

    Every image is re-encoded, so neither metadata nor the encoder tells where it comes from, and all files have
    one time, since they are written arm by arm.
    """
    for name, image in load_images(wanted, sets):
        (folder / name).write_bytes(encode_png(image))
        os.utime(folder / name, (0, 0))


def load_task_images(tasks: Sequence[SampledTask], sets: Path) -> list[Image.Image]:
    """The images of tasks, in their order."""
    found = dict(load_images(wanted_images(tasks), sets))
    return [found[f"{task.task_id}.png"] for task in tasks]
