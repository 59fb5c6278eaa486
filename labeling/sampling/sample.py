"""Stage `sample`: which images people shall see, in which order, under which ids.

Every choice is a keyed hash of the thing chosen, so it depends neither on the order of files nor on the number of
other images, and labels given before stay valid: a larger sample contains the smaller one, unless it is the first
that is large enough to draw from every prompt. The same pairs are drawn in every arm ("permanent random numbers":
Ohlsson, Coordination of samples, in Business Survey Methods, 1995), so that arms are compared on the same prompts and
seeds.
"""

import hashlib
import hmac
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean

from labeling.records import SAMPLED_PAIRS, SAMPLED_TASKS, SampledPair, SampledTask, write_pairs, write_tasks
from labeling.sampling.sample_size import labels_needed, labels_needed_with_scores
from pipeline.errors import InputError, run_stage
from pipeline.layout import SCORES, SETS
from pipeline.stage_arguments import stage_parser
from pipeline.storage.images import open_image
from pipeline.storage.shards import read_table, shard_paths
from pipeline.study.study import Labeling, Study, load_study


@dataclass(frozen=True)
class Candidate:
    """An image that may be sampled; `digest` is of its bytes, `p_malformed` in [0, 1] the automatic score."""

    image_id: str
    arm: str
    pair_id: int
    prompt: str
    canvas: str
    digest: str
    p_malformed: float


class Lot:
    """Draws by keyed hash: `number` for the order of a draw, `task_id` for ids that tell nothing of what they hide."""

    def __init__(self, seed: int):
        self._key = hashlib.sha256(f"guidedrift.labeling.{seed}".encode()).digest()

    def number(self, *of: object) -> float:
        """A number in [0, 1), the same for the same `of` and as good as independent for another."""
        return int(self._digest("number", *of)[:13], 16) / 16**13

    def task_id(self, *of: object) -> str:
        """16 hex digits."""
        return self._digest("task", *of)[:16]

    def _digest(self, *of: object) -> str:
        return hmac.new(self._key, repr(of).encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class DrawnPair:
    """A pair of the random batch: `stratum` is empty where the prompts are not told apart."""

    pair_id: int
    stratum: str
    inclusion_probability: float


def draw_random(prompts: Mapping[int, str], labels: int, lot: Lot) -> list[DrawnPair]:
    """About `labels` of the pairs (pair_id to prompt), from every prompt in proportion to its pairs.

    Where `labels` does not reach two a prompt, the prompts together are one stratum: a stratum without a label would
    stay unseen, and one with a single label has no variance.
    """
    strata: dict[str, list[int]] = defaultdict(list)
    for pair, prompt in prompts.items():
        strata[prompt].append(pair)
    if labels < 2 * len(strata) or len(strata) == 1:
        strata = {"": list(prompts)}
    drawn = []
    for k, members in enumerate(strata.values()):
        taken = min(len(members), max(2, round(labels * len(members) / len(prompts))))
        stratum = f"prompt {k}" if len(strata) > 1 else ""
        first = sorted(members, key=lambda pair: lot.number("draw", pair))[:taken]
        drawn += [DrawnPair(pair, stratum, taken / len(members)) for pair in first]
    return drawn


def prompts_of_pairs(arms: Mapping[str, Sequence[Candidate]]) -> dict[int, str]:
    """The prompt of every pair; arms that are drawn with the empty prompt share it. Raises InputError."""
    first, *others = arms
    prompts = {candidate.pair_id: candidate.prompt for candidate in arms[first]}
    for arm in others:
        if {candidate.pair_id for candidate in arms[arm]} != set(prompts):
            raise InputError(f"arms '{arm}' and '{first}' do not share their pairs; run `dvc repro`")
        for candidate in arms[arm]:
            prompts[candidate.pair_id] = prompts[candidate.pair_id] or candidate.prompt
    return prompts


def draw_tasks(arms: Mapping[str, Sequence[Candidate]], labels: int, settings: Labeling) -> list[SampledTask]:
    """The queue of all arms: the random batch with its repeats, shuffled, and behind it the triage batch."""
    lot = Lot(settings.seed)
    drawn = draw_random(prompts_of_pairs(arms), labels, lot)
    shown: dict[str, tuple[Candidate, str, float]] = {}
    for arm, candidates in arms.items():
        by_pair = {candidate.pair_id: candidate for candidate in candidates}
        for pair in drawn:
            candidate = by_pair[pair.pair_id]
            stratum = f"{arm}/{pair.stratum}" if pair.stratum else arm
            task = lot.task_id("random", arm, candidate.image_id, candidate.digest)
            shown[task] = candidate, stratum, pair.inclusion_probability
    queue = sorted(shown, key=lambda task: lot.number("queue", task))
    # Twice in the second half what stood in the first: later, but not at once, and a random part of the batch.
    half = math.ceil(len(queue) / 2)
    again = {
        lot.task_id("repeat", task): task
        for task in sorted(queue[:half], key=lambda task: lot.number("repeat", task))[
            : round(settings.repeats * len(queue))
        ]
    }
    shared = set(sorted(queue, key=lambda task: lot.number("overlap", task))[: round(settings.overlap * len(queue))])
    order = queue[:half] + sorted([*queue[half:], *again], key=lambda task: lot.number("queue", task))
    tasks = [
        _task(
            task,
            *shown[again.get(task, task)],
            "random",
            position,
            again.get(task),
            settings.labellers if task in shared else 1,
        )
        for position, task in enumerate(order)
    ]
    seen = {candidate.image_id for candidate, _, _ in shown.values()}
    doubtful = [
        candidate
        for candidates in arms.values()
        for candidate in sorted(
            (candidate for candidate in candidates if candidate.image_id not in seen),
            key=lambda candidate: (abs(candidate.p_malformed - 0.5), candidate.pair_id),
        )[: settings.triage]
    ]
    chosen = {lot.task_id("triage", c.arm, c.image_id, c.digest): c for c in doubtful}
    for position, task in enumerate(sorted(chosen, key=lambda task: lot.number("queue", task)), start=len(tasks)):
        tasks.append(_task(task, chosen[task], chosen[task].arm, 1.0, "triage", position, None, 1))
    return tasks


def draw_pairs(arms: Mapping[str, Sequence[Candidate]], settings: Labeling) -> list[SampledPair]:
    """For every two arms `settings.pairs` images of the same prompt and seed, sides and order drawn at random."""
    lot = Lot(settings.seed)
    pairs: dict[str, tuple[Candidate, Candidate]] = {}
    for one, other in combinations(sorted(arms), 2):
        partners = {candidate.pair_id: candidate for candidate in arms[other]}
        for left in sorted(arms[one], key=lambda c: lot.number("pair", one, other, c.pair_id))[: settings.pairs]:
            right = partners[left.pair_id]
            task = lot.task_id("pair", left.image_id, left.digest, right.image_id, right.digest)
            pairs[task] = (right, left) if lot.number("side", task) < 0.5 else (left, right)
    return [
        SampledPair(
            task_id=task,
            pair_id=pairs[task][0].pair_id,
            # An arm with an empty prompt is judged by what the other one was asked for.
            prompt=pairs[task][0].prompt or pairs[task][1].prompt,
            left_arm=pairs[task][0].arm,
            right_arm=pairs[task][1].arm,
            left_image_id=pairs[task][0].image_id,
            right_image_id=pairs[task][1].image_id,
            position=position,
        )
        for position, task in enumerate(sorted(pairs, key=lambda task: lot.number("queue", task)))
    ]


def candidates_of(arm: str, sets: Path, scores: Path) -> list[Candidate]:
    """The images of an arm. Raises InputError where the set or its scores are missing or of other images."""
    path = scores / f"{arm}.parquet"
    score = {row["image_id"]: row["p_malformed"] for row in read_table(path, ["image_id", "p_malformed"]).to_pylist()}
    candidates = []
    for shard in shard_paths(sets / arm):
        for row in read_table(shard, ["image_id", "pair_id", "prompt", "image"]).to_pylist():
            if row["image_id"] not in score:
                raise InputError(f"{path} has no row for '{row['image_id']}'; delete it and run `dvc repro`")
            try:
                width, height = open_image(row["image"]["bytes"]).size
            except OSError as error:
                raise InputError(
                    f"{shard} holds an unreadable image ({error}); delete it and run `dvc repro`"
                ) from None
            candidates.append(
                Candidate(
                    image_id=row["image_id"],
                    arm=arm,
                    pair_id=row["pair_id"],
                    prompt=row["prompt"],
                    canvas=f"{width}x{height}",
                    digest=hashlib.sha256(row["image"]["bytes"]).hexdigest(),
                    p_malformed=score[row["image_id"]],
                )
            )
    return candidates


def size_line(study: Study, arms: Mapping[str, Sequence[Candidate]], labels: int) -> str:
    """How many labels the wanted interval takes, without and with the automatic score."""
    settings = study.labeling
    images = min(len(candidates) for candidates in arms.values())
    scores = [candidate.p_malformed for candidates in arms.values() for candidate in candidates]
    mean = fmean(scores)
    # Of a calibrated score Cov(Y, f) = Var(f), so r² = Var(f) / Var(Y).
    spread = fmean((score - mean) ** 2 for score in scores)
    correlation = math.sqrt(spread / (mean * (1 - mean))) if 0 < mean < 1 else 0.0
    powered = labels_needed_with_scores(labels, images, correlation)
    short = f"; an arm has only {images} images" if images < labels else ""
    return (
        f"a {study.metrics.level:.0%} interval {settings.interval_width:g} wide at the rate {settings.expected_rate:g} "
        f"takes {labels} labels an arm, {powered} if P(malformed) is calibrated (then it correlates with the labels by "
        f"{correlation:.2f}){short}"
    )


def sample(study: Study, sets: Path, scores: Path) -> tuple[list[SampledTask], list[SampledPair], str]:
    """The tasks and pairs of a study, and a line on their number. Raises InputError."""
    arms = {arm: candidates_of(arm, sets, scores) for arm in study.arms}
    settings = study.labeling
    labels = labels_needed(settings.interval_width, settings.expected_rate, study.metrics.level)
    return draw_tasks(arms, labels, settings), draw_pairs(arms, settings), size_line(study, arms, labels)


def _task(
    task: str,
    candidate: Candidate,
    stratum: str,
    probability: float,
    batch: str,
    position: int,
    repeat_of: str | None,
    overlap: int,
) -> SampledTask:
    return SampledTask(
        task_id=task,
        image_id=candidate.image_id,
        arm=candidate.arm,
        pair_id=candidate.pair_id,
        canvas=candidate.canvas,
        stratum=stratum,
        inclusion_probability=probability,
        batch=batch,  # type: ignore[arg-type]
        repeat_of=repeat_of,
        overlap=overlap,
        position=position,
    )


def main() -> None:
    stage_parser("labeling.sampling.sample", __doc__).parse_args()
    study = load_study()
    tasks, pairs, size = sample(study, SETS, SCORES)
    write_tasks(SAMPLED_TASKS, tasks)
    if pairs:
        write_pairs(SAMPLED_PAIRS, pairs)
    else:
        SAMPLED_PAIRS.unlink(missing_ok=True)
    triage = sum(task.batch == "triage" for task in tasks)
    repeats = sum(task.repeat_of is not None for task in tasks)
    print(
        f"sample: {len(tasks)} tasks of {len(study.arms)} arms ({repeats} repeats, {triage} for triage) and "
        f"{len(pairs)} pairs in {SAMPLED_TASKS.parent}/; {size}"
    )


if __name__ == "__main__":
    run_stage(main)
