"""How much of a study is there already, known in a moment and without torch.

The stage `generate` decides by fingerprints, for which it opens networks and shards. Here the record that each arm
keeps beside its images (data/cost) is compared with what the study asks for. The weights of networks are compared by
the digests that the last run took of the model in params.yaml; another model counts as nothing there.
"""

import json
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.code_units import unit_digests
from pipeline.errors import InputError
from pipeline.generation.arm_texts import (
    arm_negatives,
    arm_prompts,
    named_texts,
    prompt_loras,
    prompts_without_loras,
)
from pipeline.generation.called_files import called_embeddings
from pipeline.layout import COSTS, PARAMS, SETS, WEIGHTS
from pipeline.storage.files import file_digest, fingerprint
from pipeline.storage.json_file import read_json_text
from pipeline.study.arm import SAID_ELSEWHERE, Arm
from pipeline.study.study import Study, load_study

# As pipeline/generation/shard_plan.py has them; importing it would import torch. A test holds the two together.
_PIXEL_UNITS = (
    "pipeline/generation",
    "pipeline/guidance",
    "pipeline/networks",
    "pipeline/prompting",
    "pipeline/sampling",
)
_LIBRARIES = ("accelerate", "diffusers", "numpy", "peft", "pillow", "torch", "torchsde", "transformers")


def finished_images(study: Study) -> dict[str, int]:
    """By arm that is generated, how many of its images are there as the study asks for them."""
    networks = _networks(study)
    return {name: _finished(study, name, networks) for name in study.generated}


def recorded_cost(arm_name: str) -> dict[str, Any]:
    """The record that an arm keeps of its images; empty where there is none that can be read."""
    try:
        content = json.loads(read_json_text(COSTS / f"{arm_name}.json"))
    except (OSError, InputError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _finished(study: Study, arm_name: str, networks: Mapping[str, str]) -> int:
    cost = recorded_cost(arm_name)
    recorded = cost.get("inputs") or {}
    wanted = {**expected_inputs(study, arm_name), **networks}
    if not networks or any(recorded.get(key) != value for key, value in wanted.items() if key in recorded):
        return 0
    if not recorded.keys() >= wanted.keys() - networks.keys() or not _same_texts(study, arm_name, recorded):
        return 0
    size, images, done = study.generate.shard, study.generate.images, 0
    for part, start in enumerate(range(0, images, size)):
        name, count = f"part-{part:05d}.parquet", min(size, images - start)
        entry = (cost.get("shards") or {}).get(name)
        if isinstance(entry, dict) and entry.get("images") == count and (SETS / arm_name / name).is_file():
            done += count
    return done


def expected_inputs(study: Study, arm_name: str) -> dict[str, str]:
    """What determines an arm's images, by the names and digests that its record has, without networks and texts."""
    arm = study.arm(arm_name)
    named: dict[str, Any] = {
        f"arms.{arm_name}": arm.model_dump(exclude=SAID_ELSEWHERE),
        "sampler": study.sampler_of(arm).model_dump(),
        "text": study.text.model_dump(),
        "code": {path: digest for unit in _PIXEL_UNITS for path, digest in unit_digests(unit).items()},
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "model.loading": study.model.loading.model_dump(),
        "generate": {"batch": study.generate.batch, "threads": study.generate.threads},
        "machine": {0: platform.machine()},
        "generate.first_seed": [study.seeds_of(arm_name)[0], study.pairs_of(arm_name)[0]],
    }
    if arm.control is not None:
        # Scale and steps of a control are measured on the arm that it follows.
        del named[f"arms.{arm_name}"], named["sampler"]
    return {key: fingerprint(value) for key, value in _flat(named)}


def _same_texts(study: Study, arm_name: str, recorded: Mapping[str, str]) -> bool:
    # The record is of all texts of the study at that time, which may have had another number of images.
    arm, syntax = study.arm(arm_name), study.text.syntax
    loras = [lora.shown for lora in prompt_loras(study)]
    if recorded.get("prompts.loras") != (fingerprint(loras) if loras else None):
        return False
    count = int(recorded_cost(arm_name).get("images") or 0)
    for images in {study.generate.images, count} - {0}:
        prompts = arm_prompts(arm, prompts_without_loras(study, arm.prompt_column, images), syntax)
        if recorded.get("texts.prompt") == fingerprint(prompts):
            return _same_beside_prompts(study, arm, prompts, recorded)
    return False


def _same_beside_prompts(study: Study, arm: Arm, prompts: list[str], recorded: Mapping[str, str]) -> bool:
    syntax, negatives = study.text.syntax, []
    if "texts.negative" in recorded:
        negatives = arm_negatives(arm, prompts, syntax)
        if recorded["texts.negative"] != fingerprint(negatives):
            return False
    texts = {"prompt": prompts, "negative": negatives, **named_texts(arm, prompts, syntax)}
    called = called_embeddings(study, texts)
    embeddings = {f"embeddings.{name}": fingerprint(file_digest(path)) for name, path in called.items()}
    return embeddings == {key: value for key, value in recorded.items() if key.startswith("embeddings.")}


def _networks(study: Study) -> dict[str, str]:
    """Digests of the study's networks, as records have them; empty where the last run was of another model."""
    try:
        if load_study(PARAMS).model != study.model:
            return {}
        weights = json.loads(Path(WEIGHTS).read_text("utf-8"))
    except (InputError, OSError, ValueError):
        return {}
    how = study.model.weaken
    return {
        "networks.main": fingerprint(weights.get("main")),
        "networks.guide": fingerprint([weights.get("guide"), how and how.model_dump()]),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _flat(named: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in named.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
