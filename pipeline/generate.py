"""Stage `generate@<arm>`: one arm of the study becomes an image set and a trace.

The work is cut into shards by the study. A shard is finished when its file is there with the right fingerprint;
what is finished is kept, whatever happened to the run that made it.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from pipeline.cost.anlas import anlas
from pipeline.cost.shard_cost import Cost
from pipeline.errors import run_stage
from pipeline.execution.allocator import keep_freed_memory
from pipeline.execution.executor import device_kind, local_devices, run_tasks, runs_here
from pipeline.execution.termination import Termination
from pipeline.generation.shard_files import GeneratedShard
from pipeline.generation.shard_plan import Shard, ShardTask, arm_texts, plan_shards
from pipeline.generation.shard_storage import ShardStorage
from pipeline.layout import SETS
from pipeline.networks.checkpoints import locate
from pipeline.stage_arguments import stage_parser
from pipeline.storage.places import Places
from pipeline.study.executor import RayExecutor
from pipeline.study.study import Study, load_study

if TYPE_CHECKING:
    from pipeline.generation.shard_generator import ShardGenerator


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


def generate(study: Study, arm_name: str, places: Places, termination: Termination | None = None) -> tuple[int, int]:
    """Draw what is missing of an arm; returns (shards drawn, shards in all).

    Shards of other fingerprints are replaced and shards beyond the study's number are deleted. Where `termination` is
    asked for, the shards that are under way are finished and no others begun. Raises InputError.
    """
    termination = termination or Termination()
    texts = arm_texts(study, arm_name)
    shards = plan_shards(study, arm_name, texts, device_kind(study.executor))
    own = ShardStorage(places, study, arm_name)
    own.clear(shards)
    cost = Cost(own.places.costs, {shard.name: shard.fingerprint for shard in shards}, arm_anlas(study, arm_name))
    missing = [ShardTask.of(shard, texts) for shard in shards if not own.holds(shard)]
    total = sum(task.shard.stop - task.shard.start for task in missing)
    drawn = 0
    with tqdm(total=total, desc=f"generate {arm_name}", unit="picture", disable=None) as bar:
        for made in _drawn(study, arm_name, places, missing, bar.update, termination):
            cost.add(made.shard.name, made.cost)
            own.put(made)
            drawn += 1
    if not cost.shards and not termination.requested:
        # Every picture is there but no record of its cost: one batch is drawn again to measure it.
        generator = _load_generator(study, arm_name, places, local_devices()[0])
        cost.add(shards[0].name, generator.measure_again(ShardTask.of(shards[0], texts)))
    if cost.shards:
        cost.write()
    own.places.trajectories.mkdir(parents=True, exist_ok=True)  # also where none is kept: DVC wants to find it
    return drawn, len(shards)


def _drawn(
    study: Study,
    arm_name: str,
    places: Places,
    missing: list[ShardTask],
    progress: Callable[[int], object],
    termination: Termination,
) -> Iterator[GeneratedShard]:
    executor = study.executor
    shared = executor.storage if isinstance(executor, RayExecutor) else ""
    if not shared:
        # Another process cannot move the bar by the batch.
        here = runs_here(executor)
        job = partial(shard_job, study, arm_name, places, progress if here else None)
        for made in run_tasks(executor, job, missing, termination):
            if not here:
                progress(made.shard.stop - made.shard.start)
            yield made
        return
    storage = ShardStorage.at(shared, study, arm_name)
    unfinished = []
    for task in missing:
        finished = storage.get(task.shard)
        if finished is None:
            unfinished.append(task)
        else:
            yield finished
            progress(task.shard.stop - task.shard.start)
    for shard in run_tasks(executor, partial(_storing_generator, study, arm_name, places), unfinished, termination):
        yield storage.fetch(shard)
        progress(shard.stop - shard.start)


def shard_job(
    study: Study, arm_name: str, places: Places, progress: Callable[[int], object] | None, device: torch.device
) -> Callable[[ShardTask], GeneratedShard]:
    """A job (pipeline/execution/executor.py): draws shards."""
    generator = _load_generator(study, arm_name, places, device)
    return lambda task: generator.draw(task, progress or (lambda _: None))


def _storing_generator(
    study: Study, arm_name: str, places: Places, device: torch.device
) -> Callable[[ShardTask], Shard]:
    """A job that leaves what it draws in the executor's storage."""
    assert isinstance(study.executor, RayExecutor)
    generator = _load_generator(study, arm_name, places, device)
    storage = ShardStorage.at(study.executor.storage, study, arm_name)

    def draw(task: ShardTask) -> Shard:
        storage.put_with_cost(generator.draw(task, lambda _: None))
        return task.shard

    return draw


def _load_generator(study: Study, arm_name: str, places: Places, device: torch.device) -> "ShardGenerator":
    # With diffusers, whose import takes ten seconds: an arm whose shards are all there does not wait for it.
    from pipeline.generation.shard_generator import ShardGenerator

    keep_freed_memory()
    return ShardGenerator(study, arm_name, places, device)


def main() -> None:
    parser = stage_parser("pipeline.generate", __doc__)
    parser.add_argument("--arm", required=True, help="an arm of params.yaml")
    arguments = parser.parse_args()
    study = load_study()
    with Termination() as termination:
        drawn, total = generate(study, arguments.arm, Places(), termination)
        termination.leave(f"a whole shard of {arguments.arm} ({drawn} drawn in this run)")
    print(
        f"generate {arguments.arm}: {study.generate.pictures} pictures in {SETS / arguments.arm} "
        f"({drawn} of {total} shards drawn, {total - drawn} kept)"
    )


if __name__ == "__main__":
    run_stage(main)
