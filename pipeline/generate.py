"""Stage `generate@<arm>`: one arm of the study becomes an image set and a trace.

The work is cut into shards by the study. A shard is finished when its file is there with the right fingerprint;
what is finished is kept, whatever happened to the run that made it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Never

import torch
from datasets import Features, Image, List, Value
from PIL import Image as PillowImage
from tqdm import tqdm

from pipeline.anlas import anlas
from pipeline.arm_generator import ArmGenerator
from pipeline.checkpoints import locate
from pipeline.cost import Cost, ShardCost, total_cost
from pipeline.errors import run_stage
from pipeline.guidance import Text
from pipeline.layout import COSTS, SETS, TRACES, TRAJECTORIES
from pipeline.shard_plan import Shard, arm_texts, batch_seeds, batch_texts, plan_shards
from pipeline.shards import encode_png, shard_fingerprint, write_shard
from pipeline.stage_arguments import stage_parser
from pipeline.start_pictures import StartPictures
from pipeline.study import Study, load_study
from pipeline.trajectory import TRAJECTORY_FEATURES, trajectory_fingerprint, watched_of

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


@dataclass(frozen=True)
class Places:
    """Where an arm's shards lie, each kind in a folder of its own."""

    sets: Path = SETS
    traces: Path = TRACES
    trajectories: Path = TRAJECTORIES
    costs: Path = COSTS

    @staticmethod
    def under(root: Path) -> "Places":
        """The places of a project in the folder `root`."""
        return Places(root / SETS, root / TRACES, root / TRAJECTORIES, root / COSTS)

    def of(self, arm_name: str) -> "Places":
        """The folders of one arm, and the file of its cost."""
        folders = [place / arm_name for place in (self.sets, self.traces, self.trajectories)]
        return Places(folders[0], folders[1], folders[2], self.costs / f"{arm_name}.json")


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


def generate(study: Study, arm_name: str, places: Places, device: torch.device) -> tuple[int, int]:
    """Draw what is missing of an arm; returns (shards drawn, shards in all).

    Shards of other fingerprints are replaced and shards beyond the study's number are deleted. Raises InputError.
    """
    texts = arm_texts(study, arm_name)
    shards = plan_shards(study, arm_name, texts)
    own, watched = places.of(arm_name), study.generate.watched
    names = {shard.name for shard in shards}
    watched_names = {shard.name for shard in shards if shard.start < watched}
    for folder, expected in ((own.sets, names), (own.traces, names), (own.trajectories, watched_names)):
        for stale in (*folder.glob("*"), *folder.glob(".*.tmp")):
            if stale.name not in expected:
                stale.unlink()
    cost = Cost(own.costs, {shard.name: shard.fingerprint for shard in shards}, arm_anlas(study, arm_name))
    missing = [shard for shard in shards if not _finished(shard, own, watched)]
    if missing or not cost.shards:
        generator = ArmGenerator(study, arm_name, device)
        setting = study.arm(arm_name).image_to_image
        starts = None if setting is None else StartPictures(study, setting, places.sets, device)
        total = sum(shard.stop - shard.start for shard in missing)
        with tqdm(total=total, desc=f"generate {arm_name}", unit="picture", disable=None) as bar:
            for shard in missing:
                _write(shard, generator, texts, own, cost, bar, starts)
        if not missing:
            # Every picture is there but no record of its cost: one batch is drawn again to measure it.
            batch = next(shards[0].batches(study.generate.batch))
            again = None if starts is None else starts(shards[0].part, batch)
            drawn = generator.draw(batch_texts(texts, batch), batch_seeds(study, batch), again)
            cost.add(shards[0].name, replace(drawn.cost, fingerprint=shards[0].fingerprint))
    own.trajectories.mkdir(parents=True, exist_ok=True)  # also where none is kept: DVC wants to find it
    cost.write()
    return len(missing), len(shards)


def _finished(shard: Shard, own: Places, watched: int) -> bool:
    folders = (own.sets, own.traces)
    if any(shard_fingerprint(folder / shard.name) != shard.fingerprint for folder in folders):
        return False
    kept = own.trajectories / shard.name
    return shard.start >= watched or shard_fingerprint(kept) == trajectory_fingerprint(shard, watched)


def _write(
    shard: Shard,
    generator: ArmGenerator,
    texts: Mapping[Text, list[str]],
    own: Places,
    cost: Cost,
    bar: "tqdm[Never]",
    starts: StartPictures | None,
) -> None:
    study, arm_name = generator.study, generator.arm_name
    columns: dict[str, list[object]] = {name: [] for name in FEATURES}
    trace: dict[str, list[object]] = {name: [] for name in TRACE_FEATURES}
    frames: dict[str, list[object]] = {name: [] for name in TRAJECTORY_FEATURES}
    # A negative prompt that is only probed has not made the picture.
    used = any(term.reference.text == "negative" for term in generator.guidance.terms)
    negatives = texts["negative"] if used and "negative" in texts else [""] * len(texts["prompt"])
    costs: list[ShardCost] = []
    for batch in shard.batches(study.generate.batch):
        seeds, start = batch_seeds(study, batch), None if starts is None else starts(shard.part, batch)
        watched = watched_of(batch, study.generate.watched)
        drawn = generator.draw(batch_texts(texts, batch), seeds, start, watched)
        costs.append(drawn.cost)
        ids = [f"{arm_name}-{k:06d}" for k in batch]
        for k, image_id, seed, picture in zip(batch, ids, seeds, drawn.pictures, strict=True):
            _add(columns, image_id, _png(picture), arm_name, k, texts["prompt"][k], negatives[k], seed)
        for image_id, steps in zip(ids, drawn.traces, strict=True):
            trace["image_id"] += [image_id] * len(steps["step"])
            for name, values in steps.items():
                trace[name] += values
        for image_id, way in zip(ids, drawn.trajectories, strict=False):
            for frame in way:
                _add(frames, image_id, frame.step, frame.sigma, _png(frame.picture))
        bar.update(len(batch))
    cost.add(shard.name, total_cost(costs, shard.fingerprint))
    # The set's shard is the sign that all the rest of it is there as well, so it is written last.
    if frames["image_id"]:
        kept = trajectory_fingerprint(shard, study.generate.watched)
        write_shard(own.trajectories / shard.name, frames, TRAJECTORY_FEATURES, kept)
    write_shard(own.traces / shard.name, trace, TRACE_FEATURES, shard.fingerprint)
    write_shard(own.sets / shard.name, columns, FEATURES, shard.fingerprint)


def _add(columns: dict[str, list[object]], *row: object) -> None:
    for name, value in zip(columns, row, strict=True):
        columns[name].append(value)


def _png(picture: PillowImage.Image) -> dict[str, bytes | None]:
    return {"bytes": encode_png(picture), "path": None}


def main() -> None:
    parser = stage_parser("pipeline.generate", __doc__)
    parser.add_argument("--arm", required=True, help="an arm of params.yaml")
    arguments = parser.parse_args()
    study = load_study()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    drawn, total = generate(study, arguments.arm, Places(), device)
    print(
        f"generate {arguments.arm}: {study.generate.pictures} pictures in {SETS / arguments.arm} "
        f"({drawn} of {total} shards drawn, {total - drawn} kept)"
    )


if __name__ == "__main__":
    run_stage(main)
