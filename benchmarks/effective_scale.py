"""What recording the effective scale adds to generation beyond the probe of the empty text itself.

`python -m benchmarks.effective_scale` generates a batch of the default study's arm `negative`, with the empty text
probed, with and without the arithmetic of the effective scale (pipeline/guidance/trace.py), in turns.
"""

import time

import torch

from benchmarks.record import entry, least, record
from pipeline.generation.arm_generator import ArmGenerator
from pipeline.generation.shard_plan import arm_texts, batch_seeds, batch_texts
from pipeline.guidance import trace
from pipeline.study.study import load_study

ARM, ROUNDS, MOST = "negative", 5, 1.03


def main() -> None:
    study = load_study()
    torch.set_num_threads(study.generate.threads)
    arm = study.arm(ARM).model_copy(update={"probes": ("empty",)})
    study = study.model_copy(update={"arms": study.arms | {ARM: arm}})
    generator = ArmGenerator(study, ARM, torch.device("cpu"))
    batch = range(study.generate.batch)
    texts, seeds = batch_texts(arm_texts(study, ARM), batch), batch_seeds(study, ARM, batch)
    measured = trace.effective_push

    def with_it() -> None:
        trace.effective_push = measured
        generator.draw(texts, seeds)

    def without() -> None:
        unknown = torch.full((len(seeds),), torch.nan)
        trace.effective_push = lambda guided, predicted: (unknown, unknown)
        generator.draw(texts, seeds)

    generator.draw(texts, seeds)  # whatever the first batch pays for
    recorded, bare = least(ROUNDS, with_it, without, clock=time.process_time)
    trace.effective_push = measured
    ratio = recorded / bare
    record([entry("effective_scale_cost", ratio, MOST, ratio <= MOST, "the same batch without its arithmetic")])


if __name__ == "__main__":
    main()
