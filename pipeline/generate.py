"""Stage `generate@<arm>`: one arm of the study becomes an image set and a trace.

The work is cut into shards by the study. A shard is finished when its file is there with the right fingerprint;
what is finished is kept, whatever happened to the run that made it.
"""

import argparse
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Never

import torch
from datasets import Features, Image, List, Value
from PIL import Image as PillowImage
from tqdm import tqdm

from pipeline import chunks as chunks_module
from pipeline import conditioning as conditioning_module
from pipeline import dynamic_negative as dynamic_negative_module
from pipeline import emphasis as emphasis_module
from pipeline import guidance as guidance_module
from pipeline import networks as networks_module
from pipeline import parametrisation as parametrisation_module
from pipeline import perturbation as perturbation_module
from pipeline import postprocess as postprocess_module
from pipeline import sampler as sampler_module
from pipeline import scale as scale_module
from pipeline import schedulers as schedulers_module
from pipeline import text_encoder as text_encoder_module
from pipeline import trace as trace_module
from pipeline import underscores as underscores_module
from pipeline.arm import Arm
from pipeline.errors import run_stage
from pipeline.files import file_digest, fingerprint
from pipeline.guidance import Guidance, Network, Text, guidance_of
from pipeline.layout import SETS, TRACES
from pipeline.networks import DenoisingNetwork, check_pair, load_network
from pipeline.prompts import arm_negatives, arm_prompts, study_prompts, unrelated_prompts
from pipeline.sampler import sample
from pipeline.schedulers import build_scheduler
from pipeline.shards import encode_png, shard_fingerprint, write_shard
from pipeline.study import Study, load_study
from pipeline.text_encoder import TextEncoder, load_text_encoder
from pipeline.trace import trace_rows
from pipeline.weights import network_digest

FEATURES = Features(
    {
        "image_id": Value("string"),
        "image": Image(),
        "arm": Value("string"),
        "pair_id": Value("int64"),
        "prompt": Value("string"),
        "negative_prompt": Value("string"),
        "seed": Value("int64"),
    }
)
TRACE_FEATURES = Features(
    {
        "image_id": Value("string"),
        "step": Value("int32"),
        "timestep": Value("float32"),
        "sigma": Value("float32"),
        "direction": Value("float32"),
        "references": List(Value("string")),
        "relative_norms": List(Value("float32")),
        "cosines": List(Value("float32")),
    }
)
# What decides a pixel besides weights and settings: our own algebra and loop, and the libraries that compute.
_CODE = (
    chunks_module,
    conditioning_module,
    dynamic_negative_module,
    emphasis_module,
    guidance_module,
    networks_module,
    parametrisation_module,
    perturbation_module,
    postprocess_module,
    sampler_module,
    scale_module,
    schedulers_module,
    text_encoder_module,
    trace_module,
    underscores_module,
)
_LIBRARIES = ("torch", "diffusers", "transformers")


@dataclass(frozen=True)
class Shard:
    """Pictures [start, stop) of an arm, and the fingerprint of everything that determines them."""

    part: int
    start: int
    stop: int
    fingerprint: str

    @property
    def name(self) -> str:
        return f"part-{self.part:05d}.parquet"


def arm_texts(study: Study, arm_name: str) -> dict[Text, list[str]]:
    """The texts that an arm's networks read, one a picture of the study each. Raises InputError."""
    arm, prompts = study.arm(arm_name), study_prompts(study)
    own = arm_prompts(arm, prompts)
    needed = {prediction.text for prediction in guidance_of(arm).predictions()}
    texts: dict[Text, list[str]] = {"prompt": own}
    if "empty" in needed:
        texts["empty"] = [""] * len(own)
    if "negative" in needed:
        texts["negative"] = arm_negatives(arm, own, study.text.syntax)
    if "unrelated" in needed:
        texts["unrelated"] = unrelated_prompts(own, prompts)
    return texts


def plan_shards(study: Study, arm_name: str, texts: Mapping[Text, list[str]]) -> list[Shard]:
    """Cut an arm into shards. Raises InputError where a network is missing."""
    arm = study.arm(arm_name)
    guidance = guidance_of(arm)
    used = {prediction.network for prediction in guidance.predictions()}
    common = {
        "arm": arm.model_dump(exclude={"description", "negative_preset", "negative_prompt"}),
        "sampler": study.sampler.model_dump(),
        "text": study.text.model_dump(),
        "batch": study.generate.batch,
        "main": network_digest(Path(study.model.main), with_text_encoder=True),
        "guide": network_digest(Path(study.model.guide), with_text_encoder=False) if "guide" in used else None,
        "code": [file_digest(Path(module.__file__ or "")) for module in _CODE],
        "libraries": {name: version(name) for name in _LIBRARIES},
        "machine": platform.machine(),
    }
    shards = []
    for part, start in enumerate(range(0, study.generate.pictures, study.generate.shard)):
        stop = min(start + study.generate.shard, study.generate.pictures)
        own = {
            "texts": {text: values[start:stop] for text, values in texts.items()},
            "seeds": [study.generate.first_seed + start, stop - start],
        }
        shards.append(Shard(part, start, stop, fingerprint([arm_name, common, own])))
    return shards


class ArmGenerator:
    """Draws pictures of one arm; networks are loaded once, on first use."""

    def __init__(self, study: Study, arm_name: str, device: torch.device):
        self.study, self.arm_name, self.device = study, arm_name, device
        self.arm: Arm = study.arm(arm_name)
        self.guidance: Guidance = guidance_of(self.arm)
        self.text_encoder: TextEncoder = load_text_encoder(Path(study.model.main), device, study.text)
        self.networks: dict[Network, DenoisingNetwork] = {"main": load_network(Path(study.model.main), device)}
        if any(prediction.network == "guide" for prediction in self.guidance.predictions()):
            self.networks["guide"] = load_network(Path(study.model.guide), device)
            check_pair(self.networks["main"], self.networks["guide"])

    def draw(
        self, texts: Mapping[Text, list[str]], seeds: list[int]
    ) -> tuple[list[PillowImage.Image], list[dict[str, list[object]]]]:
        """One batch: pictures, and for each picture its trace as columns."""
        conditioning = self.text_encoder.encode_together(texts, references=("empty", "negative", "unrelated"))
        sampler = self.study.sampler
        scheduler = build_scheduler(sampler, self.networks["main"].schedule.config)
        samples, trace = sample(self.networks, conditioning, self.guidance, scheduler, sampler.steps, seeds)
        pictures = self.networks["main"].to_pictures(samples).permute(0, 2, 3, 1).cpu().numpy()
        traces = [trace_rows(trace, k) for k in range(len(seeds))]
        return [PillowImage.fromarray(picture) for picture in pictures], traces


def generate(study: Study, arm_name: str, sets: Path, traces: Path, device: torch.device) -> tuple[int, int]:
    """Draw what is missing of an arm; returns (shards drawn, shards in all).

    Shards of other fingerprints are replaced and shards beyond the study's number are deleted. Raises InputError.
    """
    texts = arm_texts(study, arm_name)
    shards = plan_shards(study, arm_name, texts)
    folder, trace_folder = sets / arm_name, traces / arm_name
    names = {shard.name for shard in shards}
    for stale in (*folder.glob("*"), *folder.glob(".*.tmp"), *trace_folder.glob("*"), *trace_folder.glob(".*.tmp")):
        if stale.name not in names:
            stale.unlink()
    missing = [s for s in shards if not _finished(s, folder, trace_folder)]
    if missing:
        generator = ArmGenerator(study, arm_name, device)
        total = sum(shard.stop - shard.start for shard in missing)
        with tqdm(total=total, desc=f"generate {arm_name}", unit="picture", disable=None) as bar:
            for shard in missing:
                _write(shard, generator, texts, folder, trace_folder, bar)
    return len(missing), len(shards)


def _finished(shard: Shard, folder: Path, trace_folder: Path) -> bool:
    return all(shard_fingerprint(place / shard.name) == shard.fingerprint for place in (folder, trace_folder))


def _batches(shard: Shard, batch: int) -> Iterator[range]:
    for start in range(shard.start, shard.stop, batch):
        yield range(start, min(start + batch, shard.stop))


def _write(
    shard: Shard,
    generator: ArmGenerator,
    texts: Mapping[Text, list[str]],
    folder: Path,
    trace_folder: Path,
    bar: "tqdm[Never]",
) -> None:
    study, arm_name = generator.study, generator.arm_name
    columns: dict[str, list[object]] = {name: [] for name in FEATURES}
    trace: dict[str, list[object]] = {name: [] for name in TRACE_FEATURES}
    # A negative prompt that is only probed has not made the picture.
    used = any(term.reference.text == "negative" for term in generator.guidance.terms)
    negatives = texts["negative"] if used and "negative" in texts else [""] * len(texts["prompt"])
    for batch in _batches(shard, study.generate.batch):
        seeds = [study.generate.first_seed + k for k in batch]
        pictures, traces = generator.draw({text: [values[k] for k in batch] for text, values in texts.items()}, seeds)
        for k, seed, picture, steps in zip(batch, seeds, pictures, traces, strict=True):
            image_id = f"{arm_name}-{k:06d}"
            row = (
                image_id,
                {"bytes": encode_png(picture), "path": None},
                arm_name,
                k,
                texts["prompt"][k],
                negatives[k],
                seed,
            )
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
            trace["image_id"] += [image_id] * len(steps["step"])
            for name, values in steps.items():
                trace[name] += values
        bar.update(len(batch))
    # The set's shard is the sign that the trace is there as well, so it is written last.
    write_shard(trace_folder / shard.name, trace, TRACE_FEATURES, shard.fingerprint)
    write_shard(folder / shard.name, columns, FEATURES, shard.fingerprint)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.generate", description=__doc__)
    parser.add_argument("--arm", required=True, help="an arm of params.yaml")
    arguments = parser.parse_args()
    study = load_study()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    drawn, total = generate(study, arguments.arm, SETS, TRACES, device)
    print(
        f"generate {arguments.arm}: {study.generate.pictures} pictures in {SETS / arguments.arm} "
        f"({drawn} of {total} shards drawn, {total - drawn} kept)"
    )


if __name__ == "__main__":
    run_stage(main)
