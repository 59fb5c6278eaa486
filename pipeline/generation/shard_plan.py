"""How an arm is cut into shards, and what determines the images of each.

The work is cut by the study and not by whoever does it, so the bytes do not depend on the number of workers. Whatever
decides a pixel enters the fingerprint of its shard.
"""

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.code_units import unit_digests
from pipeline.errors import InputError
from pipeline.generation.arm_guidance import guidance_of
from pipeline.generation.arm_texts import (
    arm_negatives,
    arm_prompts,
    named_texts,
    prompt_loras,
    study_prompts,
    unrelated_prompts,
)
from pipeline.generation.called_files import added_loras, called_embeddings
from pipeline.generation.masks import Masks
from pipeline.generation.reference_images import reference_inputs
from pipeline.guidance.algebra import Text
from pipeline.networks.checkpoints import Checkpoint, check_fit, check_schedules, locate
from pipeline.networks.weights.identification import check_main
from pipeline.networks.weights.weight_files import digest_of, lora_digest, network_digest
from pipeline.storage.files import file_digest, fingerprint
from pipeline.storage.shards import read_table, set_fingerprint, shard_paths
from pipeline.study.arm import SAID_ELSEWHERE
from pipeline.study.model import Model
from pipeline.study.sampler import Canvas, ImageToImage
from pipeline.study.study import Study
from pipeline.study.weaken import WEAKEN, Lora

# The code behind a pixel (pipeline/code_units.py). Settings, texts and files enter a fingerprint by their values, so
# the units that read, check and store them are not here.
PIXEL_UNITS = (
    "pipeline/generation",
    "pipeline/guidance",
    "pipeline/networks",
    "pipeline/prompting",
    "pipeline/sampling",
)
_LIBRARIES = ("accelerate", "diffusers", "numpy", "peft", "pillow", "torch", "torchsde", "transformers")
# Kinds of device and of machine (as Python names them), which round differently.
DEVICES = ("cpu", "cuda")
MACHINES = ("x86_64", "aarch64", "arm64", "AMD64")


@dataclass(frozen=True)
class Shard:
    """Images [start, stop) of an arm, and the fingerprint of everything that determines them."""

    arm: str
    part: int
    start: int
    stop: int
    fingerprint: str

    @property
    def name(self) -> str:
        return f"part-{self.part:05d}.parquet"

    def batches(self, size: int) -> Iterator[range]:
        """The images in batches of `size`."""
        for start in range(self.start, self.stop, size):
            yield range(start, min(start + size, self.stop))


@dataclass(frozen=True)
class ShardTask:
    """A shard to draw, and the texts of its images, one per image each."""

    shard: Shard
    texts: Mapping[Text, list[str]]

    @staticmethod
    def of(shard: Shard, arm_texts: Mapping[Text, list[str]]) -> "ShardTask":
        """From the texts of all images of the arm."""
        return ShardTask(shard, batch_texts(arm_texts, range(shard.start, shard.stop)))

    def texts_of(self, batch: range) -> dict[Text, list[str]]:
        """The texts of a batch of the shard."""
        return batch_texts(self.texts, range(batch.start - self.shard.start, batch.stop - self.shard.start))


def arm_texts(study: Study, arm_name: str) -> dict[Text, list[str]]:
    """The texts that an arm's networks read, one per image of the study each. Raises InputError."""
    arm = study.arm(arm_name)
    prompts = study_prompts(study, arm.prompt_column)
    own = arm_prompts(arm, prompts, study.text.syntax)
    needed = {text for prediction in guidance_of(arm).predictions() for text in prediction.texts}
    texts: dict[Text, list[str]] = {"prompt": own}
    degraded = any(arm.texts[text].degraded is not None for text in arm.read_texts & set(arm.texts))
    if "empty" in needed or degraded:
        texts["empty"] = [""] * len(own)
    if "negative" in needed:
        texts["negative"] = arm_negatives(arm, own, study.text.syntax)
    if "unrelated" in needed:
        texts["unrelated"] = unrelated_prompts(arm, prompts, study.text.syntax)
    return texts | named_texts(arm, own, study.text.syntax)


# The networks and what is made of them, as `common_inputs` calls them.
_NETWORKS = ("main", "main_loras", "replaced", "guide", "guide_lora", "guide_loras")


def library_versions() -> dict[str, str]:
    """The versions of the libraries that decide pixels."""
    return {name: version(name) for name in _LIBRARIES}


@dataclass(frozen=True)
class ArmPlan:
    """An arm cut into shards.

    `inputs` are digests of what determines all of them, by name (arms.cfg.scale, code.pipeline/sampling/sampler.py):
    two plans that differ say by these in what.
    """

    shards: list[Shard]
    inputs: dict[str, str]


def plan_shards(
    study: Study, arm_name: str, texts: Mapping[Text, list[str]], device: str, machine: str | None = None
) -> list[Shard]:
    """Cut an arm into shards, to be generated on a kind of `device` (cpu, cuda) and `machine` (default: this one).

    Raises InputError where a network is missing or the arm does not fit it.
    """
    return plan_arm(study, arm_name, texts, device, machine).shards


def plan_arm(
    study: Study, arm_name: str, texts: Mapping[Text, list[str]], device: str, machine: str | None = None
) -> ArmPlan:
    """Cut an arm into shards, as `plan_shards` does, and name what determines them. Raises InputError."""
    arm = study.arm(arm_name)
    common = common_inputs(study, arm_name, device, machine)
    if embeddings := called_embeddings(study, texts):
        common["embeddings"] = {name: file_digest(path) for name, path in embeddings.items()}
    shards = []
    seeds, pairs = study.seeds_of(arm_name), study.pairs_of(arm_name)
    starts = None if arm.image_to_image is None else start_fingerprints(study, arm.image_to_image, device, machine)
    for part, start in enumerate(range(0, study.generate.images, study.generate.shard)):
        stop = min(start + study.generate.shard, study.generate.images)
        own: dict[str, object] = {
            "texts": {text: values[start:stop] for text, values in texts.items()},
            "seeds": [seeds[start], pairs[start], stop - start],
        }
        if arm.image_to_image is not None and starts is not None:
            own["start"] = [starts[part], arm.image_to_image.strength, arm.image_to_image.noise]
        shards.append(Shard(arm_name, part, start, stop, fingerprint([arm_name, common, own])))
    named = {
        f"arms.{arm_name}": common["arm"],
        **{key: common[key] for key in ("sampler", "text", "code", "libraries")},
        "model.loading": common["loading"],
        "generate": {key: common[key] for key in ("batch", "threads")},
        "networks": {key: common[key] for key in _NETWORKS if key in common},
        "embeddings": common.get("embeddings", {}),
        "machine": dict(enumerate(common["machine"])),
        "texts": {text: values[: study.generate.images] for text, values in texts.items()},
        "prompts": {"loras": [lora.shown for lora in loras]} if (loras := prompt_loras(study)) else {},
        "generate.first_seed": [seeds[0], pairs[0]],
        "image_to_image": starts,
        "inpaint": common.get("inpaint", {}),
        "reference_images": common.get("reference_images", {}),
    }
    return ArmPlan(shards, {key: fingerprint(value) for key, value in _flat(named)})


def _flat(named: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in named.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def common_inputs(study: Study, arm_name: str, device: str, machine: str | None = None) -> dict[str, Any]:
    """What determines every shard of an arm. Raises InputError."""
    arm = study.arm(arm_name)
    guidance = guidance_of(arm)
    model = study.model
    with_guide = "guide" in {prediction.network for prediction in guidance.predictions()}
    main = main_checkpoint(model)
    replaced = {part: locate(source, model.config) for part, source in replaced_parts(model).items()}
    if arm.canvas is not None:
        check_canvas(arm_name, arm.canvas, main)
    if arm.image_to_image is not None:
        from pipeline.sampling.starts import steps_taken  # with diffusers, which no other arm needs here

        steps_taken(study.sampler_of(arm).steps, arm.image_to_image.strength)
    if (masks := masks_of(study, arm_name)) is not None:
        masks.check(1 if main.settings("vae") is None else main.factor, study.generate.images)
    guide = locate(model.guide, model.config_of_guide) if with_guide else None
    check_schedules(study.sampler_of(arm), main, guide)
    common: dict[str, Any] = {
        "arm": arm.model_dump(exclude=SAID_ELSEWHERE),
        "sampler": study.sampler_of(arm).model_dump(),
        "text": study.text.model_dump(),
        "batch": study.generate.batch,
        "threads": study.generate.threads,
        "loading": model.loading.model_dump(),
        "main": network_digest(main, with_text_encoder=True),
        "replaced": {part: digest_of(checkpoint, (part,)) for part, checkpoint in replaced.items()},
        "code": {path: digest for unit in PIXEL_UNITS for path, digest in unit_digests(unit).items()},
        "libraries": library_versions(),
        "machine": [machine or platform.machine(), device],
    }
    loras = [[lora_digest(lora.key, lora.file), lora.weight, lora.text_weight] for lora in added_loras(study)]
    if loras:
        common["main_loras"] = loras
    if arm.inpaint is not None:
        file = arm.inpaint.file
        common["inpaint"] = {
            **arm.inpaint.model_dump(exclude={"file"}),
            "file": None if file is None else file_digest(Path(file)),
        }
    if images := reference_inputs(study, arm_name):
        common["reference_images"] = images
    if guide is not None:
        check_fit(main, guide)
        how = model.weaken
        common["guide"] = [network_digest(guide, with_text_encoder=False), how and how.model_dump()]
        if isinstance(how, Lora):
            common["guide_lora"] = lora_digest(WEAKEN, Path(how.file))
        if loras and model.loras_in_guide:
            common["guide_loras"] = loras
    return common


def masks_of(study: Study, arm_name: str) -> Masks | None:
    """The masks of an arm's images; None where it does not inpaint. Raises InputError."""
    arm = study.arm(arm_name)
    if arm.inpaint is None or arm.image_to_image is None:
        return None
    size = main_checkpoint(study.model).canvas if arm.canvas is None else arm.canvas.size
    return Masks(arm.inpaint, arm.image_to_image, size, f"arms.{arm_name}.inpaint")


def main_checkpoint(model: Model) -> Checkpoint:
    """Where the main network is. Raises InputError where it is missing, or a file that lacks a part of it.

    That a file which replaces one of its parts holds this part is checked as well.
    """
    path = Path(model.main)
    if path.suffix == ".safetensors" and path.is_file():
        needed: tuple[str, ...] = ("unet", "text_encoder", "vae")
        config = None if model.config is None else locate(model.config)
        if config is not None:
            latents = ("vae",) if config.settings("vae") is not None else ()
            needed = (config.family.network, *config.family.text_parts, *latents)
        check_main(path, None if config is None else config.family, needed, replaced_parts(model))
    for part, source in replaced_parts(model).items():
        if Path(source).suffix == ".safetensors" and not locate(source, model.config).in_file(part):
            raise InputError(f"model.{part} {source} holds no {part}; name a file that does, or leave model.{part} out")
    return locate(model.main, model.config)


def replaced_parts(model: Model) -> dict[str, str]:
    """Sources of the parts that are loaded from elsewhere, by part."""
    return {part: s for part, s in (("vae", model.vae), ("text_encoder", model.text_encoder)) if s is not None}


def batch_texts(texts: Mapping[Text, list[str]], batch: range) -> dict[Text, list[str]]:
    """The texts of a batch, from those of all images."""
    return {text: [values[k] for k in batch] for text, values in texts.items()}


def batch_seeds(study: Study, arm_name: str, batch: range) -> list[int]:
    """The seeds of a batch of an arm, one per image."""
    seeds = study.seeds_of(arm_name)
    return [seeds[k] for k in batch]


def start_fingerprints(study: Study, start: ImageToImage, device: str, machine: str | None = None) -> list[str]:
    """What determines the start images of each shard. Raises InputError where a folder has too few images."""
    if not start.is_folder:
        planned = plan_shards(study, start.start, arm_texts(study, start.start), device, machine)
        return [shard.fingerprint for shard in planned]
    folder = Path(start.start)
    count = sum(len(read_table(path, ["image"])) for path in shard_paths(folder))
    if count < study.generate.images:
        raise InputError(
            f"image_to_image.from {folder} holds {count} images, generate.images is {study.generate.images}; "
            "each image needs one to start from"
        )
    return [set_fingerprint(folder)] * -(-study.generate.images // study.generate.shard)


def check_canvas(arm_name: str, canvas: Canvas, main: Checkpoint) -> None:
    """Raise InputError where a canvas is not whole patches of the network's, or larger than its grid of positions."""
    unit, most = main.unit, main.longest_side
    where = f"arms.{arm_name}.canvas is {canvas.width}x{canvas.height}"
    if canvas.width % unit or canvas.height % unit:
        down = [max(unit, side // unit * unit) for side in (canvas.width, canvas.height)]
        raise InputError(
            f"{where}; width and height must be multiples of {unit} for this model, for instance {down[0]}x{down[1]}"
        )
    if most is not None and max(canvas.width, canvas.height) > most:
        raise InputError(f"{where}; this model has positions for sides of up to {most} pixels")
