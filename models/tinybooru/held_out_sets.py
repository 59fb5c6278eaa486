"""Sets drawn from held-out prompts with the embedded networks, for the world check."""

import os
from collections.abc import Callable, Mapping
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pipeline.compose import compose
from pipeline.generation.arm_generator import ArmGenerator
from pipeline.generation.arm_guidance import guidance_of
from pipeline.generation.arm_texts import arm_negatives
from pipeline.generation.shard_files import SET_FEATURES
from pipeline.generation.shard_plan import plan_shards
from pipeline.guidance.algebra import Text
from pipeline.layout import CONF
from pipeline.storage.files import fingerprint
from pipeline.storage.shards import encode_png, shard_fingerprint, write_shard
from pipeline.study.arm import Arm
from pipeline.study.study import Study, parse_study
from pipeline.tinybooru.build import plans
from pipeline.tinybooru.figures import GREETING
from pipeline.tinybooru.flaws import BAD_ANATOMY, BAD_HANDS, EXTRA_DIGIT
from pipeline.tinybooru.image import Plan

SHARD = 256
# Kinds of prompts that do not name the quality.
WITHOUT_QUALITY = ("no quality", "waving")
UNGUIDED: dict[str, Any] = {"method": "unguided", "scale": 1.0}


@cache
def held_out(which: str, images: int) -> list[Plan]:
    """The plans behind a kind of prompts: held-out combinations, in index order."""
    wanted: dict[str, Callable[[Plan], bool]] = {
        "good": lambda plan: True,
        "good people": lambda plan: plan.kind == "person",
        "glasses": wears_glasses,
        "empty": lambda plan: True,
        "bad anatomy": lambda plan: plan.malformed and plan.flaws == (BAD_ANATOMY,),
        "no quality": lambda plan: plan.kind == "person" and not plan.flaws,
        "waving": lambda plan: plan.style == GREETING,
        "extra digit": lambda plan: plan.flaws == (BAD_HANDS, EXTRA_DIGIT),
    }
    of_any_quality = which in ("bad anatomy", "no quality", "extra digit")
    chosen = (plan for plan in plans("validation", 0, not of_any_quality) if wanted[which](plan))
    # Few plans wear glasses: finding as many takes a minute and more.
    return list(tqdm(islice(chosen, images), f"prompts: {which}", images, unit="prompt", delay=5, disable=None))


def wears_glasses(plan: Plan) -> bool:
    """Whether a plan's tags name glasses of any kind."""
    return not {"glasses", "sunglasses"}.isdisjoint(plan.tags)


def prompt_of(which: str, plan: Plan) -> str:
    """The prompt of a plan: its tags, without the quality tag where the figure asks for that, or nothing."""
    if which == "empty":
        return ""
    return ", ".join(tag for tag in plan.tags if which not in WITHOUT_QUALITY or tag != plan.quality)


def study_of(
    arms: Mapping[str, dict[str, Any]],
    images: int,
    guide: Path | None = None,
    steps: int | None = None,
    compiled: bool = False,
) -> Study:
    """The default study's networks and sampler with these arms, and with another guide or number of steps if given."""
    content = compose(CONF, ["+model.loading.compile=true"] if compiled else [])
    content["arms"] = dict(arms)
    if guide is not None:
        content["model"] = {**content["model"], "guide": os.path.relpath(guide)}
    content["baseline"] = "unguided"
    if steps is not None:
        content["sampler"] = {**content["sampler"], "steps": steps}
    content["generate"] = {**content["generate"], "images": images}
    content["reference"] = {**content["reference"], "images": 2 * images}
    return parse_study(content, "a study of held-out prompts")


def texts_of(arm: Arm, prompts: list[str]) -> dict[Text, list[str]]:
    """The texts that an arm's networks read, one per image each."""
    given: dict[Text, list[str]] = {
        "prompt": prompts,
        "empty": [""] * len(prompts),
        "negative": arm_negatives(arm, prompts, "plain"),
    }
    needed = {prediction.text for prediction in guidance_of(arm).predictions()}
    return {text: values for text, values in given.items() if text in needed}


def draw_set(study: Study, name: str, prompts: list[str], folder: Path, device: torch.device) -> None:
    """Draw an arm's images of these prompts, seeds 0 and on, into `folder`, except the existing shards.

    Shards of another number of images are deleted.
    """
    texts = texts_of(study.arm(name), prompts)
    mark = fingerprint([shard.fingerprint for shard in plan_shards(study, name, texts, device.type)])
    paths = {start: folder / f"part-{start // SHARD:05d}.parquet" for start in range(0, len(prompts), SHARD)}
    for beyond in set(folder.glob("part-*.parquet")) - set(paths.values()):
        beyond.unlink()
    missing = [start for start, path in paths.items() if shard_fingerprint(path) != mark]
    generator = ArmGenerator(study, name, device) if missing else None
    with tqdm(total=len(missing) * SHARD, desc=f"drawn {name}", unit="image", disable=None) as bar:
        for start in missing:
            assert generator is not None
            columns: dict[str, list[object]] = {column: [] for column in SET_FEATURES}
            for first in range(start, min(start + SHARD, len(prompts)), study.generate.batch):
                ids = range(first, min(first + study.generate.batch, start + SHARD, len(prompts)))
                read = {text: [values[k] for k in ids] for text, values in texts.items()}
                images = generator.draw(read, list(ids)).images
                for k, image in zip(ids, images, strict=True):
                    row = {
                        "image_id": f"{name}-{k:06d}", "image": {"bytes": encode_png(image), "path": None},
                        "arm": name, "pair_id": k, "prompt": prompts[k], "seed": k,
                    }  # fmt: skip
                    for column, values in columns.items():
                        values.append(row.get(column, ""))
                bar.update(len(ids))
            write_shard(paths[start], columns, SET_FEATURES, mark)
