"""Stage `generate@<arm>`: one arm of the study becomes an image set and a trace.

The work is cut into shards by the study. A shard is finished when its file is there with the right fingerprint;
what is finished is kept, whatever happened to the run that made it.
"""

import argparse
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Never

import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import Features, Image, List, Value
from PIL import Image as PillowImage
from tqdm import tqdm

from pipeline import chunks as chunks_module
from pipeline import conditioning as conditioning_module
from pipeline import degrade as degrade_module
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
from pipeline.anlas import anlas
from pipeline.arm import Arm
from pipeline.checkpoints import check_fit, locate
from pipeline.conditioning import Conditioning
from pipeline.cost import Cost, ShardCost, device_name, evaluations, prediction_flops, total_cost
from pipeline.degrade import lora_digest, weaken
from pipeline.drawing import Canvas, ImageToImage
from pipeline.errors import InputError, run_stage
from pipeline.files import file_digest, fingerprint
from pipeline.guidance import Guidance, Network, Text, guidance_of
from pipeline.layout import COSTS, SETS, TRACES
from pipeline.networks import DTYPES, DenoisingNetwork, check_pair, load_network
from pipeline.prompts import arm_negatives, arm_prompts, study_prompts, unrelated_prompts
from pipeline.sampler import sample
from pipeline.schedulers import Start, build_scheduler, steps_taken
from pipeline.shards import (
    decode_images,
    encode_png,
    read_set,
    read_table,
    set_fingerprint,
    shard_fingerprint,
    shard_paths,
    write_shard,
)
from pipeline.study import Model, Study, load_study
from pipeline.text_encoder import TextEncoder, load_text_encoder
from pipeline.trace import trace_rows
from pipeline.weaken_settings import Lora
from pipeline.weights import digest_of, network_digest

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
    degrade_module,
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


# Of an arm: what changes no pixel, and what enters a fingerprint as what it stands for.
_SAID_ELSEWHERE = {"description", "family", "negative_preset", "negative_prompt", "image_to_image", "sampler"}


def plan_shards(study: Study, arm_name: str, texts: Mapping[Text, list[str]]) -> list[Shard]:
    """Cut an arm into shards. Raises InputError where a network is missing or the arm does not fit it."""
    arm = study.arm(arm_name)
    guidance = guidance_of(arm)
    model = study.model
    with_guide = "guide" in {prediction.network for prediction in guidance.predictions()}
    main = locate(model.main, model.config)
    replaced = {part: locate(source, model.config) for part, source in _replaced(model).items()}
    if arm.canvas is not None:
        check_canvas(arm_name, arm.canvas, main.factor)
    if arm.image_to_image is not None:
        steps_taken(study.sampler_of(arm).steps, arm.image_to_image.strength)
    common = {
        "arm": arm.model_dump(exclude=_SAID_ELSEWHERE),
        "sampler": study.sampler_of(arm).model_dump(),
        "text": study.text.model_dump(),
        "batch": study.generate.batch,
        "loading": model.loading.model_dump(),
        "main": network_digest(main, with_text_encoder=True),
        "replaced": {part: digest_of(checkpoint, (part,)) for part, checkpoint in replaced.items()},
        "code": [file_digest(Path(module.__file__ or "")) for module in _CODE],
        "libraries": {name: version(name) for name in _LIBRARIES},
        "machine": platform.machine(),
    }
    if with_guide:
        guide = locate(model.guide, model.config)
        check_fit(main, guide)
        how = model.weaken
        common["guide"] = [network_digest(guide, with_text_encoder=False), how and how.model_dump()]
        if isinstance(how, Lora):
            common["guide_lora"] = lora_digest(how)
    shards = []
    starts = None if arm.image_to_image is None else start_fingerprints(study, arm.image_to_image)
    for part, start in enumerate(range(0, study.generate.pictures, study.generate.shard)):
        stop = min(start + study.generate.shard, study.generate.pictures)
        own: dict[str, object] = {
            "texts": {text: values[start:stop] for text, values in texts.items()},
            "seeds": [study.generate.first_seed + start, stop - start],
        }
        if arm.image_to_image is not None and starts is not None:
            own["start"] = [starts[part], arm.image_to_image.strength, arm.image_to_image.noise]
        shards.append(Shard(part, start, stop, fingerprint([arm_name, common, own])))
    return shards


def _replaced(model: Model) -> dict[str, str]:
    return {part: s for part, s in (("vae", model.vae), ("text_encoder", model.text_encoder)) if s is not None}


def arm_anlas(study: Study, arm_name: str) -> int:
    """What NovelAI would ask for a picture like the arm's, by the prices of V3 for every model. Raises InputError."""
    arm = study.arm(arm_name)
    sampler = study.sampler_of(arm)
    trained = locate(study.model.main, study.model.config).canvas
    width, height = trained if arm.canvas is None else (arm.canvas.width, arm.canvas.height)
    return anlas(
        width,
        height,
        sampler.steps,
        smea="smea" if sampler.scheduler == "smea_like" else "none",
        strength=1.0 if arm.image_to_image is None else arm.image_to_image.strength,
    )


def check_canvas(arm_name: str, canvas: Canvas, factor: int) -> None:
    """Raise InputError where a canvas is no whole number of the model's positions."""
    if canvas.width % factor or canvas.height % factor:
        down = [max(factor, side // factor * factor) for side in (canvas.width, canvas.height)]
        raise InputError(
            f"arms.{arm_name}.canvas is {canvas.width}x{canvas.height}; width and height must be multiples of {factor} "
            f"for this model, for instance {down[0]}x{down[1]}"
        )


class ArmGenerator:
    """Draws pictures of one arm; networks are loaded once, on first use."""

    def __init__(self, study: Study, arm_name: str, device: torch.device):
        self.study, self.arm_name, self.device = study, arm_name, device
        self.arm: Arm = study.arm(arm_name)
        self.guidance: Guidance = guidance_of(self.arm)
        model, loading = study.model, study.model.loading
        main = locate(model.main, model.config)
        replaced = {part: locate(source, model.config) for part, source in _replaced(model).items()}
        self.text_encoder: TextEncoder = load_text_encoder(
            main, device, study.text, DTYPES[loading.dtype], replaced.get("text_encoder")
        )
        self.networks: dict[Network, DenoisingNetwork] = {
            "main": load_network(main, device, loading, replaced.get("vae"))
        }
        if any(prediction.network == "guide" for prediction in self.guidance.predictions()):
            guide = locate(model.guide, model.config)
            self.networks["guide"] = load_network(guide, device, loading, latents=self.networks["main"].latents)
            if model.weaken:
                weaken(self.networks["guide"].unet, model.weaken)
            check_pair(self.networks["main"], self.networks["guide"])

        self._flops: dict[str, int] = {}

    def draw(
        self, texts: Mapping[Text, list[str]], seeds: list[int], starts: Sequence[PillowImage.Image] | None = None
    ) -> tuple[list[PillowImage.Image], list[dict[str, list[object]]], ShardCost]:
        """One batch: pictures, for each picture its trace as columns, and what the batch cost.

        `starts` are the pictures that image-to-image starts from.
        """
        started = time.perf_counter()
        conditioning = self.text_encoder.encode_together(texts, references=("empty", "negative", "unrelated"))
        main, sampler, canvas = self.networks["main"], self.study.sampler_of(self.arm), self.arm.canvas
        time_ids = main.time_ids(len(seeds), canvas)
        if time_ids is not None:
            conditioning = {text: replace(c, time_ids=time_ids.to(self.device)) for text, c in conditioning.items()}
        scheduler = build_scheduler(sampler, main.schedule.config)
        samples, trace = sample(
            self.networks,
            conditioning,
            self.guidance,
            scheduler,
            sampler.steps,
            seeds,
            main.shape_of(canvas),
            self._start(starts),
        )
        pictures = main.to_pictures(samples).permute(0, 2, 3, 1).cpu().numpy()
        seconds = time.perf_counter() - started
        n, (used, probed) = len(seeds), evaluations(trace)
        flops, probe_flops = (
            sum(count * self._flops_of(name, samples, conditioning) for name, count in counts.items())
            for counts in (used, probed)
        )
        cost = ShardCost(
            fingerprint="",
            pictures=n,
            nfe=n * used.total(),
            flops=n * flops,
            probe_nfe=n * probed.total(),
            probe_flops=n * probe_flops,
            seconds=seconds,
            device=device_name(self.device),
        )
        traces = [trace_rows(trace, k) for k in range(n)]
        return [PillowImage.fromarray(picture) for picture in pictures], traces, cost

    def _flops_of(self, name: str, samples: torch.Tensor, conditioning: Mapping[Text, Conditioning]) -> int:
        """FLOPs of one evaluation of the prediction called `name`, counted once."""
        if name not in self._flops:
            prediction = next(p for p in self.guidance.predictions() if p.name == name)
            text = conditioning[prediction.text].first()
            self._flops[name] = prediction_flops(self.networks[prediction.network], prediction, samples[:1], text)
        return self._flops[name]

    def _start(self, starts: Sequence[PillowImage.Image] | None) -> Start | None:
        # Pictures of another size are resized to the canvas, as diffusers' image-to-image does (Lanczos).
        setting, main = self.arm.image_to_image, self.networks["main"]
        if setting is None or starts is None:
            return None
        _, rows, columns = main.shape_of(self.arm.canvas)
        extent = (columns * main.factor, rows * main.factor)
        fitted = [p if p.size == extent else p.resize(extent, PillowImage.Resampling.LANCZOS) for p in starts]
        pixels = torch.stack([torch.from_numpy(np.array(p.convert("RGB"))).permute(2, 0, 1) for p in fitted])
        return Start(main.to_samples(pixels), setting.strength, setting.noise)


class StartPictures:
    """The pictures that image-to-image starts from: those on disk where they are the right ones, else drawn here.

    Drawing an arm's pictures again gives the same bytes, so the result does not depend on which of the two it was.
    """

    def __init__(self, study: Study, start: ImageToImage, sets: Path, device: torch.device):
        self.study, self.start, self.sets, self.device = study, start, sets, device
        self._drawn: dict[int, list[PillowImage.Image]] = {}
        self._generator: ArmGenerator | None = None

    def __call__(self, part: int, batch: range) -> list[PillowImage.Image]:
        """The start pictures of a batch of shard `part`. Raises InputError where there are too few."""
        if part not in self._drawn:
            self._drawn = {part: self._of_shard(part)}
        first = part * self.study.generate.shard
        return [self._drawn[part][k - first] for k in batch]

    def _of_shard(self, part: int) -> list[PillowImage.Image]:
        count = self.study.generate.shard
        if self.start.is_folder:
            table = read_set(Path(self.start.start), ["image"])
            return list(decode_images(table.slice(part * count, count)))
        texts = arm_texts(self.study, self.start.start)
        shard = plan_shards(self.study, self.start.start, texts)[part]
        path = self.sets / self.start.start / shard.name
        if shard_fingerprint(path) == shard.fingerprint:
            return list(decode_images(read_table(path, ["image"])))
        if self._generator is None:
            self._generator = ArmGenerator(self.study, self.start.start, self.device)
        pictures: list[PillowImage.Image] = []
        for batch in _batches(shard, self.study.generate.batch):
            pictures += self._generator.draw(_rows(texts, batch), _seeds(self.study, batch))[0]
        return pictures


def _rows(texts: Mapping[Text, list[str]], batch: range) -> dict[Text, list[str]]:
    return {text: [values[k] for k in batch] for text, values in texts.items()}


def start_fingerprints(study: Study, start: ImageToImage) -> list[str]:
    """What determines the start pictures of each shard. Raises InputError where a folder has too few pictures."""
    if not start.is_folder:
        return [shard.fingerprint for shard in plan_shards(study, start.start, arm_texts(study, start.start))]
    folder = Path(start.start)
    count = sum(pq.read_metadata(path).num_rows for path in shard_paths(folder))
    if count < study.generate.pictures:
        raise InputError(
            f"image_to_image.from {folder} holds {count} pictures, generate.pictures is {study.generate.pictures}; "
            "each picture needs one to start from"
        )
    return [set_fingerprint(folder)] * -(-study.generate.pictures // study.generate.shard)


def generate(
    study: Study, arm_name: str, sets: Path, traces: Path, device: torch.device, costs: Path = COSTS
) -> tuple[int, int]:
    """Draw what is missing of an arm; returns (shards drawn, shards in all).

    Shards of other fingerprints are replaced and shards beyond the study's number are deleted. What the drawing cost
    goes to `<costs>/<arm>.json`. Raises InputError.
    """
    texts = arm_texts(study, arm_name)
    shards = plan_shards(study, arm_name, texts)
    folder, trace_folder = sets / arm_name, traces / arm_name
    names = {shard.name for shard in shards}
    for stale in (*folder.glob("*"), *folder.glob(".*.tmp"), *trace_folder.glob("*"), *trace_folder.glob(".*.tmp")):
        if stale.name not in names:
            stale.unlink()
    cost = Cost(
        costs / f"{arm_name}.json", {shard.name: shard.fingerprint for shard in shards}, arm_anlas(study, arm_name)
    )
    missing = [s for s in shards if not _finished(s, folder, trace_folder)]
    if missing or not cost.shards:
        generator = ArmGenerator(study, arm_name, device)
        total = sum(shard.stop - shard.start for shard in missing)
        with tqdm(total=total, desc=f"generate {arm_name}", unit="picture", disable=None) as bar:
            setting = study.arm(arm_name).image_to_image
            starts = None if setting is None else StartPictures(study, setting, sets, device)
            for shard in missing:
                _write(shard, generator, texts, folder, trace_folder, cost, bar, starts)
        if not missing:
            # Every picture is there but no record of its cost: one batch is drawn again to measure it.
            batch = next(_batches(shards[0], study.generate.batch))
            again = None if starts is None else starts(shards[0].part, batch)
            measured = generator.draw(_rows(texts, batch), _seeds(study, batch), again)[2]
            cost.add(shards[0].name, replace(measured, fingerprint=shards[0].fingerprint))
    cost.write()
    return len(missing), len(shards)


def _seeds(study: Study, batch: range) -> list[int]:
    return [study.generate.first_seed + k for k in batch]


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
    cost: Cost,
    bar: "tqdm[Never]",
    starts: StartPictures | None,
) -> None:
    study, arm_name = generator.study, generator.arm_name
    columns: dict[str, list[object]] = {name: [] for name in FEATURES}
    trace: dict[str, list[object]] = {name: [] for name in TRACE_FEATURES}
    # A negative prompt that is only probed has not made the picture.
    used = any(term.reference.text == "negative" for term in generator.guidance.terms)
    negatives = texts["negative"] if used and "negative" in texts else [""] * len(texts["prompt"])
    costs: list[ShardCost] = []
    for batch in _batches(shard, study.generate.batch):
        seeds, start = _seeds(study, batch), None if starts is None else starts(shard.part, batch)
        pictures, traces, spent = generator.draw(_rows(texts, batch), seeds, start)
        costs.append(spent)
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
    cost.add(shard.name, total_cost(costs, shard.fingerprint))
    # The set's shard is the sign that the trace and the cost are there as well, so it is written last.
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
